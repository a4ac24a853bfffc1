//! Takes connections for a service, of HTTP/1.1 and HTTP/2: bounded in number and in silence, a graceful end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use closing::Closing;
use futures::future::{Either, ready};
use http::header;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// How long a connection may stand until the head of its next request is whole. Clients and load balancers keep connections for 60 or 90 s of silence: the
/// server must not be the first to end them, or a request is lost that was sent at the same moment. A head that comes slowly holds no more than a
/// connection without one, so both have the same time.
const SILENCE_MAX: Duration = Duration::from_secs(100);

/// How long requests under way may take to end once the listener is closed.
const GRACE: Duration = Duration::from_secs(25);

/// Serves until `stopped` returns, then lets the requests under way end. With an acceptor, over TLS only.
pub async fn serve<S>(listener: TcpListener, tls: Option<TlsAcceptor>, service: S, stopped: impl Future<Output = ()>)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
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
                None => converse(stream, client, service, closing, SILENCE_MAX).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
                        ended(peer, http2::converse(stream, client, service, &closing, SILENCE_MAX).await);
                    }
                    Ok(Ok(stream)) => ended(peer, converse_http1(stream, client, service, &closing, SILENCE_MAX).await),
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
    silence_max: Duration,
) where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = client.peer;
    let looked = tokio::select! {
        looked = tokio::time::timeout(silence_max, preface::look(stream)) => looked,
        () = closing.cancelled() => return,
    };
    match looked {
        Ok(Ok((true, stream))) => {
            ended(peer, http2::converse(stream, client, answers, &closing, silence_max).await);
        }
        Ok(Ok((false, stream))) => ended(peer, converse_http1(stream, client, answers, &closing, silence_max).await),
        Ok(Err(error)) => debug!(%peer, %error, "a connection broke"),
        Err(_) => debug!(%peer, "nothing was said"),
    }
}

fn ended(peer: SocketAddr, how: hyper::Result<()>) {
    if let Err(error) = how {
        debug!(%peer, %error, "a connection broke");
    }
}

/// Answers the requests of one connection of HTTP/1.1.
async fn converse_http1<S, I>(
    stream: I,
    client: ClientConnection,
    answers: S,
    closing: &CancellationToken,
    silence_max: Duration,
) -> hyper::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        // Most requests have no body, and then need no box for it.
        let expects = request.headers().contains_key(header::EXPECT);
        let request = request
            .map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(Lingering::new(body, expects)) });
        match client.taken(request) {
            Ok(request) => Either::Right(answers.clone().oneshot(request)),
            Err(refused) => Either::Left(ready(Ok(*refused))),
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(silence_max)
        .serve_connection(TokioIo::new(Closing::new(Stalled::new(stream, STALL_MAX))), service)
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use http::{HeaderValue, Version};
    use http_body_util::{BodyExt, Empty};
    use hyper::{body::Bytes, client::conn::http2::handshake};
    use hyper_util::rt::TokioExecutor;

    use super::*;

    /// The longest that clients in use keep a connection that they do not use: Go's `http.Transport` and reqwest.
    const KEPT_BY_CLIENTS: Duration = Duration::from_secs(90);

    #[tokio::test]
    async fn a_connection_ends_once_it_was_silent_for_its_time_and_no_sooner() {
        // otherwise a request is lost that a client sends over a connection that it keeps
        const { assert!(SILENCE_MAX.as_secs() > KEPT_BY_CLIENTS.as_secs()) };
        let silence = Duration::from_millis(200);
        for half_a_head in ["", "GET / HTTP/1.1\r\nhost: a\r\n"] {
            let (mut stream, theirs) = duplex(4096);
            let peer = ([127, 0, 0, 1], 1).into();
            let client = ClientConnection { peer, memory: Arc::default(), own_names_only: false };
            let answers = tower::service_fn(async |_: Request| Ok(Response::new(Body::from("answered"))));
            tokio::spawn(converse(theirs, client, answers, CancellationToken::new(), silence));
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut answer = [0; 4096];
            let length = stream.read(&mut answer).await.unwrap();
            let answered = Instant::now();
            assert!(answer[..length].ends_with(b"answered"));
            stream.write_all(half_a_head.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            // it ends with an answer of 408 or with none
            stream.read_to_end(&mut rest).await.unwrap();
            let silent = answered.elapsed();
            assert!(silent >= silence.mul_f64(0.9), "{half_a_head:?}: ended after {silent:?}");
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
            let client =
                ClientConnection { peer: ([127, 0, 0, 1], 1).into(), memory: Arc::default(), own_names_only: false };
            let answers = tower::service_fn(version);
            let serving = tokio::spawn(converse(theirs, client, answers, CancellationToken::new(), silence));
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
        tokio::spawn(converse(theirs, client, answers, CancellationToken::new(), SILENCE_MAX));
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
        let client =
            ClientConnection { peer: ([127, 0, 0, 1], 1).into(), memory: Arc::default(), own_names_only: false };
        let (closing, (release, held)) = (CancellationToken::new(), tokio::sync::watch::channel(()));
        let answers = tower::service_fn(move |request| {
            let mut release = held.clone();
            async move {
                _ = release.changed().await;
                version(request).await
            }
        });
        let serving = tokio::spawn(converse(theirs, client, answers, closing.clone(), SILENCE_MAX));
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
