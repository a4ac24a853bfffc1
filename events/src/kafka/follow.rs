//! Follows the topic on a thread of its own: every partition, from the end as it was at the start, into the
//! ring and to live readers.
//!
//! The positions are held here and in no group, so an outage of the broker leaves no gap. What is a gap:
//! offsets that the topic does not have any more, or never had, because it was cut short or made anew. A
//! topic that was made anew may have grown past the position, so it is told by its id.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{Feed, config, config::Quiet, identity, owned::Marked, replay, ring::Ring, topic};
use model::event::Envelope;

/// The wait for a message, after which a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
/// How long a look at what stands before the end may get nothing.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// The wait before the topic is looked for again.
const RETRY: Duration = Duration::from_millis(300);
/// The wait before a topic of another owner is looked at again.
const UNOWNED_RETRY: Duration = Duration::from_secs(1);

/// Why the topic has to be looked at anew.
enum Interrupt {
    /// The library gave up a partition, or the broker could not be asked.
    Failed(KafkaError),
    /// Events may have been lost.
    Gap(KafkaError),
    /// It is another topic of the same name.
    MadeAnew,
    /// The topic is not there and could not be created.
    Missing,
    /// The topic has another number of partitions than before.
    Repartitioned,
    /// The topic is another's, or it is not known yet whose it is.
    Unowned,
    /// The brokers are reached in another way now.
    Rotated,
    /// The bus is closed.
    Stop,
}

impl From<KafkaError> for Interrupt {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicId,
            ) => Self::Gap(error),
            _ => Self::Failed(error),
        }
    }
}

/// Follows the topic until the bus is closed. `found` is called whenever the topic was found.
pub fn follow(feed: &Feed, found: impl Fn()) {
    let mut gap = false;
    let mut lost = false;
    let mut marked = Marked::default();
    loop {
        match session(feed, (&mut gap, &mut lost), &mut marked, &found) {
            Ok(()) | Err(Interrupt::Stop) => return,
            Err(Interrupt::Gap(error)) => {
                tracing::warn!(topic = feed.topic, %error, "the feed was cut");
                gap = true;
            }
            Err(Interrupt::MadeAnew) => {
                tracing::warn!(topic = feed.topic, "the topic was made anew");
                gap = true;
            }
            // at once: the brokers were just found to answer
            Err(Interrupt::Rotated) => continue,
            Err(Interrupt::Repartitioned) => {
                tracing::info!(topic = feed.topic, "the topic has more partitions now")
            }
            Err(Interrupt::Unowned) => std::thread::sleep(UNOWNED_RETRY.saturating_sub(RETRY)),
            Err(Interrupt::Missing) => report(&mut lost, feed, &"there is no such topic"),
            Err(Interrupt::Failed(error)) => report(&mut lost, feed, &error),
        }
        std::thread::sleep(RETRY);
    }
}

/// One line for an outage, not one for each try.
fn report(lost: &mut bool, feed: &Feed, error: &dyn std::fmt::Display) {
    if !std::mem::replace(lost, true) {
        tracing::warn!(topic = feed.topic, %error, "the feed is interrupted");
    }
}

fn session(
    feed: &Feed,
    (gap, lost): (&mut bool, &mut bool),
    marked: &mut Marked,
    found: &impl Fn(),
) -> Result<(), Interrupt> {
    let options = feed.options();
    let consumer: BaseConsumer<Quiet> = config::consumer(&options).create_with_context(Quiet)?;
    let partitions = find(feed, &consumer)?;
    if !marked.look(&options, &feed.topic)? {
        return Err(Interrupt::Unowned);
    }
    found();
    let id = identity::of_topic(&consumer, &feed.topic)?;
    let position = join(feed, &consumer, (partitions, id), gap)?;
    consumer.assign(&topic::assignment(&feed.topic, position.into_iter().enumerate())?)?;
    if std::mem::take(lost) {
        tracing::info!(topic = feed.topic, "the feed goes on");
    }
    let mut checked = Instant::now();
    while !feed.stop.load(Ordering::Acquire) {
        if !Arc::ptr_eq(&options, &feed.options()) {
            return Err(Interrupt::Rotated);
        }
        match consumer.poll(POLL) {
            Some(Ok(message)) => take(feed, &message),
            Some(Err(error)) => match Interrupt::from(error) {
                // the library finds its brokers again by itself, and goes on where it was
                Interrupt::Failed(error) => report(lost, feed, &error),
                interrupt => return Err(interrupt),
            },
            None => {}
        }
        if checked.elapsed() > options.check_interval {
            match topic::partitions(&consumer, &feed.topic) {
                Ok(Some(count)) if count != partitions => return Err(Interrupt::Repartitioned),
                Ok(Some(_)) if std::mem::take(lost) => tracing::info!(topic = feed.topic, "the feed goes on"),
                _ => {}
            }
            // a broker that does not answer says nothing about it
            if matches!(marked.look(&options, &feed.topic), Ok(false)) {
                return Err(Interrupt::Unowned);
            }
            let other =
                identity::of_topic(&consumer, &feed.topic).is_ok_and(|now| now != 0 && id != 0 && now != id);
            if other {
                return Err(Interrupt::MadeAnew);
            }
            checked = Instant::now();
        }
    }
    Ok(())
}

/// The number of partitions, once there is a topic.
fn find(feed: &Feed, consumer: &BaseConsumer<Quiet>) -> Result<usize, Interrupt> {
    if feed.stop.load(Ordering::Acquire) {
        return Err(Interrupt::Stop);
    }
    if let Some(partitions) = topic::partitions(consumer, &feed.topic)? {
        return Ok(partitions);
    }
    topic::create(&config::client(&feed.options()), &feed.topic)?;
    topic::partitions(consumer, &feed.topic)?.ok_or(Interrupt::Missing)
}

/// Where to go on: from the end at first, then from where the feed is, or from what the topic still has after
/// a gap.
fn join(
    feed: &Feed,
    consumer: &BaseConsumer<Quiet>,
    (partitions, id): (usize, u64),
    gap: &mut bool,
) -> Result<Vec<i64>, Interrupt> {
    let bounds = topic::bounds(consumer, &feed.topic, partitions)?;
    if feed.ring.lock().is_none() {
        let ring = begin(feed, id, &bounds);
        let position = ring.position().to_vec();
        *feed.ring.lock() = Some(ring);
        // state that was kept before this moment is not covered by the feed
        feed.gaps.send_modify(|gaps| *gaps += 1);
        feed.moved.send_modify(|moved| *moved += 1);
        return Ok(position);
    }
    let mut held = feed.ring.lock();
    let Some(ring) = held.as_mut() else { return Err(Interrupt::Stop) };
    let is_new = ring.is_of_another(id);
    if ring.position().len() < partitions {
        ring.add_partitions(partitions);
    }
    let fits = |(position, bounds): (&i64, &topic::Bounds)| (bounds.low..=bounds.high).contains(position);
    let is_cut = ring.position().len() != partitions || !ring.position().iter().zip(&bounds).all(fits);
    if std::mem::take(gap) || is_new || is_cut {
        // of another topic everything is news
        let kept = |pair: (&i64, &topic::Bounds)| if fits(pair) && !is_new { *pair.0 } else { pair.1.low };
        let position = ring.position().iter().zip(&bounds).map(kept).collect();
        ring.restart(id, position);
        feed.gaps.send_modify(|gaps| *gaps += 1);
        feed.moved.send_modify(|moved| *moved += 1);
    }
    ring.name(id);
    Ok(ring.position().to_vec())
}

/// A ring for a feed that begins at the end of the topic. It has what stands just before that, so that what a
/// relay repeats after a crash is told from news, and who comes back after a restart of this process reads
/// from it.
fn begin(feed: &Feed, id: u64, bounds: &[topic::Bounds]) -> Ring {
    let options = feed.options();
    let (low, high): (Vec<i64>, Vec<i64>) = bounds.iter().map(|bounds| (bounds.low, bounds.high)).unzip();
    let empty = |at: Vec<i64>| Ring::new(id, at, options.ring_events, options.ring_bytes);
    let from = replay::window_before(&high, &low);
    let mut ring = empty(from.clone());
    let read = replay::read_records(
        feed,
        &from,
        &high,
        LOOK_BACK,
        |replay::Record { partition, offset, event, bytes }| {
            ring.push(partition, offset, event, bytes);
            !feed.stop.load(Ordering::Acquire)
        },
    );
    match read {
        Ok(()) => {
            ring.advance(&high);
            ring
        }
        Err(error) => {
            tracing::warn!(topic = feed.topic, %error, "what a relay repeats after a crash may be told again");
            empty(high)
        }
    }
}

/// Takes one record in.
fn take(feed: &Feed, message: &BorrowedMessage<'_>) {
    let payload = message.payload().unwrap_or_default();
    let event = serde_json::from_slice::<Envelope>(payload);
    if let Err(error) = &event {
        tracing::warn!(topic = feed.topic, partition = message.partition(), offset = message.offset(), %error, "a record is no event");
    }
    let mut held = feed.ring.lock();
    let Some(ring) = held.as_mut() else { return };
    let partition = message.partition() as usize;
    if let Some(event) = ring.push(partition, message.offset(), event.ok(), payload.len()) {
        // under the lock, so that live readers get the order of the ring; nobody listening is fine
        _ = feed.live.send(event);
    }
    drop(held);
    feed.moved.send_modify(|moved| *moved += 1);
}
