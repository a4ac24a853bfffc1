//! Replays: from the ring where it reaches back far enough, else by a consumer of their own up to where the
//! ring begins to serve.
//!
//! A relay that crashed before it confirmed a batch is followed by one that publishes it again: behind
//! version 9 of a key the topic has versions 2 to 9 once more. So whoever begins in the middle of the topic
//! first learns which events stand just before that: the follower, and each replay from the topic.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{
    super::cursor::mark_of,
    BusError, Feed, config,
    config::Quiet,
    ring::{Read, Reader},
    topic, unavailable,
};
use model::event::Envelope;

/// Records of a topic that wait for a reader.
const QUEUE: usize = 256;
/// The records of each partition, and of all, that are looked at before a place: two batches of a relay, one
/// that was being confirmed when it crashed and one that was being published. Fewer than the events that a
/// reader remembers.
const WINDOW: i64 = 2_000;
const WINDOW_ALL: i64 = 12_000;
/// A consumer of one's own that gets nothing for this long gives up.
const SILENCE: Duration = Duration::from_secs(10);

/// A reader of the feed at its own pace.
pub struct Replay {
    feed: Arc<Feed>,
    reader: Reader,
    moved: watch::Receiver<u64>,
    taken: VecDeque<Arc<Envelope>>,
    /// Records from the topic, and the position that they lead to.
    behind: Option<Behind>,
    /// The oldest offset of each partition, until what stands before the place was looked at.
    unseen: Option<Vec<i64>>,
}

struct Behind {
    records: mpsc::Receiver<Result<Record, BusError>>,
    to: Vec<i64>,
}

/// A record of the topic.
pub struct Record {
    /// Its partition.
    pub partition: usize,
    /// Its offset.
    pub offset: i64,
    /// The event, where it is one.
    pub event: Option<Envelope>,
    /// The bytes of the record.
    pub bytes: usize,
}

impl Replay {
    /// A replay; one that is to begin with the topic also looks at what stands before its place, from these
    /// offsets on at most.
    pub fn new(feed: Arc<Feed>, reader: Reader, low: Option<Vec<i64>>) -> Self {
        let moved = feed.moved.subscribe();
        Self { feed, reader, moved, taken: VecDeque::new(), behind: None, unseen: low }
    }

    /// The next event, once there is one; none when the bus is closed.
    pub async fn next(&mut self) -> Result<Option<Arc<Envelope>>, BusError> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Ok(Some(event));
            }
            if let Some(Behind { records, to }) = &mut self.behind {
                let Some(record) = records.recv().await else {
                    for (at, to) in self.reader.at.iter_mut().zip(to) {
                        *at = (*at).max(*to);
                    }
                    self.behind = None;
                    continue;
                };
                if let Some(event) = self.read(record?) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.moved.mark_unchanged();
            let read = self.feed.ring.lock().as_ref().map(|ring| ring.read(&mut self.reader));
            match read {
                None | Some(Read::Broken) => return Err(BusError::Expired),
                Some(Read::Behind(to)) => self.behind = Some(self.read_topic(to).await?),
                Some(Read::Events(events)) if events.is_empty() => {
                    if self.feed.stop.load(Ordering::Acquire) || self.moved.changed().await.is_err() {
                        return Ok(None);
                    }
                }
                Some(Read::Events(events)) => self.taken = events.into(),
            }
        }
    }

    fn read(&mut self, record: Record) -> Option<Arc<Envelope>> {
        let Record { partition, offset, event, bytes: _ } = record;
        if offset < self.reader.at[partition] {
            // the reader has it: only to be told from a repetition
            event.iter().for_each(|event| _ = self.reader.is_new(event.id));
            return None;
        }
        self.reader.at[partition] = offset + 1;
        let mut event = event.filter(|event| self.reader.is_new(event.id))?;
        event.cursor = Some(self.reader.cursor(partition, event.id));
        Some(Arc::new(event))
    }

    async fn read_topic(&mut self, to: Vec<i64>) -> Result<Behind, BusError> {
        let permit = self.feed.permit().await?;
        let (sender, records) = mpsc::channel(QUEUE);
        let from = match self.unseen.take() {
            Some(low) => window_before(&self.reader.at, &low),
            None => self.reader.at.clone(),
        };
        let (feed, until) = (self.feed.clone(), to.clone());
        tokio::task::spawn_blocking(move || read_partitions(&feed, &from, &until, &sender, permit));
        Ok(Behind { records, to })
    }
}

/// Sends the records of each partition from one position to another, those of one partition in order. Ends
/// early when nobody listens.
fn read_partitions(
    feed: &Feed,
    from: &[i64],
    to: &[i64],
    sender: &mpsc::Sender<Result<Record, BusError>>,
    _permit: OwnedSemaphorePermit,
) {
    let give = |record: Record| sender.blocking_send(Ok(record)).is_ok();
    if let Err(error) = read_records(feed, from, to, SILENCE, give) {
        let error = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => BusError::Expired,
            _ => unavailable(error),
        };
        _ = sender.blocking_send(Err(error));
    }
}

/// The place some records before another, but not before the oldest.
pub fn window_before(at: &[i64], low: &[i64]) -> Vec<i64> {
    // a topic of many partitions has fewer records of one relay in each
    let window = (WINDOW_ALL / at.len().max(1) as i64).clamp(1, WINDOW);
    at.iter().zip(low).map(|(at, low)| (at - window).max(*low).min(*at)).collect()
}

/// The mark of the event that stands at a place; none where no event does. Blocks, for a bounded time.
pub fn mark_at(feed: &Feed, partition: usize, offset: i64) -> Result<Option<u32>, KafkaError> {
    let mut places = vec![0; partition + 1];
    places[partition] = offset;
    let mut ends = places.clone();
    ends[partition] += 1;
    let mut found = None;
    read_records(feed, &places, &ends, SILENCE, |record| {
        found = record.event.filter(|_| record.offset == offset).map(|event| mark_of(event.id));
        true
    })?;
    Ok(found)
}

/// Reads the records of each partition from one position to another, those of one partition in order, until
/// `give` says no.
pub fn read_records(
    feed: &Feed,
    from: &[i64],
    to: &[i64],
    silence: Duration,
    mut give: impl FnMut(Record) -> bool,
) -> Result<(), KafkaError> {
    let mut missing: Vec<bool> = from.iter().zip(to).map(|(from, to)| from < to).collect();
    let wanted = from.iter().copied().enumerate().filter(|(partition, _)| missing[*partition]);
    let assignment = topic::assignment(&feed.topic, wanted)?;
    let mut config = config::consumer(&feed.options());
    // records that were compacted away or are not for readers leave the end of a partition without a record
    // to stop at
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    consumer.assign(&assignment)?;
    while missing.contains(&true) {
        match consumer.poll(silence) {
            None => return Err(KafkaError::NoMessageReceived),
            Some(Err(KafkaError::PartitionEOF(partition))) => missing[partition as usize] = false,
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => {}
                _ => return Err(error),
            },
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition() as usize, message.offset());
                if offset + 1 >= to[partition] {
                    missing[partition] = false;
                }
                if offset >= to[partition] {
                    continue;
                }
                let payload = message.payload().unwrap_or_default();
                let event = serde_json::from_slice(payload).ok();
                if !give(Record { partition, offset, event, bytes: payload.len() }) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
