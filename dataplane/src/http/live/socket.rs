//! A WebSocket of the feed: frames out, pings, and why it ends.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, close_code};
use futures::SinkExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    client::{Client, Item},
    closing,
    right::Ended,
};

/// Pings that may stay without an answer.
const PINGS_UNANSWERED_MAX: u32 = 2;
/// Frames that are sent at once when they are there.
const FRAMES_AT_ONCE: usize = 64;

const NO_MESSAGES: &str = r#"{"type":"error","detail":"the feed takes no messages"}"#;

/// Why a connection ends.
enum End {
    /// With a close frame from here.
    Close(u16, &'static str),
    /// The right to it has ended, which a close frame says.
    Right(Ended),
    /// With a close frame from the client, which is yet to be answered.
    Answer,
    /// It broke.
    Gone,
}

struct Session {
    socket: WebSocket,
    client: Client,
    /// The longest that a client may take to take a frame.
    write_timeout: Duration,
    pings_unanswered: u32,
    told: bool,
}

/// Serves a client until it leaves, is too slow, or `shutdown`.
pub async fn serve(socket: WebSocket, client: Client, ping_interval: Duration, shutdown: CancellationToken) {
    let mut session =
        Session { socket, client, write_timeout: 2 * ping_interval, pings_unanswered: 0, told: false };
    // also while a client takes nothing: its right ends all the same
    let ended = session.client.right().clone().ended();
    let end = tokio::select! {
        biased;
        end = session.run(ping_interval) => end,
        ended = ended => End::Right(ended),
        () = shutdown.cancelled() => End::Close(close_code::AWAY, "the service is going away: connect again"),
    };
    match end {
        End::Close(code, reason) => {
            debug!(client_id = session.client.label(), code, reason, "a live client is closed");
            closing::close(&mut session.socket, code, reason).await;
        }
        End::Right(ended) => {
            session.client.count(&ended);
            closing::close(&mut session.socket, ended.code(), &ended.reason()).await;
        }
        End::Answer => closing::agree(&mut session.socket).await,
        End::Gone => {}
    }
}

impl Session {
    async fn run(&mut self, ping_interval: Duration) -> End {
        let mut pings = interval_at(Instant::now() + ping_interval, ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                message = self.socket.recv() => self.take(message).await,
                item = self.client.next() => self.give(item).await,
                _ = pings.tick() => self.ping().await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn take(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match message {
            None => return Err(End::Gone),
            Some(Ok(Message::Close(_))) => return Err(End::Answer),
            Some(Err(error)) => return Err(end_of(error)),
            Some(Ok(Message::Binary(_))) => {
                return Err(End::Close(close_code::UNSUPPORTED, "the feed takes no binary messages"));
            }
            Some(Ok(Message::Text(_))) if !self.told => {
                self.told = true;
                self.send(Message::text(NO_MESSAGES)).await?;
            }
            Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_))) => {}
        }
        // any message shows that the client lives
        self.pings_unanswered = 0;
        Ok(())
    }

    async fn give(&mut self, item: Item) -> Result<(), End> {
        match item {
            Item::Frame(frame) => {
                let write = async {
                    let (mut next, mut frames) = (Some(frame), 0);
                    while let Some(frame) = next {
                        self.socket.feed(Message::Text(frame.text.clone())).await?;
                        frames += 1;
                        next = if frames < FRAMES_AT_ONCE { self.client.next_now() } else { None };
                    }
                    self.socket.flush().await
                };
                within(self.write_timeout, write).await
            }
            Item::Resync { cursor, hopeless } => {
                let resync = serde_json::json!({ "type": "resync", "cursor": cursor });
                self.send(Message::text(resync.to_string())).await?;
                if hopeless {
                    return Err(End::Close(close_code::AGAIN, "too slow for the feed: ask for fewer topics"));
                }
                Ok(())
            }
            Item::Ended(ended) => Err(End::Right(ended)),
            Item::End => Err(End::Close(close_code::AWAY, "the feed ended: connect again")),
        }
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.pings_unanswered == PINGS_UNANSWERED_MAX {
            return Err(End::Close(close_code::POLICY, "no answer to pings"));
        }
        self.pings_unanswered += 1;
        self.send(Message::Ping(Default::default())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        within(self.write_timeout, self.socket.send(message)).await
    }
}

async fn within(limit: Duration, write: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        // a client that takes nothing would not take a close frame either
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}

fn end_of(error: axum::Error) -> End {
    closing::code_of(error).map_or(End::Gone, |(code, reason)| End::Close(code, reason))
}
