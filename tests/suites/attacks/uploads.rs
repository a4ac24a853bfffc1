//! Uploads that are broken, too large or not allowed, one after another: none of them is held against a pod.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, scale};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use super::{Shop, TOKENS, address, authorization, healthy_pods};

/// Uploads each second.
const RATE: u32 = 20;
const SECONDS: (usize, usize) = (5, 60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
/// The pause between two looks at readiness and registry.
const LOOK: Duration = Duration::from_millis(50);
const PART: usize = 1 << 20;

/// What is wrong with an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Upload {
    /// The size of a chunk is `ZZ`.
    NoSize,
    /// It ends before its length.
    CutOff,
    /// 30 MiB, and no token.
    NoToken,
    /// In chunks, of more bytes than a record may have.
    TooLarge,
}

const ALL: [Upload; 4] = [Upload::NoSize, Upload::CutOff, Upload::NoToken, Upload::TooLarge];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_uploads_change_neither_readiness_nor_registry() {
    let shop = Shop::open(2, TOKENS).await;
    let stop = Arc::<AtomicBool>::default();
    let looking = tokio::spawn(look(Api::at(&shop.gateway.url), admins(&shop), stop.clone()));
    let (begun, token, mut uploads) = (Instant::now(), authorization(), JoinSet::new());
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    let count = RATE as usize * scale::of(SECONDS.0, SECONDS.1);
    for upload in ALL.into_iter().cycle().take(count) {
        ticks.tick().await;
        let (url, token) = (shop.gateway.url.clone(), token.clone());
        uploads.spawn(async move { (upload, upload.send(&url, &token).await) });
    }
    let sent = begun.elapsed();
    let mut answers: BTreeMap<Upload, BTreeMap<Option<u16>, usize>> = BTreeMap::new();
    for (upload, status) in uploads.join_all().await {
        *answers.entry(upload).or_default().entry(status).or_default() += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let looks = looking.await.unwrap();
    let faults = metric(&shop.gateway, "flyweight_gateway_client_faults_total").await;
    eprintln!(
        "{count} broken uploads in {sent:.1?}: {answers:?}; {looks} looks, always ready; {faults} client faults"
    );
    for (upload, statuses) in &answers {
        let wrong: Vec<_> = statuses.keys().filter(|status| !upload.may_be_answered(**status)).collect();
        assert!(wrong.is_empty(), "{upload:?} was answered with {wrong:?}");
    }
    assert!(faults >= count / 4, "{faults} of {count} uploads broke at the gateway");
    assert!(looks > 20, "{looks}");
    assert!(
        sent < Duration::from_secs(2) * scale::of(SECONDS.0, SECONDS.1) as u32,
        "not so many each second: {sent:?}"
    );
}

impl Upload {
    fn may_be_answered(self, status: Option<u16>) -> bool {
        match self {
            Self::NoSize => status == Some(400),
            // a client that has gone need not be answered
            Self::CutOff => matches!(status, None | Some(400)),
            Self::NoToken => matches!(status, Some(401 | 413)),
            Self::TooLarge => status == Some(413),
        }
    }

    /// Sends it as a client does that reads no answer before it has sent all.
    async fn send(self, url: &str, token: &str) -> Option<u16> {
        let framing = match self {
            Self::NoSize | Self::TooLarge => "transfer-encoding: chunked".to_owned(),
            Self::CutOff => "content-length: 100".to_owned(),
            Self::NoToken => format!("content-length: {}", 30 * PART),
        };
        let token = if self == Self::NoToken { String::new() } else { format!("authorization: {token}\r\n") };
        let head = format!(
            "POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{token}{framing}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(address(url)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        match self {
            Self::NoSize => stream.write_all(b"ZZ\r\n{}\r\n0\r\n\r\n").await.unwrap(),
            Self::CutOff => {
                stream.write_all(b"{").await.unwrap();
                stream.shutdown().await.unwrap();
            }
            Self::NoToken => _ = parts(&mut stream, 30, false).await,
            Self::TooLarge => _ = parts(&mut stream, 3, true).await,
        }
        let mut answer = [0; 1_024];
        let read = timeout(ANSWER, stream.read(&mut answer)).await;
        let read = read.unwrap_or_else(|_| panic!("{self:?} was not answered within {ANSWER:?}"));
        String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).split(' ').nth(1)?.parse().ok()
    }
}

/// Sends so many megabytes, as long as they are taken.
async fn parts(stream: &mut TcpStream, count: usize, chunked: bool) -> std::io::Result<()> {
    let part = vec![b' '; PART];
    for _ in 0..count {
        if chunked {
            stream.write_all(format!("{PART:x}\r\n").as_bytes()).await?;
        }
        stream.write_all(&part).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
    }
    if chunked { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
}

fn admins(shop: &Shop) -> Vec<Api> {
    shop.pods.iter().chain([&shop.gateway]).map(|process| Api::at(&process.admin)).collect()
}

/// Looks at readiness and registry until it is stopped; how often. Ends the test where one of them is not as
/// it should be.
async fn look(gateway: Api, admins: Vec<Api>, stop: Arc<AtomicBool>) -> usize {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        for admin in &admins {
            let ready = admin.get("/readyz").await;
            assert_eq!(ready.status, 200, "look {looks}: {}: {}", admin.base(), ready.text);
        }
        assert_eq!(healthy_pods(&gateway).await, Some(admins.len() - 1), "look {looks}: the registry");
        looks += 1;
        tokio::time::sleep(LOOK).await;
    }
    looks
}

/// A counter of a process.
async fn metric(process: &DataPlane, name: &str) -> usize {
    let metrics = Api::at(&process.admin).get("/metrics").await.text;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {metrics}"))
}
