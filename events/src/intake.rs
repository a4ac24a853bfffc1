//! The log of events from outside: what was accepted is durable here before the answer, and waits for the
//! workers that apply it.
//!
//! Kafka where there is one: with its idempotent producer and acknowledgement by all replicas a log costs a
//! fraction of a commit of MySQL, it is there anyway, and its consumer groups share the work among replicas.
//! Without it a table of a store, shared out by claims.
//! Embedded: a file of SQLite, whose commits gather what waits.

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod local;
pub mod stored;
#[cfg(test)]
pub(crate) mod testing;

use std::time::Duration;

use async_trait::async_trait;

use model::{counted::Place, durability::Setting, price_event::PriceEvent};

/// How much larger a batch may become while a queue stands, and up to how many events.
const STANDING: usize = 16;
const STANDING_MAX: usize = 16_000;
/// The most characters that are kept of a record that is no event.
const TEXT_MAX: usize = 100_000;

/// Where accepted events wait.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Appends events. They are durable when this returns; after an error they may be there or not.
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError>;

    /// A reader. All readers, of all replicas, share the events among them; one that ends without `done`
    /// leaves its events to others.
    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError>;

    /// How many events wait to be applied, as last measured. Over all replicas.
    async fn waiting(&self) -> Result<u64, IntakeError>;

    /// The settings by which it keeps what it accepts, as they are now.
    async fn settings(&self) -> Result<Vec<Setting>, IntakeError> {
        Ok(Vec::new())
    }
}

/// Takes events out of the log, batch by batch.
#[async_trait]
pub trait IntakeReader: Send {
    /// The next events: waits for the first, and then until there are `full` or `flush` is over. Of what
    /// waits already it takes up to 16 times as many (`most`): only the newest event of a product is applied,
    /// so the longer the queue, the less work each event is. Nothing is lost when this is dropped.
    async fn take(&mut self, full: usize, flush: Duration) -> Result<Batch, IntakeError>;

    /// What was taken last has had its effect, and is not given again.
    async fn done(&mut self) -> Result<(), IntakeError>;
}

/// What was taken out of the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events, each with its place in the log, in no order.
    pub events: Vec<PriceEvent>,
    /// What is no event: a record of another program, or of another version of this one.
    pub unreadable: Vec<Unreadable>,
}

/// A record that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it stands, which names it.
    pub place: String,
    /// What it holds, as far as it is text.
    pub text: String,
    /// Why it is no event.
    pub error: String,
}

impl Batch {
    /// Adds a record as it stands in the log.
    fn add(&mut self, record: &[u8], place: Place) {
        match serde_json::from_slice::<PriceEvent>(record) {
            Ok(event) => self.events.push(PriceEvent { place: Some(place), ..event }),
            Err(error) => {
                let text = String::from_utf8_lossy(record).chars().take(TEXT_MAX).collect();
                let place = format!("{}/{}", place.log, place.seq);
                self.unreadable.push(Unreadable { place, text, error: error.to_string() });
            }
        }
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.events.len() + self.unreadable.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The most events that are taken at once where `full` make a batch.
fn most(full: usize) -> usize {
    full.saturating_mul(STANDING).min(STANDING_MAX).max(full)
}

/// Why the log did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntakeError {
    /// It cannot be reached.
    #[error("the log of events is unavailable: {0}")]
    Unavailable(String),
    /// It has no room for more: nothing was accepted.
    #[error("the log of events has no room left: {0}")]
    Full(String),
}
