//! Events of price and stock for tests.

use uuid::Uuid;

use model::{counted::Place, price_event::PriceEvent};

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
