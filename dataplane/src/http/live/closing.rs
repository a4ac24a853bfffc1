//! How a WebSocket ends (RFC 6455, section 7): the close code of each fault, and the closing handshake.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};

/// How long a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the connection stays after a close frame whose answer cannot be read. A connection that is closed
/// on unread bytes is reset, and the close frame is lost where the client has not read it yet.
const FAULT_PAUSE: Duration = Duration::from_millis(100);

/// The close frame that a fault in what a client sent is answered with; none where the connection just ended.
pub fn code_of(error: axum::Error) -> Option<(u16, &'static str)> {
    let error = error.into_inner();
    match error.downcast_ref::<WsError>() {
        Some(WsError::Capacity(_)) => Some((close_code::SIZE, "the message is too large")),
        Some(WsError::Utf8(_)) => Some((close_code::INVALID, "the message is no UTF-8")),
        // without a closing handshake
        Some(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => None,
        Some(WsError::Protocol(_)) => Some((close_code::PROTOCOL, "not as RFC 6455 says")),
        _ => None,
    }
}

/// Says why, and waits for the client's answer, so that what it still sends does not reset the connection
/// before it read the reason.
pub async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if !matches!(timeout(CLOSE_TIMEOUT, socket.send(close)).await, Ok(Ok(()))) {
        return;
    }
    drain(socket, deadline).await;
    // after a faulty message nothing more can be read
    if code == close_code::SIZE || code == close_code::PROTOCOL || code == close_code::INVALID {
        sleep(FAULT_PAUSE).await;
    }
}

/// Answers the client's close frame.
pub async fn agree(socket: &mut WebSocket) {
    drain(socket, Instant::now() + CLOSE_TIMEOUT).await;
}

/// Reads on until the closing handshake is done: reading is also what writes the answer to a close frame.
async fn drain(socket: &mut WebSocket, deadline: Instant) {
    while let Ok(Some(Ok(_))) = timeout_at(deadline, socket.recv()).await {}
}
