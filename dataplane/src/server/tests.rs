//! Connections of many kinds: slow, half open, too many.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use http::{HeaderValue, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http2::handshake};
use hyper_util::rt::TokioExecutor;

use super::*;

/// The longest that clients in use keep a connection that they do not use: Go's `http.Transport` and
/// reqwest.
const KEPT_BY_CLIENTS: Duration = Duration::from_secs(90);
/// How long AWS's Classic Load Balancer keeps a connection that it opened ahead of requests.
const OPENED_AHEAD: Duration = Duration::from_secs(60);

const MOMENT: Duration = Duration::from_millis(200);

/// What is waited for is over after a moment, and all else after hours.
fn patience() -> Patience {
    let hours = MOMENT * 100_000;
    Patience { first_max: hours, head_max: hours, silence_max: hours }
}

fn client() -> ClientConnection {
    ClientConnection { peer: ([127, 0, 0, 1], 1).into(), memory: Arc::default(), own_names_only: false }
}

/// A connection to a server that answers its requests with their bodies, after a moment where the path
/// says so.
fn connect(patience: Patience) -> DuplexStream {
    let (ours, theirs) = duplex(4096);
    let answers = tower::service_fn(async |request: Request| {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(MOMENT * 2).await;
        }
        let body =
            request.into_body().collect().await.map_or_else(|_| "broken".into(), |body| body.to_bytes());
        Ok(Response::new(Body::from([&b"answered "[..], &body].concat())))
    });
    tokio::spawn(converse(theirs, client(), answers, CancellationToken::new(), patience));
    ours
}

async fn read_until(stream: &mut DuplexStream, end: &str) {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let length = stream.read_buf(&mut read).await.unwrap();
        assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&read));
    }
}

#[test]
fn connections_are_kept_for_longer_than_clients_and_balancers_keep_them() {
    // otherwise a request is lost that is sent at the moment of the end
    const { assert!(PATIENCE.silence_max.as_secs() > KEPT_BY_CLIENTS.as_secs()) };
    const { assert!(PATIENCE.first_max.as_secs() > OPENED_AHEAD.as_secs()) };
}

#[tokio::test]
async fn a_connection_ends_once_it_was_silent_for_its_time_and_no_sooner() {
    for spoken in [false, true] {
        let mut limits = patience();
        *if spoken { &mut limits.silence_max } else { &mut limits.first_max } = MOMENT;
        let mut stream = connect(limits);
        if spoken {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            read_until(&mut stream, "answered ").await;
        }
        let (begun, mut rest) = (Instant::now(), Vec::new());
        stream.read_to_end(&mut rest).await.unwrap();
        let silent = begun.elapsed();
        assert!(rest.is_empty(), "nobody asked for anything: {}", String::from_utf8_lossy(&rest));
        assert!(silent >= MOMENT.mul_f64(0.9), "{spoken}: ended after {silent:?}");
    }
}

#[tokio::test]
async fn half_a_head_is_answered_with_408_however_steadily_it_comes() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    for (before, answers, half) in [
        ("", &[][..], "G"),
        ("", &[], "GET / HTTP/1.1\r\nhost: a\r\n"),
        (get, &["answered "], "G"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab", &["answered ab"], "\r\n"),
        (&get.repeat(2), &["answered ", "answered "], "GET / HTTP/1.1\r\n"),
    ] {
        let mut stream = connect(Patience { head_max: MOMENT, ..patience() });
        stream.write_all(before.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while String::from_utf8_lossy(&read).matches("answered ").count() < answers.len()
            || !answers.last().is_none_or(|last| read.ends_with(last.as_bytes()))
        {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
        }
        let begun = Instant::now();
        stream.write_all(half.as_bytes()).await.unwrap();
        let (mut theirs, mut ours) = tokio::io::split(stream);
        // goes on and on, in the middle of a line
        let steadily = async {
            while ours.write_all(b"x").await.is_ok() {
                tokio::time::sleep(MOMENT / 8).await;
            }
        };
        let mut answer = String::new();
        let ended = tokio::select! {
            read = theirs.read_to_string(&mut answer) => { read.unwrap(); begun.elapsed() }
            () = steadily => panic!("nothing is taken any more, and nothing was answered: {half:?}"),
        };
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{half:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("connection: close") && head.contains(&format!("content-length: {}", body.len()))
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], 408);
        assert!(ended >= MOMENT.mul_f64(0.9), "{half:?}: ended after {ended:?}");
    }
}

#[tokio::test]
async fn half_a_preface_is_half_a_head() {
    let mut stream = connect(Patience { head_max: MOMENT, ..patience() });
    stream.write_all(b"PRI * HTTP/2").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn bodies_and_answers_may_take_longer_than_a_head() {
    let mut stream = connect(Patience { head_max: MOMENT, ..patience() });
    // a body that comes slowly, and behind it a request that is sent ahead of its turn
    stream.write_all(b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\na").await.unwrap();
    tokio::time::sleep(MOMENT * 2).await;
    stream.write_all(b"bcdGET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "answered abcd").await;
    read_until(&mut stream, "answered ").await;
    tokio::time::sleep(MOMENT * 2).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "answered ").await;
}

#[tokio::test]
async fn what_is_no_longer_http_may_be_silent_and_slow() {
    let (mut ours, theirs) = duplex(4096);
    let answers = tower::service_fn(async |mut request: Request| {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let (mut read, mut written) = tokio::io::split(&mut stream);
            tokio::io::copy(&mut read, &mut written).await
        });
        let mut response = Response::default();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("echo"));
        Ok(response)
    });
    let limits = Patience { head_max: MOMENT, silence_max: MOMENT, first_max: MOMENT };
    tokio::spawn(converse(theirs, client(), answers, CancellationToken::new(), limits));
    ours.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut ours, "\r\n\r\n").await;
    for word in ["one", "two"] {
        tokio::time::sleep(MOMENT * 2).await;
        ours.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut ours, word).await;
    }
}

#[tokio::test]
async fn a_connection_of_http2_without_a_request_ends_before_one_that_had_some() {
    for asks in [false, true] {
        let (ours, theirs) = duplex(1 << 16);
        let limits = Patience { first_max: MOMENT, silence_max: MOMENT * 4, ..patience() };
        let serving = tokio::spawn(converse(
            theirs,
            client(),
            tower::service_fn(version),
            CancellationToken::new(),
            limits,
        ));
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        let begun = Instant::now();
        if asks {
            let request = http::Request::get("http://a/first").body(Empty::<Bytes>::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        }
        tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap();
        let ended = begun.elapsed();
        assert_eq!(ended >= MOMENT * 4, asks, "ended after {ended:?}");
        assert!(ended >= MOMENT.mul_f64(0.9), "ended after {ended:?}");
    }
}

/// Says which version it was asked in, and ends the connection where the path says so.
async fn version(request: Request) -> Result<Response, Infallible> {
    let ends = request.uri().path() == "/last";
    let mut response = Response::new(Body::from(format!("{:?}", request.version())));
    assert!(request.extensions().get::<ClientConnection>().is_some());
    if ends {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_until_an_answer_ends_the_connection_or_nobody_speaks() {
    let silence = Duration::from_millis(300);
    for (path, waits) in [("/last", false), ("/", true)] {
        let (ours, theirs) = duplex(1 << 16);
        let answers = tower::service_fn(version);
        let limits = Patience { silence_max: silence, ..patience() };
        let serving = tokio::spawn(converse(theirs, client(), answers, CancellationToken::new(), limits));
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        let connection = tokio::spawn(connection);
        let begun = Instant::now();
        for path in ["/first", path] {
            let request = http::Request::get(format!("http://a{path}")).body(Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.version(), Version::HTTP_2);
            assert!(!answer.headers().contains_key(header::CONNECTION));
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0");
        }
        // the server says that it ends, and does
        tokio::time::timeout(Duration::from_secs(5), connection).await.unwrap().unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
        assert_eq!(begun.elapsed() >= silence, waits, "{path}");
    }
}

#[tokio::test]
async fn over_http2_a_head_is_a_head_also_of_what_no_route_sees() {
    let (ours, theirs) = duplex(1 << 16);
    let client =
        ClientConnection { peer: ([127, 0, 0, 1], 1).into(), memory: Arc::default(), own_names_only: true };
    let answers = tower::service_fn(version);
    tokio::spawn(converse(theirs, client, answers, CancellationToken::new(), patience()));
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [("localhost", 200), ("elsewhere.example", 421)] {
        for method in ["GET", "HEAD"] {
            let request = http::Request::builder().method(method).uri(format!("http://{host}/"));
            let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {host}");
            let length: usize = answer.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), if method == "GET" { length } else { 0 });
            assert!(length > 0);
        }
    }
}

#[tokio::test]
async fn a_connection_of_http2_ends_gracefully_with_the_server() {
    let (ours, theirs) = duplex(1 << 16);
    let (closing, (release, held)) = (CancellationToken::new(), tokio::sync::watch::channel(()));
    let answers = tower::service_fn(move |request| {
        let mut release = held.clone();
        async move {
            _ = release.changed().await;
            version(request).await
        }
    });
    let serving = tokio::spawn(converse(theirs, client(), answers, closing.clone(), PATIENCE));
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let mut answer = std::pin::pin!(sender.send_request(request));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut answer).await;
    assert!(early.is_err(), "the answer is held back");
    closing.cancel();
    release.send_replace(());
    assert_eq!(answer.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0");
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}
