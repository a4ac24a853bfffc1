//! Dead letters of ingestion: events that can never be applied, and how they are applied after all.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value as Tree, json};

use super::{Ingestor, Rejects};
use crate::service::{
    dead_letters::{DeadLetters, Letter, Source},
    error::ServiceError,
    failure::{Class, Failure},
};
use events::intake::Unreadable;
use model::{price_event::PriceEvent, record::Record, value::Value};

/// The stage of these letters.
pub const STAGE: &str = "ingest";

/// Events that can never be applied are dead letters: the newest of each product.
pub struct Letters(Arc<DeadLetters>);

impl Letters {
    /// Keeps them here.
    pub fn new(letters: Arc<DeadLetters>) -> Self {
        Self(letters)
    }
}

#[async_trait]
impl Rejects for Letters {
    async fn put(&self, event: &PriceEvent, why: String) -> Result<(), ServiceError> {
        let letter = Letter {
            stage: STAGE.to_owned(),
            subject: event.product_id.clone(),
            failure: Failure::new(Class::NotRetryable, why),
            attempts: 1,
            trace: event.id.to_string(),
            payload: serde_json::to_value(event)
                .map_err(|error| ServiceError::Internal(error.to_string()))?,
        };
        // events come in no order: a late one must not take the place of a newer one
        let newer = |held: &Record| {
            event_of(&self.0, held).is_none_or(|held| event.id == held.id || event.is_newer_than(&held))
        };
        self.0.put_where(letter, newer).await
    }

    async fn put_unreadable(&self, record: &Unreadable) -> Result<(), ServiceError> {
        let Unreadable { place, text, error } = record;
        let letter = Letter {
            stage: STAGE.to_owned(),
            subject: place.clone(),
            failure: Failure::new(Class::Validation, format!("it is no event: {error}")),
            attempts: 1,
            trace: String::new(),
            payload: json!({ "text": text }),
        };
        self.0.put(letter).await.map(drop)
    }
}

/// The event of a letter; none where it never was one.
fn event_of(letters: &DeadLetters, letter: &Record) -> Option<PriceEvent> {
    match letters.records().schema().get(&letter.values, "payload") {
        Value::Json(payload) => {
            let payload: Tree = serde_json::from_str(payload.as_str()).ok()?;
            match payload["text"].as_str() {
                Some(text) => serde_json::from_str(text).ok(),
                None => serde_json::from_value(payload).ok(),
            }
        }
        _ => None,
    }
}

/// Applies the events of dead letters again.
pub struct Replays {
    letters: Arc<DeadLetters>,
    ingestor: Arc<Ingestor>,
}

impl Replays {
    /// Applies those that are kept here.
    pub fn new(letters: Arc<DeadLetters>, ingestor: Arc<Ingestor>) -> Self {
        Self { letters, ingestor }
    }
}

#[async_trait]
impl Source for Replays {
    async fn replay(&self, letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        let unreadable = || ServiceError::Conflict("what it holds is no event of price and stock".to_owned());
        let event = event_of(&self.letters, letter).ok_or_else(unreadable)?;
        self.ingestor.replay(&event).await
    }

    async fn dropped(&self, _letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        Ok(())
    }
}
