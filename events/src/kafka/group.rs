//! A consumer in a group: partitions are shared out over its members, and a place is given up only when all
//! before it are seen to.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance},
    error::KafkaError,
    message::BorrowedMessage,
};
use tokio::sync::watch;

use super::{BusError, config, config::KafkaOptions, member::Member, unavailable};
use crate::consumer::{Consumer, Content, Delivery, Ticket};
use model::event::Envelope;
use runtime::owner::{Claim, Standing};

/// The most characters of a record that is no event.
const POISON_MAX: usize = 100_000;

/// A member of a group.
pub struct GroupConsumer {
    consumer: Arc<Member<Context>>,
    /// How the brokers are reached, as it may change.
    options: watch::Receiver<Arc<KafkaOptions>>,
    group: String,
    entity: String,
    /// What the keys of the entity's records start with.
    prefix: String,
    /// Whether it left the group, because the topic was another's.
    left: bool,
}

/// Which records of each partition are not yet seen to.
#[derive(Clone, Default)]
struct Context(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    partitions: HashMap<i32, Partition>,
    assigned: u64,
}

struct Partition {
    /// Tells this time of holding the partition from others.
    assignment: u64,
    open: BTreeSet<i64>,
    /// After the newest record that was taken.
    next: i64,
}

/// A record that is being seen to.
struct Place {
    consumer: Arc<Member<Context>>,
    open: Context,
    topic: String,
    partition: i32,
    assignment: u64,
    offset: i64,
}

impl Open {
    /// Notes a record; says in which time of holding.
    fn take(&mut self, partition: i32, offset: i64) -> u64 {
        let Self { partitions, assigned } = self;
        let held = partitions.entry(partition).or_insert_with(|| {
            *assigned += 1;
            Partition { assignment: *assigned, open: BTreeSet::new(), next: offset }
        });
        held.open.insert(offset);
        held.next = held.next.max(offset + 1);
        held.assignment
    }

    /// A record is seen to. Says where the group may go on from; none where the partition is another's by
    /// now.
    fn done(&mut self, partition: i32, assignment: u64, offset: i64) -> Option<i64> {
        let held = self.partitions.get_mut(&partition).filter(|held| held.assignment == assignment)?;
        held.open.remove(&offset);
        Some(held.open.first().copied().unwrap_or(held.next))
    }
}

impl Place {
    /// The record is seen to.
    fn give_up(self) {
        let mut held = self.open.0.lock();
        let Some(next) = held.done(self.partition, self.assignment, self.offset) else { return };
        let mut places = TopicPartitionList::new();
        let added = places.add_partition_offset(&self.topic, self.partition, Offset::Offset(next));
        // under the lock, so that a later place is not overwritten by an earlier one; the library commits it
        // within a second
        if let Err(error) = added.and_then(|()| self.consumer.store_offsets(&places)) {
            tracing::debug!(%error, "a place in the feed was not kept: the event may come again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // also what comes: a record of before that was on its way when the partition went is not one of
            // this time
            Rebalance::Revoke(moved) | Rebalance::Assign(moved) => {
                let mut held = self.0.lock();
                moved.elements().iter().for_each(|one| _ = held.partitions.remove(&one.partition()));
            }
            Rebalance::Error(error) => tracing::debug!(%error, "the group could not be shared out"),
        }
    }
}

impl GroupConsumer {
    /// Joins a group.
    pub fn join(
        mut options: watch::Receiver<Arc<KafkaOptions>>,
        group: &str,
        entity: &str,
    ) -> Result<Self, BusError> {
        let consumer = member(&options.borrow_and_update(), group)?;
        let (group, prefix) = (group.to_owned(), format!("{entity}/"));
        Ok(Self { consumer, options, group, entity: entity.to_owned(), prefix, left: false })
    }

    /// Joins again by the options as they are now. What the former member has not seen to comes again: to it
    /// or to another.
    fn rejoin(&mut self) -> Result<(), BusError> {
        let next = member(&self.options.borrow_and_update(), &self.group)?;
        // what is under way keeps the former member alive, which must not keep its partitions meanwhile
        std::mem::replace(&mut self.consumer, next).unsubscribe();
        Ok(())
    }

    /// A member of a topic that became another's takes no more of it; it joins again where that is over.
    fn owned(&mut self) -> Result<(), BusError> {
        let Some(claim) = self.options.borrow().claim.clone() else { return Ok(()) };
        let allowed = claim.standing.borrow().allowed();
        match allowed {
            Err(why) => {
                self.consumer.unsubscribe();
                self.left = true;
                Err(unavailable(why))
            }
            Ok(()) if std::mem::take(&mut self.left) => self.rejoin(),
            Ok(()) => Ok(()),
        }
    }

    fn delivery(&self, message: &BorrowedMessage<'_>, place: Place) -> Option<Delivery> {
        // the key tells the entity without a look into the record; a record without one may be anything
        let other = message.key().is_some_and(|key| !key.starts_with(self.prefix.as_bytes()));
        if other {
            place.give_up();
            return None;
        }
        let payload = message.payload().unwrap_or_default();
        let content = match serde_json::from_slice::<Envelope>(payload) {
            Ok(event) if event.entity != self.entity => {
                place.give_up();
                return None;
            }
            Ok(event) => Content::Event(Arc::new(event)),
            Err(error) => Content::Poison {
                place: format!("{}/{}/{}", place.topic, place.partition, place.offset),
                text: String::from_utf8_lossy(payload).chars().take(POISON_MAX).collect(),
                error: error.to_string(),
            },
        };
        Some(Delivery { content, ticket: Ticket::new(move || place.give_up()) })
    }
}

#[async_trait]
impl Consumer for GroupConsumer {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            self.owned()?;
            let (consumer, claim) = (self.consumer.clone(), self.options.borrow().claim.clone());
            let message = tokio::select! {
                message = consumer.recv() => Some(message.map_err(unavailable)?),
                Ok(()) = self.options.changed() => None,
                () = lost(claim.as_ref()) => continue,
            };
            let Some(message) = message else {
                self.rejoin()?;
                continue;
            };
            if claim.as_ref().is_some_and(|claim| *claim.standing.borrow() != Standing::Own) {
                continue;
            }
            let open = Context::clone(consumer.client().context());
            let (partition, offset) = (message.partition(), message.offset());
            let assignment = open.0.lock().take(partition, offset);
            let topic = message.topic().to_owned();
            let place = Place { consumer: consumer.clone(), open, topic, partition, assignment, offset };
            if let Some(delivery) = self.delivery(&message, place) {
                return Ok(delivery);
            }
        }
    }
}

/// Ends when the topic is not the service's own any more.
async fn lost(claim: Option<&Claim>) {
    let Some(claim) = claim else { return std::future::pending().await };
    let mut standing = claim.standing.subscribe();
    if standing.wait_for(|standing| *standing != Standing::Own).await.is_err() {
        std::future::pending().await
    }
}

fn member(options: &KafkaOptions, group: &str) -> Result<Arc<Member<Context>>, BusError> {
    let consumer = Member::new(&settings(options, group), Context::default()).map_err(unavailable)?;
    consumer.subscribe(&[&options.topic()]).map_err(unavailable)?;
    Ok(Arc::new(consumer))
}

fn settings(options: &KafkaOptions, group: &str) -> ClientConfig {
    let mut config = config::client(options);
    config
        .set("group.id", format!("{}.{group}", options.topic()))
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "3000")
        .set("max.poll.interval.ms", "600000")
        .set("fetch.wait.max.ms", "100")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("allow.auto.create.topics", "false");
    config
}

#[cfg(test)]
mod tests;
