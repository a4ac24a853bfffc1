//! Takes connections for a service: bounded in number, no slow headers, a graceful end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

use crate::gateway::memory::ConnectionMemory;

/// A client's connection, in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    /// The client's address.
    pub peer: SocketAddr,
    /// What the connection has written.
    pub memory: Arc<ConnectionMemory>,
}

/// Connections that one listener takes at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long requests under way may take to end once the listener is closed.
const GRACE: Duration = Duration::from_secs(25);

/// Serves until `stopped` returns, then lets the requests under way end. With an acceptor, over TLS only.
pub async fn serve<S>(listener: TcpListener, tls: Option<TlsAcceptor>, service: S, stopped: impl Future<Output = ()>)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
{
    let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stopped => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        _ = stream.set_nodelay(true);
        let (service, tls, closing) = (service.clone(), tls.clone(), closing.clone());
        connections.spawn(async move {
            let client = ClientConnection { peer, memory: Arc::default() };
            match tls {
                None => converse(stream, client, service, closing).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, client, service, closing).await,
                    Ok(Err(error)) => debug!(%peer, %error, "TLS could not be agreed on"),
                    Err(_) => debug!(%peer, "TLS was not agreed on in time"),
                },
            }
            drop(place);
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        warn!(grace_s = GRACE.as_secs(), "some requests did not end in time");
    }
}

/// Answers the requests of one connection.
async fn converse<S, I>(stream: I, client: ClientConnection, answers: S, closing: CancellationToken)
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = client.peer;
    let service = service_fn(move |request: http::Request<Incoming>| {
        // Most requests have no body, and then need no box for it.
        let mut request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        request.extensions_mut().insert(client.clone());
        answers.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection broke");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            // Out of file descriptors, or the client is gone already: neither ends the server.
            warn!(%error, "a connection could not be taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}
