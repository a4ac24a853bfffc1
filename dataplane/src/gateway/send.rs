//! One attempt at one pod.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{StatusCode, Version, request::Parts};
use http_body_util::BodyExt;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{client::legacy::Error, rt::TokioIo};
use tracing::{debug, warn};

use super::{
    client::UpstreamClient,
    hops,
    registry::{InFlight, Upstream},
    upload::{Progress, Streamed},
};
use crate::http::guard::DRAINING;
use crate::server::memory::ABOUT;

/// What a pod sent back, before its body.
pub struct Answer {
    response: http::Response<Incoming>,
    flight: InFlight,
    upstream: Arc<Upstream>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The pod cannot have seen the request.
    NotSent,
    /// The pod may have acted on the request.
    Unknown,
    /// The client broke its body off.
    Client,
}

/// What is sent with an attempt.
pub enum Payload {
    /// A body that can be sent again.
    Whole(Bytes),
    /// A body that passes through.
    Streamed(Streamed),
}

/// Sends the request to one pod and waits for the head of its answer.
///
/// # Errors
/// There is none. What the client did is not booked against the pod.
pub async fn attempt(
    client: &UpstreamClient,
    parts: &Parts,
    payload: Payload,
    upstream: Arc<Upstream>,
) -> Result<Answer, (Failure, Arc<Upstream>)> {
    let (body, progress) = match payload {
        Payload::Whole(bytes) => (Body::from(bytes), None),
        Payload::Streamed(streamed) => {
            let progress = streamed.progress();
            (Body::new(streamed), Some(progress))
        }
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = client.uri(&upstream, path) else { return Err((Failure::NotSent, upstream)) };
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    *request.version_mut() = Version::HTTP_11;
    let (flight, started) = (upstream.start(), Instant::now());
    match client.request(request).await {
        Ok(mut response) => {
            upstream.answered(started.elapsed());
            if response.headers_mut().remove(DRAINING).is_some() {
                // It is about to end: others take what comes now.
                upstream.eject();
            }
            Ok(Answer { response, flight, upstream })
        }
        Err(error) => Err((judge(&error, progress.as_deref(), &upstream), upstream)),
    }
}

/// Whose failure it was. A pod that ends a connection while a body is still on its way may have refused the
/// request: that is no failure of the pod.
fn judge(error: &Error, progress: Option<&Progress>, upstream: &Upstream) -> Failure {
    if progress.is_some_and(Progress::is_broken) {
        return Failure::Client;
    }
    if error.is_connect() || progress.is_none_or(Progress::has_ended) {
        upstream.eject();
        warn!(upstream = %upstream.addr, error = %chain(error), "the pod failed");
    }
    if error.is_connect() { Failure::NotSent } else { Failure::Unknown }
}

impl Answer {
    /// The answer for the client. `upgrade` is the client's side of a connection that becomes a WebSocket.
    pub fn respond(mut self, upgrade: Option<OnUpgrade>) -> Response {
        if self.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.pass_on();
        }
        let pod_side = hyper::upgrade::on(&mut self.response);
        let Self { response, flight, upstream } = self;
        if let Some(client_side) = upgrade {
            tokio::spawn(tunnel(client_side, pod_side, flight, upstream));
        }
        let (mut head, _) = response.into_parts();
        hops::strip(&mut head.headers);
        hops::offer_websocket(&mut head.headers);
        Response::from_parts(head, Body::empty())
    }

    fn pass_on(self) -> Response {
        let Self { response, flight, .. } = self;
        let (mut head, body) = response.into_parts();
        hops::strip(&mut head.headers);
        head.headers.remove(ABOUT);
        if head.status == StatusCode::UPGRADE_REQUIRED {
            // which protocol is needed is said hop by hop, too
            hops::offer_websocket(&mut head.headers);
        }
        let body = body.map_frame(move |frame| {
            // The request counts as under way until its whole answer has passed.
            let _ = &flight;
            frame
        });
        Response::from_parts(head, Body::new(body))
    }

    /// The head of the answer.
    pub fn head(&self) -> &http::Response<Incoming> {
        &self.response
    }
}

/// Joins the client's connection and one to the pod.
async fn tunnel(client_side: OnUpgrade, pod_side: OnUpgrade, _flight: InFlight, upstream: Arc<Upstream>) {
    let (Ok(client_side), Ok(pod_side)) = tokio::join!(client_side, pod_side) else { return };
    let ended =
        tokio::io::copy_bidirectional(&mut TokioIo::new(client_side), &mut TokioIo::new(pod_side)).await;
    debug!(upstream = %upstream.addr, error = ?ended.err(), "a tunnel ended");
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
