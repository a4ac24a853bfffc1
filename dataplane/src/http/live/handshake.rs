//! A WebSocket's opening handshake (RFC 6455, section 4.2): what is wrong with one that does not open.

use axum::{
    extract::{FromRequestParts, WebSocketUpgrade},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

use crate::problem::Problem;

/// The bytes of a key.
const KEY_BYTES: usize = 16;

/// The largest message that a client may send, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
// clients hardly send anything, and there are thousands of them
const READ_BUFFER_BYTES: usize = 4 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Takes a handshake, for a WebSocket within the limits of the feed.
///
/// # Errors
/// The answer to what is none: 400 for a wrong one, 426 for a request that needs one or speaks another
/// version.
pub async fn take(parts: &mut Parts) -> Result<WebSocketUpgrade, Box<Response>> {
    let refused = match WebSocketUpgrade::from_request_parts(parts, &()).await {
        Ok(upgrade) if has_key(&parts.headers) => return Ok(limited(upgrade)),
        Ok(_) => {
            Problem::field("Sec-WebSocket-Key", "must be there once: 16 bytes as base64").respond(&parts.uri)
        }
        Err(_) if speaks_ours(&parts.headers) && !has_key(&parts.headers) => {
            Problem::field("Sec-WebSocket-Key", "must be there once: 16 bytes as base64").respond(&parts.uri)
        }
        Err(_) => upgrade_needed(parts),
    };
    Err(Box::new(refused))
}

fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
}

/// Over HTTP/1.1; a stream of HTTP/2 has no key.
fn has_key(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::UPGRADE) {
        return true;
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) => STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == KEY_BYTES),
        _ => false,
    }
}

/// Whether all but the key is a handshake of version 13.
fn speaks_ours(headers: &HeaderMap) -> bool {
    let says = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    says(header::UPGRADE, "websocket")
        && says(header::CONNECTION, "upgrade")
        && says(header::SEC_WEBSOCKET_VERSION, "13")
}

fn upgrade_needed(parts: &Parts) -> Response {
    let detail = "this path is a WebSocket of version 13: connect with one, or read /api/v1/events/stream";
    let problem = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade", "A WebSocket is needed here", detail);
    let mut response = problem.respond(&parts.uri);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}
