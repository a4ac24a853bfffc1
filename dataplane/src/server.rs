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

use crate::{security::tls::HTTP2, server::memory::ConnectionMemory};

pub mod apart;
mod closing;
mod heads;
mod http2;
mod lingering;
pub mod memory;
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
mod tests;
