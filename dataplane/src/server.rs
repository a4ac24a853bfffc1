//! Takes connections for a service, of HTTP/1.1 and HTTP/2: bounded in number and in silence, a graceful end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use closing::Closing;
use futures::future::{Either, ready};
use heads::{Heads, Patience, Turns};
use http::header;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use lingering::Lingering;
use places::Places;
use stalled::{STALL_MAX, Stalled};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

use crate::{gateway::memory::ConnectionMemory, security::tls::HTTP2};

pub mod apart;
mod closing;
mod heads;
mod http2;
mod lingering;
pub mod places;
mod preface;
mod requests;
mod sending;
mod stalled;

/// A client's connection, in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    /// The client's address.
    pub peer: SocketAddr,
    /// What the connection has written.
    pub memory: Arc<ConnectionMemory>,
    /// It came to the loopback address, which has names of its own only.
    pub own_names_only: bool,
}

impl ClientConnection {
    /// A request of this connection as routes see it.
    ///
    /// # Errors
    /// The answer to one that no route should see.
    fn taken(&self, mut request: Request) -> Result<Request, Box<Response>> {
        if let Some(refused) = requests::refused(&request, self.own_names_only) {
            return Err(Box::new(refused));
        }
        requests::settle(&mut request);
        request.extensions_mut().insert(self.clone());
        Ok(request)
    }
}

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may stand.
///
/// Its first byte: load balancers that open connections ahead of requests keep them for 60 s, and the server
/// must not be the first to end them, or a request is lost that was sent at the same moment. Silence between
/// requests: clients and load balancers keep connections for up to 90 s, and the same holds. A head: clients
/// send it at once, and one of 64 kB passes the slowest line in less.
const PATIENCE: Patience = Patience {
    first_max: Duration::from_secs(65),
    head_max: Duration::from_secs(10),
    silence_max: Duration::from_secs(100),
};

/// How long requests under way may take to end once the listener is closed.
const GRACE: Duration = Duration::from_secs(25);

/// Serves until `stopped` returns, then lets the requests under way end. With an acceptor, over TLS only.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: S,
    stopped: impl Future<Output = ()>,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
    let places = Places::of_listener();
    // further ones wait in the kernel's queue
    let all = Arc::new(Semaphore::new(places.most()));
    let own_names_only = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &all) => accepted,
            () = &mut stopped => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let Some(own) = places.enter(peer.ip()) else {
            debug!(%peer, "a connection is refused: its address has as many as are free");
            continue;
        };
        _ = stream.set_nodelay(true);
        let (service, tls, closing) = (service.clone(), tls.clone(), closing.clone());
        connections.spawn(async move {
            let client = ClientConnection { peer, memory: Arc::default(), own_names_only };
            match tls {
                None => converse(stream, client, service, closing, PATIENCE).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
                        let stream = Stalled::new(stream, STALL_MAX);
                        ended(peer, http2::converse(stream, client, service, &closing, PATIENCE).await);
                    }
                    Ok(Ok(stream)) => {
                        let (stream, turns) = watched(stream, PATIENCE);
                        ended(peer, converse_http1(stream, turns, client, service, &closing, PATIENCE).await);
                    }
                    Ok(Err(error)) => debug!(%peer, %error, "TLS could not be agreed on"),
                    Err(_) => debug!(%peer, "TLS was not agreed on in time"),
                },
            }
            drop((place, own));
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        warn!(grace_s = GRACE.as_secs(), "some requests did not end in time");
    }
}

/// Answers the requests of one connection without TLS, whichever HTTP its client speaks.
async fn converse<S, I>(
    stream: I,
    client: ClientConnection,
    answers: S,
    closing: CancellationToken,
    patience: Patience,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = client.peer;
    let (stream, turns) = watched(stream, patience);
    let looked = tokio::select! {
        looked = preface::look(stream) => looked,
        () = closing.cancelled() => return,
    };
    match looked {
        Ok((true, stream)) => {
            // what is a head is told by frames from here on
            let stream = stream.map(|heads| heads.into_inner().into_inner());
            ended(peer, http2::converse(stream, client, answers, &closing, patience).await);
        }
        Ok((false, stream)) => {
            ended(peer, converse_http1(stream, turns, client, answers, &closing, patience).await)
        }
        Err(error) => debug!(%peer, %error, "a connection broke"),
    }
}

/// A stream with all that bounds a connection of HTTP/1.1, and who is to be told of its turns.
fn watched<I>(stream: I, patience: Patience) -> (Heads<Closing<Stalled<I>>>, Turns) {
    let heads = Heads::new(Closing::new(Stalled::new(stream, STALL_MAX)), patience);
    let turns = heads.turns();
    (heads, turns)
}

fn ended(peer: SocketAddr, how: hyper::Result<()>) {
    if let Err(error) = how {
        debug!(%peer, %error, "a connection broke");
    }
}

/// Answers the requests of one connection of HTTP/1.1, whose stream is watched.
async fn converse_http1<S, I>(
    stream: I,
    turns: Turns,
    client: ClientConnection,
    answers: S,
    closing: &CancellationToken,
    patience: Patience,
) -> hyper::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let timer = turns.timer();
    let service = service_fn(move |request: http::Request<Incoming>| {
        turns.head_is_whole();
        // Most requests have no body, and then need no box for it.
        let expects = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| {
            if body.is_end_stream() { Body::empty() } else { Body::new(Lingering::new(body, expects)) }
        });
        match client.taken(request) {
            Ok(request) => Either::Right(answers.clone().oneshot(request)),
            Err(refused) => Either::Left(ready(Ok(*refused))),
        }
    });
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(patience.silence_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        // a listener of both families shows IPv4 within IPv6
        Ok((stream, peer)) => Some((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()), place)),
        Err(error) => {
            // Out of file descriptors, or the client is gone already: neither ends the server.
            warn!(%error, "a connection could not be taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
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
                head.contains("connection: close")
                    && head.contains(&format!("content-length: {}", body.len()))
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
                let request =
                    http::Request::get(format!("http://a{path}")).body(Empty::<Bytes>::new()).unwrap();
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
        let client = ClientConnection {
            peer: ([127, 0, 0, 1], 1).into(),
            memory: Arc::default(),
            own_names_only: true,
        };
        let answers = tower::service_fn(version);
        tokio::spawn(converse(theirs, client, answers, CancellationToken::new(), patience()));
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        for (host, status) in [("localhost", 200), ("elsewhere.example", 421)] {
            for method in ["GET", "HEAD"] {
                let request = http::Request::builder().method(method).uri(format!("http://{host}/"));
                let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
                assert_eq!(answer.status(), status, "{method} {host}");
                let length: usize =
                    answer.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
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
}
