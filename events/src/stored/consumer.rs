//! A consumer over a log: a member of a group that takes the events of one entity.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;

use super::member::{Member, Taken};
use crate::{
    BusError,
    consumer::{Consumer, Content, Delivery, Ticket},
};
use model::event::Envelope;

/// Entries that are taken at once.
const PAGE: usize = 256;
/// The most characters of an entry that is no event.
const POISON_MAX: usize = 100_000;

/// A member of a group; it leaves when it is dropped.
pub struct GroupConsumer {
    member: Arc<Member>,
    entity: String,
    ready: VecDeque<Taken>,
}

impl GroupConsumer {
    /// Takes the events of an entity.
    pub fn new(member: Arc<Member>, entity: &str) -> Self {
        Self { member, entity: entity.to_owned(), ready: VecDeque::new() }
    }

    fn delivery(&self, taken: Taken) -> Option<Delivery> {
        let content = match serde_json::from_str::<Envelope>(&taken.entry.text) {
            Ok(event) if event.entity != self.entity => {
                self.member.seen_to(&taken);
                return None;
            }
            Ok(event) => Content::Event(Arc::new(event)),
            Err(error) => Content::Poison {
                place: format!("log/{}", taken.number),
                text: taken.entry.text.chars().take(POISON_MAX).collect(),
                error: error.to_string(),
            },
        };
        let member = self.member.clone();
        Some(Delivery { content, ticket: Ticket::new(move || member.seen_to(&taken)) })
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.member.leave();
    }
}

#[async_trait]
impl Consumer for GroupConsumer {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            while let Some(taken) = self.ready.pop_front() {
                // of a part that went meanwhile, or whose claim is to be made sure of
                if !self.member.holds(&taken) {
                    self.member.give_back(vec![taken]);
                } else if let Some(delivery) = self.delivery(taken) {
                    return Ok(delivery);
                }
            }
            self.ready.extend(self.member.take(PAGE).await?);
            if self.ready.is_empty() {
                self.member.wait().await?;
            }
        }
    }
}
