//! The feed of changes: from the outboxes through the bus to caches and live clients.

pub mod consumer;
pub mod intake;
pub mod kafka;
pub mod local;
pub mod relay;

mod cursor;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::{broadcast, watch};

use self::consumer::{Consumer, LiveConsumer};
use crate::domain::event::Envelope;

/// Carries events to every replica, in order for each key, at least once.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes events, in order for each key. They are durable when this returns.
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError>;

    /// Every event from now on, each with its cursor. A receiver that lags is told so by the channel.
    fn live(&self) -> broadcast::Receiver<Arc<Envelope>>;

    /// Counts the gaps in `live`: it grows when events may have been lost (a topic cut short or made anew, a feed joined late), so that whoever keeps
    /// state by the feed drops it. Watch it before the state is filled.
    fn gaps(&self) -> watch::Receiver<u64>;

    /// The events after a cursor, up to now and on without a gap; `Expired` where they are no longer kept.
    async fn replay(&self, since: &str) -> Result<BoxStream<'static, Result<Arc<Envelope>, BusError>>, BusError>;

    /// The cursor of the newest event that this process knows: a replay from here gives only what comes later. `Unavailable` until the feed is joined.
    async fn head(&self) -> Result<String, BusError>;

    /// A member of a group that shares out the events of an entity. A bus within one process needs no sharing: it gives what comes from now on.
    async fn consume(&self, _group: &str, entity: &str) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(LiveConsumer::new(self.live(), entity)))
    }

    /// Whether the bus answers.
    async fn ping(&self) -> Result<(), BusError>;
}

/// Why the bus did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached; the same call may succeed later.
    #[error("the event bus is unavailable: {0}")]
    Unavailable(String),
    /// The cursor is not one of this feed.
    #[error("the cursor is not one of this feed")]
    BadCursor,
    /// The events after the cursor are no longer kept.
    #[error("the events after the cursor are no longer kept: start over")]
    Expired,
}
