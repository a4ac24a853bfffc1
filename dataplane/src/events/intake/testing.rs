//! Events of price and stock for tests.

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Intake, IntakeError, IntakeReader};
use crate::domain::{counted::Place, price_event::PriceEvent};

/// A log in memory that nobody reads.
#[derive(Default)]
pub struct MemoryIntake(Mutex<Vec<PriceEvent>>);

#[async_trait]
impl Intake for MemoryIntake {
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError> {
        self.0.lock().extend(events);
        Ok(())
    }

    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
        Err(IntakeError::Unavailable("nobody reads it".to_owned()))
    }

    async fn waiting(&self) -> Result<u64, IntakeError> {
        Ok(self.0.lock().len() as u64)
    }
}

/// An event, told from others by its stock.
pub fn event(stock: i64) -> PriceEvent {
    PriceEvent {
        id: Uuid::now_v7(),
        product_id: format!("p{}", stock % 7),
        price: stock.into(),
        stock,
        at: stock,
        accepted: stock,
        undated: false,
        place: None,
    }
}

/// The same events as they stand in a new embedded log.
pub fn placed(events: Vec<PriceEvent>) -> Vec<PriceEvent> {
    let place = |seq| Some(Place { log: "intake".to_owned(), seq });
    (1..).zip(events).map(|(seq, event)| PriceEvent { place: place(seq), ..event }).collect()
}

/// So many of them.
pub fn events(count: i64) -> Vec<PriceEvent> {
    (0..count).map(event).collect()
}
