//! Publishes with an idempotent producer that is thrown away at the first failure.
//!
//! So what one producer wrote of a partition is always a beginning of what it was given, and a repetition by
//! a new one cannot turn the order of two events round: it can only repeat events, which readers notice by
//! their ids.

use std::{borrow::Cow, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig},
};

use super::{BusError, config::Quiet, unavailable};
use model::event::{Envelope, schema_id};

/// A record that is larger goes without its data: brokers refuse more than a mebibyte unless told otherwise.
const RECORD_BYTES_MAX: usize = 950_000;

pub(super) type Shared = FutureProducer<Quiet>;

/// An event as it is sent.
pub struct Record {
    key: String,
    payload: String,
    /// The schema of the payload.
    schema: String,
}

/// The header of a record that names its schema.
const SCHEMA: &str = "schema";

/// Publishes to one topic.
pub struct Publisher {
    config: Mutex<ClientConfig>,
    topic: String,
    deadline: Duration,
    producer: Mutex<Option<Arc<Line>>>,
}

/// A producer until it is thrown away. Several relays publish by it.
struct Line {
    producer: Arc<Shared>,
    /// Whether it was thrown away. Held for reading while records are enqueued: none are after others of the
    /// same call were purged.
    closed: RwLock<bool>,
}

impl Publisher {
    /// A publisher that connects when it is first used.
    pub fn new(config: ClientConfig, topic: String, deadline: Duration) -> Self {
        Self { config: Mutex::new(config), topic, deadline, producer: Mutex::new(None) }
    }

    /// The next publish has a new producer, by another configuration. What is being published is finished by
    /// the former one.
    pub fn reconfigure(&self, config: ClientConfig) -> Option<Arc<Shared>> {
        let mut held = self.producer.lock();
        *self.config.lock() = config;
        held.take().map(|line| line.producer.clone())
    }

    /// Lets the producer find the brokers and the topic now, which takes up to a second, so that the first
    /// event need not wait for it. Blocks.
    pub fn warm(&self) {
        let Ok(line) = self.line() else { return };
        if let Err(error) = line.producer.client().fetch_metadata(Some(&self.topic), self.deadline) {
            tracing::debug!(%error, "the producer is not connected yet");
        }
    }

    /// Publishes all records or fails within the deadline; then any of them may have been published.
    pub async fn publish(&self, records: &[Record]) -> Result<(), BusError> {
        let line = self.line()?;
        let outcome = match tokio::time::timeout(self.deadline, self.send(&line, records)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(BusError::Unavailable(format!("not acknowledged within {:?}", self.deadline))),
        };
        if outcome.is_err() {
            self.discard(line).await;
        }
        outcome
    }

    fn line(&self) -> Result<Arc<Line>, BusError> {
        let mut held = self.producer.lock();
        if let Some(line) = held.as_ref() {
            return Ok(line.clone());
        }
        let producer = Arc::new(self.config.lock().create_with_context(Quiet).map_err(unavailable)?);
        let line = Arc::new(Line { producer, closed: RwLock::new(false) });
        *held = Some(line.clone());
        Ok(line)
    }

    fn enqueue(&self, line: &Line, records: &[Record]) -> Result<Vec<DeliveryFuture>, BusError> {
        let closed = line.closed.read();
        if *closed {
            return Err(BusError::Unavailable("the producer was given up after a failure".to_owned()));
        }
        let enqueued = records.iter().map(|Record { key, payload, schema }| {
            let headers = OwnedHeaders::new().insert(Header { key: SCHEMA, value: Some(schema) });
            let record = FutureRecord::to(&self.topic).key(key).payload(payload).headers(headers);
            line.producer.send_result(record).map_err(|(error, _)| unavailable(error))
        });
        enqueued.collect()
    }

    async fn send(&self, line: &Line, records: &[Record]) -> Result<(), BusError> {
        let deliveries = self.enqueue(line, records)?;
        // one after the other: they come in any order, but all must be there
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(unavailable(error)),
                Err(_) => return Err(unavailable(KafkaError::Canceled)),
            }
        }
        Ok(())
    }

    /// Makes sure that nothing more of a producer's queue is sent, of any relay.
    async fn discard(&self, line: Arc<Line>) {
        self.producer.lock().take_if(|held| Arc::ptr_eq(held, &line));
        // waits for the threads of the library
        let purged = tokio::task::spawn_blocking(move || {
            *line.closed.write() = true;
            line.producer.purge(PurgeConfig::default().queue().inflight());
            drop(line);
        });
        _ = purged.await;
    }
}

impl Record {
    /// The record of an event: those of one key go to one partition.
    ///
    /// # Errors
    /// The event is no JSON.
    pub fn of(event: &Envelope) -> Result<Self, BusError> {
        let key = format!("{}/{}", event.entity, event.key);
        Ok(Self { key, payload: payload(event)?, schema: schema_id(&event.kind) })
    }
}

/// The event as a record's payload. One that is too large tells only that the record changed.
fn payload(event: &Envelope) -> Result<String, BusError> {
    let mut event = Cow::Borrowed(event);
    if event.cursor.is_some() {
        event.to_mut().cursor = None;
    }
    let text = serde_json::to_string(&*event).map_err(unavailable)?;
    if text.len() <= RECORD_BYTES_MAX {
        return Ok(text);
    }
    event.to_mut().data = None;
    serde_json::to_string(&*event).map_err(unavailable)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::{
        Message,
        consumer::{BaseConsumer, Consumer},
        mocking::MockCluster,
    };
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        kafka::{
            config::{self, KafkaOptions},
            topic,
        },
        testing::event,
    };

    /// A relay's publish failed at its deadline, so its claim may end and another relay publishes: nothing of
    /// it may go out after that, though another relay of this process still uses the producer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_sent_after_a_publish_failed() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("changes", 1, 1).unwrap();
        let options = KafkaOptions::new(cluster.bootstrap_servers(), "");
        let publisher =
            Publisher::new(config::producer(&options), "changes".to_owned(), Duration::from_millis(500));
        let record = |version| Record::of(&event("a", version)).unwrap();
        until_published(&publisher, record(1)).await;
        let others = publisher.line().unwrap();
        cluster.broker_down(-1).unwrap();
        assert!(publisher.publish(&[record(2)]).await.is_err(), "nobody acknowledged it");
        cluster.broker_up(-1).unwrap();
        assert!(
            publisher.enqueue(&others, &[record(3)]).is_err(),
            "what comes after what was lost is not sent by the same producer"
        );
        // what the broker gets next shows that it is reached again
        until_published(&publisher, record(4)).await;
        others.producer.flush(Duration::from_secs(2)).unwrap();
        // a try that was not acknowledged in time may have come there: each version once or more
        let mut versions = versions(&options);
        versions.dedup();
        assert_eq!(versions, [1, 4], "what had failed was sent all the same");
    }

    async fn until_published(publisher: &Publisher, record: Record) {
        let records = [record];
        for _ in 0..60 {
            if publisher.publish(&records).await.is_ok() {
                return;
            }
        }
        panic!("in vain");
    }

    /// The versions of all records, in order.
    fn versions(options: &KafkaOptions) -> Vec<u64> {
        let consumer: BaseConsumer<Quiet> = config::consumer(options).create_with_context(Quiet).unwrap();
        let wait = Duration::from_secs(5);
        let end = (0..20)
            .find_map(|_| consumer.fetch_watermarks("changes", 0, wait).ok())
            .expect("the broker is up")
            .1;
        consumer.assign(&topic::assignment("changes", [(0, 0)]).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut versions = Vec::new();
        while (versions.len() as i64) < end {
            assert!(Instant::now() < deadline, "only {} of {end}", versions.len());
            let Some(Ok(message)) = consumer.poll(wait) else { continue };
            let event: Envelope = serde_json::from_slice(message.payload().unwrap()).unwrap();
            versions.push(event.version);
        }
        versions
    }

    #[test]
    fn payloads_have_no_cursor_and_are_bounded() {
        let mut event = event("a", 1);
        let plain = serde_json::to_string(&event).unwrap();
        event.cursor = Some("somewhere".to_owned());
        assert_eq!(payload(&event).unwrap(), plain);
        event.data = Some(RawValue::from_string(format!("\"{}\"", "x".repeat(RECORD_BYTES_MAX))).unwrap());
        let small: Envelope = serde_json::from_str(&payload(&event).unwrap()).unwrap();
        assert!(small.data.is_none() && small.id == event.id);
    }
}
