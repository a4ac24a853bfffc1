//! Clients that are hostile, unlucky or merely different, before the gateway and before a pod: what they do
//! is theirs alone.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, manifests, skipped, wait};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::stage::Stage;

/// How long an answer to a broken request may take.
const ANSWER: Duration = Duration::from_secs(8);

/// Requests that no pod can be blamed for, and what may be answered.
const BROKEN: [(&str, &str, &[u16]); 6] = [
    ("a chunk without a size", "transfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n", &[400]),
    ("a chunk that overflows", "transfer-encoding: chunked\r\n\r\nfffffffffffffffffff\r\n{}\r\n", &[400]),
    ("a length that is none", "content-length: ten\r\n\r\n{}", &[400]),
    ("two lengths", "content-length: 2\r\ncontent-length: 3\r\n\r\n{}x", &[400]),
    ("a header without a name", ": x\r\n\r\n", &[400]),
    ("no version that is known", "", &[400, 505]),
];

/// Two shops behind a gateway; each has records of its own, which none of these tests looks at.
struct Edge {
    pods: [Stage; 2],
    gateway: DataPlane,
}

impl Edge {
    async fn open() -> Self {
        let pods = [Stage::embedded(), Stage::embedded()];
        let upstream = |stage: &Stage| format!("main={}", stage.data_plane.url.trim_start_matches("http://"));
        let gateway = DataPlane::start(&[
            "gateway",
            "--manifests",
            &manifests::samples().display().to_string(),
            "--upstream",
            &upstream(&pods[0]),
            "--upstream",
            &upstream(&pods[1]),
        ]);
        let edge = Self { pods, gateway };
        wait::until("two healthy pods", Duration::from_secs(15), async || {
            (edge.healthy().await == 2).then_some(())
        })
        .await;
        edge
    }

    async fn healthy(&self) -> usize {
        let registry = Api::at(&self.gateway.url).get("/api/v1/gateway/registry").await.json();
        let services = registry["services"].as_array().cloned().unwrap_or_default();
        services.iter().filter(|pod| pod["healthy"] == true).count()
    }

    /// Both doors: the gateway's and a pod's.
    fn doors(&self) -> [(&'static str, &str); 2] {
        [("gateway", &self.gateway.url), ("pod", &self.pods[0].data_plane.url)]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_s_fault_is_answered_and_never_a_pod_s() {
    let edge = Edge::open().await;
    for (door, url) in edge.doors() {
        for (what, rest, expected) in BROKEN {
            let version = if rest.is_empty() { "HTTP/7.0" } else { "HTTP/1.1" };
            let rest = if rest.is_empty() { "\r\n" } else { rest };
            let request = format!(
                "POST /api/v1/products {version}\r\nhost: localhost\r\ncontent-type: application/json\r\n{rest}"
            );
            let status = raw(url, request.as_bytes(), false).await;
            assert!(status.is_some_and(|status| expected.contains(&status)), "{door}: {what}: {status:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(70_000));
        assert_eq!(raw(url, long.as_bytes(), false).await, Some(414), "{door}: a path of 70 kB");
        let headers = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: 1\r\n".repeat(200));
        assert_eq!(raw(url, headers.as_bytes(), false).await, Some(431), "{door}: 200 headers");
        let cut = b"POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
        assert!(matches!(raw(url, cut, true).await, None | Some(400)), "{door}: a body that was cut off");
        for framing in [format!("content-length: {}", 30 << 20), "transfer-encoding: chunked".to_owned()] {
            let status = upload(url, &framing).await;
            assert_eq!(status, Some(413), "{door}: 30 MiB, {framing}");
        }
        assert_eq!(edge.healthy().await, 2, "{door}");
        let ready = reqwest::get(format!("{}/readyz", edge.gateway.admin)).await.unwrap();
        assert_eq!(ready.status(), 200, "{door}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_offers_another_protocol_is_served_by_this_one() {
    let edge = Edge::open().await;
    let body = json!({ "name": "Lamp", "price": 1 }).to_string();
    for (door, url) in edge.doors() {
        for protocol in ["h2c", "TLS/1.0", "websocket"] {
            let request = format!(
                "POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: {protocol}\r\n\
                 http2-settings: AAEAAEAAAAIAAAAA\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let begun = Instant::now();
            assert_eq!(raw(url, request.as_bytes(), false).await, Some(201), "{door}: {protocol}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{door}: {protocol}: {:?}", begun.elapsed());
        }
        if Command::new("java").arg("-version").output().is_err() {
            skipped("the JDK's client", "there is no java");
            continue;
        }
        let program = harness::root().join("tests/clients/Standard.java");
        let url = url.to_owned();
        let run =
            tokio::task::spawn_blocking(move || Command::new("java").arg(program).arg(url).output().unwrap());
        let output = run.await.unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(printed, "201\n".repeat(5), "{door}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_spoken_where_a_client_knows_it() {
    let edge = Edge::open().await;
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("HTTP/2", "there is no curl");
    }
    for (door, url) in edge.doors() {
        for (option, version) in [("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.1", "1.1")]
        {
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--max-time",
                "5",
                "--write-out",
                "%{http_code} %{http_version}",
                "--output",
                "/dev/null",
            ]);
            curl.args([option, "--json", r#"{"name":"Lamp","price":1}"#, &format!("{url}/api/v1/products")]);
            let run = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&run.stdout), format!("201 {version}"), "{door}: {option}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_stands_still_costs_readers_no_second() {
    let edge = Edge::open().await;
    let api = Api::at(&edge.gateway.url);
    for _ in 0..20 {
        assert_eq!(api.get("/api/v1/products").await.status, 200);
    }
    edge.pods[1].data_plane.freeze();
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        let read = api.get("/api/v1/products").await;
        assert_eq!(read.status, 200, "{}", read.text);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let (p99, slowest) = (times[times.len() * 99 / 100], times[times.len() - 1]);
    assert!(
        p99 < Duration::from_secs(1) && slowest < Duration::from_secs(3),
        "p99 {p99:?}, slowest {slowest:?}"
    );
    assert_eq!(edge.healthy().await, 1, "the frozen pod is known");
    edge.pods[1].data_plane.thaw();
    wait::until("the pod is back", Duration::from_secs(15), async || {
        (edge.healthy().await == 2).then_some(())
    })
    .await;
}

/// Sends bytes as they are, and perhaps says that no more will come; the status of what is answered, if
/// anything is.
async fn raw(url: &str, request: &[u8], ends: bool) -> Option<u16> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request).await.unwrap();
    if ends {
        stream.shutdown().await.unwrap();
    }
    status(&mut stream).await
}

async fn status(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u16> {
    let mut answer = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while !answer.contains(&b'\n') {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&part[..length]),
            }
        }
    };
    assert!(timeout(ANSWER, read).await.is_ok(), "nothing was answered, and the connection stayed open");
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

/// Sends 30 MiB, as a client does that reads no answer before it has sent all.
async fn upload(url: &str, framing: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (part, chunked) = (vec![b' '; 1 << 20], framing.contains("chunked"));
    for _ in 0..30 {
        if chunked {
            stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
        }
        stream.write_all(&part).await.unwrap();
        if chunked {
            stream.write_all(b"\r\n").await.unwrap();
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    status(&mut stream).await
}
