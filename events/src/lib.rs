//! The feed of changes: from the outboxes through the bus to caches and live clients.

pub mod consumer;
pub mod intake;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod local;
pub mod relay;
pub mod stored;

mod cursor;
#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
extern crate self as events;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, watch};

use self::{
    consumer::{Consumer, LiveConsumer},
    cursor::Cursor,
};
use model::{durability::Setting, event::Envelope};

/// Carries events to every replica, in order for each key, at least once.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes events, in order for each key. They are durable when this returns.
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError>;

    /// Every event from now on, each with its cursor. A receiver that lags is told so by the channel.
    fn live(&self) -> broadcast::Receiver<Arc<Envelope>>;

    /// Counts the gaps in `live`: it grows when events may have been lost (a topic cut short or made anew, a
    /// feed joined late), so that whoever keeps state by the feed drops it. Watch it before the state is
    /// filled.
    fn gaps(&self) -> watch::Receiver<u64>;

    /// The events after a cursor, up to now and on without a gap; `Expired` where they are no longer kept.
    async fn replay(
        &self,
        since: &str,
    ) -> Result<BoxStream<'static, Result<Arc<Envelope>, BusError>>, BusError>;

    /// The cursor of the newest event that this process knows: a replay from here gives only what comes
    /// later. `Unavailable` until the feed is joined.
    async fn head(&self) -> Result<String, BusError>;

    /// A member of a group that shares out the events of an entity. A bus within one process needs no
    /// sharing: it gives what comes from now on.
    async fn consume(&self, _group: &str, entity: &str) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(LiveConsumer::new(self.live(), entity)))
    }

    /// The cursor before the oldest event that is kept: a replay from here gives all there are. `Unavailable`
    /// until the feed is joined.
    async fn oldest(&self) -> Result<String, BusError>;

    /// The settings by which it keeps what it acknowledges, as they are now.
    async fn settings(&self) -> Result<Vec<Setting>, BusError> {
        Ok(Vec::new())
    }

    /// Whether the bus answers.
    async fn ping(&self) -> Result<(), BusError>;

    /// Who else owns what the bus would carry events by; then it carries none.
    fn owned_by(&self) -> Option<String> {
        None
    }
}

/// Whether a cursor is as far as another of the same feed.
///
/// # Errors
/// One of them is no cursor, or they are of different feeds.
pub fn has_reached(at: &str, other: &str) -> Result<bool, BusError> {
    match (Cursor::decode(at)?, Cursor::decode(other)?) {
        (
            Cursor::Local { feed, number, mark: _ },
            Cursor::Local { feed: other_feed, number: other, mark: _ },
        ) if feed == other_feed => Ok(number >= other),
        (Cursor::Topic(one), Cursor::Topic(other))
            if one.at.len() >= other.at.len() && one.may_be_of(other.topic) =>
        {
            Ok(one.at.iter().zip(&other.at).all(|(at, other)| at >= other))
        }
        _ => Err(BusError::BadCursor),
    }
}

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached; the same call may succeed later.
    #[error("the event bus is unavailable: {0}")]
    Unavailable(String),
    /// There is no room left to keep more events: nothing was published.
    #[error("the log of the event bus has no room left: {0}")]
    Full(String),
    /// The cursor is not one of this feed.
    #[error("the cursor is not one of this feed")]
    BadCursor,
    /// The events after the cursor are no longer kept.
    #[error("the events after the cursor are no longer kept: start over")]
    Expired,
}
