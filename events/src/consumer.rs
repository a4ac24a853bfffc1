//! Consumers: events of one entity, shared out over the processes of a group, each seen to before its place
//! is given up.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::broadcast::{self, error::RecvError};

use super::BusError;
use model::event::Envelope;

/// Takes events, at least once each. Those of one key come in order and to one process of the group at a
/// time, but for moments in which the group is shared out anew.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; waits until there is one. An error is passing.
    async fn next(&mut self) -> Result<Delivery, BusError>;
}

/// What a consumer got.
pub struct Delivery {
    /// The event, or what came in its place.
    pub content: Content,
    /// To be told when the event is seen to: only then does the group go on after it.
    pub ticket: Ticket,
}

/// The place of a delivery in the feed. Dropped without a word (at the end of the process, say), the event
/// comes again.
#[derive(Default)]
pub struct Ticket(Option<Box<dyn FnOnce() + Send>>);

impl Ticket {
    /// A place that is given up by this.
    pub fn new(give_up: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_up)))
    }

    /// The event is seen to, or somebody else has it to see to.
    pub fn seen_to(self) {
        if let Some(give_up) = self.0 {
            give_up();
        }
    }
}

/// The content of a delivery.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event.
    Event(Arc<Envelope>),
    /// Something that is no event.
    Poison {
        /// Where it stands, which names it.
        place: String,
        /// What it holds, as far as it is text.
        text: String,
        /// Why it is no event.
        error: String,
    },
}

/// The only process of its group: what comes while it runs. What came before, and what came too fast, is
/// found by who keeps the state.
pub struct LiveConsumer {
    live: broadcast::Receiver<Arc<Envelope>>,
    entity: String,
}

impl LiveConsumer {
    /// The events of an entity from now on.
    pub fn new(live: broadcast::Receiver<Arc<Envelope>>, entity: &str) -> Self {
        Self { live, entity: entity.to_owned() }
    }
}

#[async_trait]
impl Consumer for LiveConsumer {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            match self.live.recv().await {
                Ok(event) if event.entity == self.entity => {
                    return Ok(Delivery { content: Content::Event(event), ticket: Ticket::default() });
                }
                Ok(_) => (),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "events came faster than they were taken")
                }
                Err(RecvError::Closed) => return Err(BusError::Unavailable("the bus is closed".to_owned())),
            }
        }
    }
}
