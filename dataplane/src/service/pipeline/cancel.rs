//! What others may do to an order that is under way: call it off, replay or drop its dead letter, change or
//! delete it.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::Pipeline;
use crate::service::{dead_letters::Source, error::ServiceError, records::Keeper};
use model::{
    key::Key,
    progress::{Ending, Progress, Stage},
    record::Record,
    value::Row,
};

/// How long a delete waits for an order to end.
const END_DEADLINE: Duration = Duration::from_secs(4);
/// How often it looks.
const END_POLL: Duration = Duration::from_millis(20);
/// What may change of an order while it is being fulfilled.
const FREE_FIELDS: [&str; 2] = ["shipping_address", "metadata"];

impl Pipeline {
    /// Calls an order off: everything that was taken is given back. Once more has no further effect.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where it is fulfilled already or failed, or what the store says.
    pub async fn cancel(&self, order: &Key, reason: &str, actor: &str) -> Result<Record, ServiceError> {
        self.end_order(order, Ending::Cancelled, reason, None, actor).await
    }

    /// Ends an order that is under way, and frees it of its dead letter; with `only` a letter, only where
    /// that stands for the order.
    pub(super) async fn end_order(
        &self,
        order: &Key,
        ending: Ending,
        reason: &str,
        only: Option<&Key>,
        actor: &str,
    ) -> Result<Record, ServiceError> {
        let orders = &self.parts.orders;
        let schema = orders.schema();
        let letter = parking_lot::Mutex::new(None);
        let ended = orders.adjust(order, actor, |current| {
            let mut progress = Progress::of(schema, &current.values);
            let other = only.is_some_and(|only| progress.parked.as_deref() != Some(only.as_str()));
            // one that has ended so, and has a letter, still has to give something back
            if other || (progress.ending == Some(ending) && only.is_none()) {
                return Ok(None);
            }
            if progress.ending.is_some() || progress.sold || progress.is_settled() {
                let status = schema.get(&current.values, "status").as_text().unwrap_or_default();
                return Err(ServiceError::Conflict(format!(
                    "an order that is {status} cannot be called off any more"
                )));
            }
            *letter.lock() = progress.parked.clone();
            progress.end(ending, reason);
            Ok(Some(progress.write(schema, &current.values, Some(self.due_later()), None)))
        });
        let ended = ended.await?;
        let letter = letter.into_inner();
        if let Some(letter) = letter.and_then(|letter| letter.parse().ok()) {
            self.parts.letters.remove(&letter, actor).await?;
        }
        self.hint(Stage::Inventory, order.clone());
        match ended {
            Some(record) => Ok(record),
            None => orders.find_one(order).await?.ok_or(ServiceError::NotFound),
        }
    }

    /// Lets an order that was set aside as this letter go on.
    pub(super) async fn resume(&self, order: &Key, letter: &Key, actor: &str) -> Result<(), ServiceError> {
        let orders = &self.parts.orders;
        let schema = orders.schema();
        let resumed = orders.adjust(order, actor, |current| {
            let mut progress = Progress::of(schema, &current.values);
            if progress.parked.as_deref() != Some(letter.as_str()) {
                return Ok(None);
            }
            progress.note("replayed", None);
            let stage = progress.stage;
            progress.advance(stage);
            Ok(Some(progress.write(schema, &current.values, Some(self.due_later()), None)))
        });
        match resumed.await {
            Ok(Some(record)) => {
                self.hint(Progress::of(schema, &record.values).stage, order.clone());
                Ok(())
            }
            // it went on before, or is gone
            Ok(None) | Err(ServiceError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn subject(&self, letter: &Record) -> Result<Key, ServiceError> {
        self.parts.letters.text(letter, "subject").parse().map_err(ServiceError::Internal)
    }
}

#[async_trait]
impl Source for Pipeline {
    async fn replay(&self, letter: &Record, actor: &str) -> Result<(), ServiceError> {
        self.resume(&self.subject(letter)?, &letter.key, actor).await
    }

    async fn taken(&self, letter: &Record, actor: &str) -> Result<(), ServiceError> {
        match self.parts.letters.find(&letter.key).await? {
            Some(_) => Ok(()),
            None => self.resume(&self.subject(letter)?, &letter.key, actor).await,
        }
    }

    /// The order that it stands for is ended as failed; where it has ended already, only its message is given
    /// up. What is to be given back must be.
    async fn dropped(&self, letter: &Record, actor: &str) -> Result<(), ServiceError> {
        let order = self.subject(letter)?;
        // a letter that does not stand for its order any more says nothing of it
        match self
            .end_order(&order, Ending::Failed, "its dead letter was dropped", Some(&letter.key), actor)
            .await
        {
            Ok(_) | Err(ServiceError::NotFound) => Ok(()),
            Err(ServiceError::Conflict(why)) => match self.parts.letters.text(letter, "stage") {
                "notifications" => Ok(()),
                // without the letter nobody would know
                _ => Err(ServiceError::Conflict(format!(
                    "{why}: what it took is yet to be given back. Replay the letter; by itself that is tried every ten minutes"
                ))),
            },
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Keeper for Pipeline {
    async fn check(&self, current: &Record, next: &Row) -> Result<(), ServiceError> {
        let schema = self.parts.orders.schema();
        let progress = Progress::of(schema, &current.values);
        if progress.stage == Stage::Orders && progress.ending.is_none() {
            return Ok(());
        }
        let fields = schema.fields.iter().zip(current.values.0.iter().zip(&next.0));
        let frozen = |name: &str| !FREE_FIELDS.contains(&name);
        let changed = fields.filter(|(field, (before, after))| before != after && frozen(&field.name));
        match changed.map(|(field, _)| field.name.as_str()).next() {
            None => Ok(()),
            Some(name) => Err(ServiceError::Conflict(format!(
                "{name} cannot change any more: the order is being fulfilled"
            ))),
        }
    }

    fn is_under_way(&self, current: &Record) -> bool {
        !Progress::of(self.parts.orders.schema(), &current.values).is_settled()
    }

    async fn before_delete(&self, order: &Key, actor: &str) -> Result<bool, ServiceError> {
        let begun = Instant::now();
        loop {
            let Some(record) = self.parts.orders.find_one(order).await? else { return Ok(true) };
            let progress = Progress::of(self.parts.orders.schema(), &record.values);
            if progress.is_settled() {
                return Ok(true);
            }
            match self.cancel(order, "it was deleted", actor).await {
                Ok(_) | Err(ServiceError::Conflict(_)) => (),
                Err(error) => return Err(error),
            }
            if begun.elapsed() > END_DEADLINE {
                let why = "what the order took is still being given back: delete it later";
                return Err(ServiceError::Conflict(why.to_owned()));
            }
            tokio::time::sleep(END_POLL).await;
        }
    }
}
