//! The feed as an event stream (Server-Sent Events), for clients behind proxies that know no WebSocket.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Item},
    right::Ended,
};

/// The response to a client, which ends when it leaves or at `shutdown`.
pub fn respond(client: Client, ping_interval: Duration, shutdown: CancellationToken) -> Response {
    let chunks = stream::unfold(Some((client, shutdown)), move |state| async move {
        let (mut client, shutdown) = state?;
        let ended = client.right().clone().ended();
        let next = async {
            tokio::select! {
                biased;
                next = timeout(ping_interval, client.next()) => next,
                ended = ended => Ok(Item::Ended(ended)),
            }
        };
        let (chunk, more) = match shutdown.run_until_cancelled(next).await? {
            Ok(Item::Frame(frame)) => (frame.event_stream(), true),
            Ok(Item::Resync { cursor, hopeless }) => (resync(cursor.as_deref()), !hopeless),
            Ok(Item::Ended(ended)) => {
                client.count(&ended);
                (end_of_right(&ended), false)
            }
            Ok(Item::End) => return None,
            // a comment, so that a connection that is broken is noticed
            Err(_) => (Bytes::from_static(b": alive\n\n"), true),
        };
        Some((Ok::<_, Infallible>(chunk), more.then_some((client, shutdown))))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // proxies that collect responses before they pass them on
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The last event says what a WebSocket's close frame does.
fn end_of_right(ended: &Ended) -> Bytes {
    let end = serde_json::json!({ "type": "closed", "code": ended.code(), "reason": ended.reason() });
    format!("data: {end}\n\n").into()
}

/// It has no id: a client that comes back by itself asks for what it missed.
fn resync(cursor: Option<&str>) -> Bytes {
    format!("data: {}\n\n", serde_json::json!({ "type": "resync", "cursor": cursor })).into()
}
