//! The log of events in Kafka: a topic of its own, whose readers are one consumer group over all replicas.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::FutureExt;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{Batch, Intake, IntakeError, IntakeReader, most};
use crate::kafka::{
    config::{self, KafkaOptions, Quiet},
    member::Member,
    topic,
};
use model::{
    counted::Place,
    durability::{self, Setting},
    price_event::PriceEvent,
};
use runtime::{
    owner::{Claim, Standing},
    supervisor,
};

/// How long a question to the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The log in Kafka.
pub struct KafkaIntake {
    topic: String,
    deadline: Duration,
    clients: watch::Sender<Arc<Clients>>,
    /// Whose the topic is: the bus looks.
    claim: Option<Claim>,
}

/// What speaks to the brokers, by the options of the moment.
struct Clients {
    producer: FutureProducer<Quiet>,
    readers: ClientConfig,
    /// Answers questions of the group; reads nothing.
    questions: BaseConsumer<Quiet>,
    /// Asks for settings of the topic.
    admin: ClientConfig,
    /// What the producer waits for.
    acks: String,
}

impl KafkaIntake {
    /// Starts to look for the topic, which is created where it is missing and that is allowed. Does not wait
    /// for the broker.
    ///
    /// # Errors
    /// The options are of no use.
    pub fn start(options: &KafkaOptions) -> Result<Self, IntakeError> {
        let topic = format!("{}ingest", options.topic_prefix);
        let clients = watch::channel(Arc::new(Clients::new(options, &topic)?)).0;
        let (client, watched, name) = (config::client(options), clients.subscribe(), topic.clone());
        let claim = options.claim.clone();
        std::thread::Builder::new()
            .name("intake".to_owned())
            .spawn(move || supervisor::INTAKE.run(|| make(&client, &watched, &name, claim.as_ref())))
            .map_err(failed)?;
        Ok(Self { deadline: options.publish_deadline, clients, topic, claim: options.claim.clone() })
    }

    /// Goes over to other brokers, another account or other certificates, which were found to answer. What is
    /// being appended is finished first; readers say that they end, and others take their place.
    ///
    /// # Errors
    /// The options are of no use: nothing changes.
    pub fn rotate(&self, options: &KafkaOptions) -> Result<(), IntakeError> {
        self.clients.send_replace(Arc::new(Clients::new(options, &self.topic)?));
        Ok(())
    }

    async fn owned(&self) -> Result<(), IntakeError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        claim.settled().await.map_err(failed)
    }

    fn clients(&self) -> Arc<Clients> {
        self.clients.borrow().clone()
    }
}

impl Clients {
    fn new(options: &KafkaOptions, topic: &str) -> Result<Self, IntakeError> {
        let mut producer = config::producer(options);
        // the order of events is in the events: a late one does no harm, and what nobody waits for any more
        // is dropped
        producer.set("message.timeout.ms", options.publish_deadline.as_millis().to_string());
        let mut readers = config::consumer(options);
        readers
            .set("group.id", topic)
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "10000");
        Ok(Self {
            acks: producer.get("acks").unwrap_or("default").to_owned(),
            admin: config::client(options),
            producer: producer.create_with_context(Quiet).map_err(failed)?,
            questions: readers.create_with_context(Quiet).map_err(failed)?,
            readers,
        })
    }
}

/// Creates the topic where it is missing, as soon as a broker answers.
fn make(client: &ClientConfig, clients: &watch::Receiver<Arc<Clients>>, name: &str, claim: Option<&Claim>) {
    // whoever asked may be gone
    while clients.has_changed().is_ok() {
        if claim.is_some_and(|claim| *claim.standing.borrow() != Standing::Own) {
            std::thread::sleep(Duration::from_millis(300));
            continue;
        }
        let now = clients.borrow().clone();
        match topic::partitions(&now.questions, name) {
            Ok(Some(_)) => return,
            Ok(None) => _ = topic::create(client, name),
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[async_trait]
impl Intake for KafkaIntake {
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError> {
        self.owned().await?;
        let (clients, mut deliveries) = (self.clients(), Vec::with_capacity(events.len()));
        for event in &events {
            let payload = serde_json::to_string(event).map_err(failed)?;
            let record = FutureRecord::to(&self.topic).key(&event.product_id).payload(&payload);
            deliveries.push(clients.producer.send_result(record).map_err(|(error, _)| failed(error))?);
        }
        let acknowledged = async {
            // one after the other: they come in any order, but all must be there
            for delivery in deliveries {
                match delivery.await {
                    Ok(Ok(_)) => {}
                    Ok(Err((error, _))) => return Err(failed(error)),
                    Err(_) => return Err(failed("the producer ended")),
                }
            }
            Ok(())
        };
        timeout(self.deadline, acknowledged).await.map_err(failed)?
    }

    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
        self.owned().await?;
        let mut clients = self.clients.subscribe();
        let readers = clients.borrow_and_update().readers.clone();
        let consumer = Member::new(&readers, Quiet).map_err(failed)?;
        consumer.subscribe(&[&self.topic]).map_err(failed)?;
        Ok(Box::new(KafkaReader {
            consumer: Arc::new(consumer),
            clients,
            claim: self.claim.clone(),
            topic: self.topic.clone(),
            received: Batch::default(),
            positions: BTreeMap::new(),
        }))
    }

    async fn settings(&self) -> Result<Vec<Setting>, IntakeError> {
        let (clients, name) = (self.clients(), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let kept = topic::kept(&clients.admin, &clients.questions, &name)?;
            Ok::<_, rdkafka::error::KafkaError>(durability::kafka(&name, &clients.acks, &kept))
        });
        asked.await.map_err(failed)?.map_err(failed)
    }

    async fn waiting(&self) -> Result<u64, IntakeError> {
        self.owned().await?;
        let (clients, name) = (self.clients(), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || lag(&clients.questions, &name));
        asked.await.map_err(failed)?.map_err(failed)
    }
}

/// How far the group is behind the ends of the partitions.
fn lag(consumer: &BaseConsumer<Quiet>, name: &str) -> Result<u64, rdkafka::error::KafkaError> {
    let Some(partitions) = topic::partitions(consumer, name)? else { return Ok(0) };
    let bounds = topic::bounds(consumer, name, partitions)?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(name, 0, partitions as i32 - 1);
    let committed = consumer.committed_offsets(wanted, TIMEOUT)?;
    let behind = bounds.iter().enumerate().map(|(partition, bounds)| {
        let at = match committed.find_partition(name, partition as i32).map(|found| found.offset()) {
            Some(Offset::Offset(at)) => at.max(bounds.low),
            _ => bounds.low,
        };
        (bounds.high - at).max(0).unsigned_abs()
    });
    Ok(behind.sum())
}

/// One member of the group.
struct KafkaReader {
    consumer: Arc<Member<Quiet>>,
    /// Changes when the brokers are reached in another way.
    clients: watch::Receiver<Arc<Clients>>,
    claim: Option<Claim>,
    topic: String,
    /// Received and not yet given.
    received: Batch,
    /// After what was received: the next offset of each partition.
    positions: BTreeMap<i32, i64>,
}

#[async_trait]
impl IntakeReader for KafkaReader {
    async fn take(&mut self, full: usize, flush: Duration) -> Result<Batch, IntakeError> {
        let Self { consumer, clients, claim, topic: _, received, positions } = self;
        if let Some(claim) = claim {
            claim.standing.borrow().allowed().map_err(failed)?;
        }
        let mut until = (!received.is_empty()).then(|| Instant::now() + flush);
        while received.len() < most(full) {
            // what is there needs no timer, but others want the thread too
            tokio::task::consume_budget().await;
            let message = match (consumer.recv().now_or_never(), until) {
                (Some(message), _) => message,
                (None, None) => tokio::select! {
                    message = consumer.recv() => message,
                    Ok(()) = clients.changed() => return Err(failed("the brokers are reached in another way now")),
                },
                (None, Some(_)) if received.len() >= full => break,
                (None, Some(until)) => match timeout_at(until, consumer.recv()).await {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            let message = message.map_err(failed)?;
            if let Some(claim) = claim.as_ref() {
                claim.standing.borrow().allowed().map_err(failed)?;
            }
            // the events of a product are all in one partition
            let log = format!("{}/{}", message.topic(), message.partition());
            let place = Place { log, seq: message.offset() };
            received.add(message.payload().unwrap_or_default(), place);
            positions.insert(message.partition(), message.offset() + 1);
            until.get_or_insert_with(|| Instant::now() + flush);
        }
        Ok(mem::take(received))
    }

    async fn done(&mut self) -> Result<(), IntakeError> {
        let (consumer, topic, positions) =
            (self.consumer.clone(), self.topic.clone(), mem::take(&mut self.positions));
        let committed = tokio::task::spawn_blocking(move || {
            // another member has what was revoked meanwhile: its place is not this one's to say
            let mine = consumer.assignment()?;
            let mut offsets = TopicPartitionList::new();
            for (partition, at) in positions {
                if mine.find_partition(&topic, partition).is_some() {
                    offsets.add_partition_offset(&topic, partition, Offset::Offset(at))?;
                }
            }
            if offsets.count() == 0 { Ok(()) } else { consumer.commit(&offsets, CommitMode::Sync) }
        });
        committed.await.map_err(failed)?.map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable(error.to_string())
}
