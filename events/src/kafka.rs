//! The bus on Kafka: one topic, the events of one key in one partition. Every replica reads all of it.

pub mod config;
mod follow;
mod group;
mod identity;
pub mod member;
mod owned;
mod publish;
mod replay;
mod ring;
pub mod topic;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use rdkafka::{consumer::BaseConsumer, error::KafkaError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use self::{
    config::{KafkaOptions, Quiet},
    group::GroupConsumer,
    publish::{Publisher, Record},
    replay::Replay,
    ring::{Read, Ring},
};
use super::{
    BusError, EventBus,
    consumer::Consumer,
    cursor::{Cursor, TopicPlace},
};
use model::{
    durability::{self, Setting},
    event::Envelope,
};
use runtime::{owner::Refusal, supervisor};

/// Live events that a receiver may lag behind.
const LIVE_CAPACITY: usize = 16_384;
/// Replays that read the topic by themselves at the same time.
const REPLAYS: usize = 16;
/// The longest wait for a consumer of one's own.
const PERMIT_WAIT: Duration = Duration::from_secs(5);

/// The bus on Kafka.
pub struct KafkaBus {
    feed: Arc<Feed>,
    publisher: Arc<Publisher>,
    /// Answers questions; reads nothing.
    questions: ArcSwap<BaseConsumer<Quiet>>,
    follower: Mutex<Option<JoinHandle<()>>>,
}

/// What the follower, live readers and replays share.
struct Feed {
    /// How the brokers are reached now. Whoever holds a connection goes over to others when they change.
    options: watch::Sender<Arc<KafkaOptions>>,
    topic: String,
    /// None until the topic was found.
    ring: Mutex<Option<Ring>>,
    live: broadcast::Sender<Arc<Envelope>>,
    /// Changes whenever the ring does.
    moved: watch::Sender<u64>,
    gaps: watch::Sender<u64>,
    replays: Arc<Semaphore>,
    stop: AtomicBool,
}

impl KafkaBus {
    /// Starts to look for the topic, which is created where it is missing and that is allowed. Does not wait
    /// for the broker.
    ///
    /// # Errors
    /// `Unavailable` when the options are of no use: a file that cannot be read, an unknown mechanism.
    pub fn start(options: KafkaOptions) -> Result<Self, BusError> {
        let topic = options.topic();
        let publisher = Publisher::new(config::producer(&options), topic.clone(), options.publish_deadline);
        let publisher = Arc::new(publisher);
        let questions = config::client(&options).create_with_context(Quiet).map_err(unavailable)?;
        let feed = Arc::new(Feed {
            topic,
            ring: Mutex::new(None),
            live: broadcast::channel(LIVE_CAPACITY).0,
            moved: watch::channel(0).0,
            gaps: watch::channel(0).0,
            replays: Arc::new(Semaphore::new(REPLAYS)),
            stop: AtomicBool::new(false),
            options: watch::channel(Arc::new(options)).0,
        });
        let (followed, warmed) = (feed.clone(), publisher.clone());
        let warm = move || {
            let publisher = warmed.clone();
            _ = std::thread::Builder::new().name("warm".to_owned()).spawn(move || publisher.warm());
        };
        let follower = std::thread::Builder::new().name("feed".to_owned());
        let follower = follower
            .spawn(move || supervisor::FOLLOWER.run(|| follow::follow(&followed, warm)))
            .map_err(unavailable)?;
        Ok(Self {
            feed,
            publisher,
            questions: ArcSwap::from_pointee(questions),
            follower: Mutex::new(Some(follower)),
        })
    }

    /// Goes over to other brokers, another account or other certificates, once they answer: the feed goes on
    /// where it is, members of groups join anew, and what is being published is finished first.
    ///
    /// # Errors
    /// `Unavailable` where they do not answer, refuse the account, or do not have the topic: nothing changes.
    pub async fn rotate(&self, options: KafkaOptions) -> Result<(), BusError> {
        let topic = self.feed.topic.clone();
        let client = config::client(&options);
        let asked = tokio::task::spawn_blocking(move || {
            let questions: BaseConsumer<Quiet> = client.create_with_context(Quiet)?;
            Ok((topic::partitions(&questions, &topic)?, questions))
        });
        let (partitions, questions) =
            asked.await.map_err(unavailable)?.map_err(|error: KafkaError| unavailable(error))?;
        partitions.ok_or_else(|| BusError::Unavailable("there is no such topic".to_owned()))?;
        let former = (
            self.questions.swap(Arc::new(questions)),
            self.publisher.reconfigure(config::producer(&options)),
        );
        // waits for the threads of the library
        _ = tokio::task::spawn_blocking(move || drop(former));
        self.feed.options.send_replace(Arc::new(options));
        Ok(())
    }

    /// Leaves the feed and waits until that is done.
    pub async fn close(&self) {
        self.feed.close();
        let Some(follower) = self.follower.lock().take() else { return };
        _ = tokio::task::spawn_blocking(move || follower.join()).await;
    }

    /// Checks that the last event of a place is where it was: the mark of what is there, where that is
    /// `known`, else the record itself. A topic that was cut short, or restored, and grew again has another
    /// there. What is not kept any more cannot be asked.
    async fn check(
        &self,
        place: &TopicPlace,
        known: Option<u32>,
        low: Option<&[i64]>,
    ) -> Result<(), BusError> {
        let Some((partition, mark)) = place.last else { return Ok(()) };
        let offset = place.at[partition] - 1;
        let found = match (known, low.map(|low| low[partition])) {
            (Some(found), _) => Some(found),
            (None, Some(low)) if offset < low => return Ok(()),
            (None, _) => {
                let _permit = self.feed.permit().await?;
                self.ask(move |_, feed| replay::mark_at(feed, partition, offset).map_err(unavailable)).await?
            }
        };
        if found == Some(mark) { Ok(()) } else { Err(BusError::Expired) }
    }

    /// Asks the broker something, without holding up other tasks.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>, &Feed) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        let (questions, feed) = (self.questions.load_full(), self.feed.clone());
        tokio::task::spawn_blocking(move || question(&questions, &feed)).await.map_err(unavailable)?
    }
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        self.feed.close();
    }
}

impl Feed {
    fn options(&self) -> Arc<KafkaOptions> {
        self.options.borrow().clone()
    }

    /// Whether the topic is the service's own; waits for the first answer.
    async fn owned(&self) -> Result<(), BusError> {
        let Some(claim) = self.options().claim.clone() else { return Ok(()) };
        claim.settled().await.map_err(unavailable)
    }

    /// The right to read the topic by a consumer of one's own.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, BusError> {
        let permit = tokio::time::timeout(PERMIT_WAIT, self.replays.clone().acquire_owned()).await;
        permit.map_err(unavailable)?.map_err(unavailable)
    }

    /// Ends the follower and all replays.
    fn close(&self) {
        self.stop.store(true, Ordering::Release);
        self.moved.send_modify(|moved| *moved += 1);
    }
}

#[async_trait]
impl EventBus for KafkaBus {
    async fn publish(&self, events: &[Envelope]) -> Result<(), BusError> {
        if events.is_empty() {
            return Ok(());
        }
        self.feed.owned().await?;
        // on a task of its own: a caller that gives up must not leave events behind that would be sent at any
        // later time
        let records: Vec<Record> = events.iter().map(Record::of).collect::<Result<_, _>>()?;
        let publisher = self.publisher.clone();
        tokio::spawn(async move { publisher.publish(&records).await }).await.map_err(unavailable)?
    }

    fn live(&self) -> broadcast::Receiver<Arc<Envelope>> {
        self.feed.live.subscribe()
    }

    fn gaps(&self) -> watch::Receiver<u64> {
        self.feed.gaps.subscribe()
    }

    async fn replay(
        &self,
        since: &str,
    ) -> Result<BoxStream<'static, Result<Arc<Envelope>, BusError>>, BusError> {
        let Cursor::Topic(place) = Cursor::decode(since)? else { return Err(BusError::Expired) };
        let (reader, in_ring, known) = {
            let held = self.feed.ring.lock();
            let ring = held.as_ref().ok_or_else(not_joined)?;
            let reader = ring.reader(&place).ok_or(BusError::Expired)?;
            let ahead = reader.at.iter().zip(ring.position()).any(|(at, position)| at > position);
            let mut probe = ring.reader(&place).ok_or(BusError::Expired)?;
            let known =
                place.last.and_then(|(partition, _)| ring.mark_at(partition, place.at[partition] - 1));
            (reader, !ahead && !matches!(ring.read(&mut probe), Read::Behind(_)), known)
        };
        let mut low = None;
        if !in_ring || (known.is_none() && place.last.is_some()) {
            // another replica may be ahead, and the topic reaches back farther; but not any offset is one of
            // it
            let partitions = reader.at.len();
            let bounds = self.ask(move |consumer, feed| {
                topic::bounds(consumer, &feed.topic, partitions).map_err(unavailable)
            });
            let bounds = bounds.await?;
            if reader.at.iter().zip(&bounds).any(|(at, bounds)| !(bounds.low..=bounds.high).contains(at)) {
                return Err(BusError::Expired);
            }
            low = Some(bounds.iter().map(|bounds| bounds.low).collect::<Vec<i64>>());
        }
        self.check(&place, known, low.as_deref()).await?;
        let replay = Replay::new(self.feed.clone(), reader, low.filter(|_| !in_ring));
        Ok(stream::try_unfold(replay, |mut replay| async move {
            let event = replay.next().await?;
            Ok(event.map(|event| (event, replay)))
        })
        .boxed())
    }

    async fn head(&self) -> Result<String, BusError> {
        let held = self.feed.ring.lock();
        let ring = held.as_ref().ok_or_else(not_joined)?;
        Ok(Cursor::Topic(ring.place()).encode())
    }

    async fn consume(&self, group: &str, entity: &str) -> Result<Box<dyn Consumer>, BusError> {
        self.feed.owned().await?;
        Ok(Box::new(GroupConsumer::join(self.feed.options.subscribe(), group, entity)?))
    }

    async fn oldest(&self) -> Result<String, BusError> {
        let TopicPlace { topic, at, .. } = self.feed.ring.lock().as_ref().ok_or_else(not_joined)?.place();
        let partitions = at.len();
        let bounds = self
            .ask(move |consumer, feed| topic::bounds(consumer, &feed.topic, partitions).map_err(unavailable));
        let at = bounds.await?.iter().map(|bounds| bounds.low).collect();
        Ok(Cursor::Topic(TopicPlace { topic, last: None, at }).encode())
    }

    async fn settings(&self) -> Result<Vec<Setting>, BusError> {
        let options = self.feed.options();
        let (client, producer) = (config::client(&options), config::producer(&options));
        self.ask(move |consumer, feed| {
            let topic = topic::kept(&client, consumer, &feed.topic).map_err(unavailable)?;
            Ok(durability::kafka(&feed.topic, producer.get("acks").unwrap_or("default"), &topic))
        })
        .await
    }

    async fn ping(&self) -> Result<(), BusError> {
        if let Some(owner) = self.owned_by() {
            return Err(unavailable(Refusal::Another(owner)));
        }
        let partitions =
            self.ask(|consumer, feed| topic::partitions(consumer, &feed.topic).map_err(unavailable));
        partitions.await?.map(drop).ok_or_else(|| BusError::Unavailable("there is no such topic".to_owned()))
    }

    fn owned_by(&self) -> Option<String> {
        self.feed.options().claim.as_ref().and_then(|claim| claim.standing.borrow().another())
    }
}

fn not_joined() -> BusError {
    BusError::Unavailable("the topic was not found yet".to_owned())
}

fn unavailable(error: impl fmt::Display) -> BusError {
    BusError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
