//! Replays: from the ring where it reaches back far enough, else by a consumer of their own up to where the ring begins to serve.

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
    super::cursor::Cursor,
    BusError, Feed, config,
    config::Quiet,
    ring::{Read, Reader},
    topic, unavailable,
};
use crate::domain::event::Envelope;

/// Records of a topic that wait for a reader.
const QUEUE: usize = 256;
/// The longest wait for a consumer of one's own.
const PERMIT_WAIT: Duration = Duration::from_secs(5);
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
}

struct Behind {
    records: mpsc::Receiver<Result<Record, BusError>>,
    to: Vec<i64>,
}

struct Record {
    partition: usize,
    offset: i64,
    event: Option<Envelope>,
}

impl Replay {
    pub fn new(feed: Arc<Feed>, reader: Reader) -> Self {
        let moved = feed.moved.subscribe();
        Self { feed, reader, moved, taken: VecDeque::new(), behind: None }
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
        self.reader.at[record.partition] = record.offset + 1;
        let mut event = record.event.filter(|event| self.reader.is_new(event.id))?;
        event.cursor = Some(Cursor::Topic(self.reader.at.clone()).encode());
        Some(Arc::new(event))
    }

    async fn read_topic(&self, to: Vec<i64>) -> Result<Behind, BusError> {
        let permit = tokio::time::timeout(PERMIT_WAIT, self.feed.replays.clone().acquire_owned()).await;
        let permit = permit.map_err(unavailable)?.map_err(unavailable)?;
        let (sender, records) = mpsc::channel(QUEUE);
        let (feed, from, until) = (self.feed.clone(), self.reader.at.clone(), to.clone());
        tokio::task::spawn_blocking(move || read_partitions(&feed, &from, &until, &sender, permit));
        Ok(Behind { records, to })
    }
}

/// Sends the records of each partition from one position to another, those of one partition in order. Ends early when nobody listens.
fn read_partitions(
    feed: &Feed,
    from: &[i64],
    to: &[i64],
    sender: &mpsc::Sender<Result<Record, BusError>>,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = try_read_partitions(feed, from, to, sender) {
        let error = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => BusError::Expired,
            _ => unavailable(error),
        };
        _ = sender.blocking_send(Err(error));
    }
}

fn try_read_partitions(
    feed: &Feed,
    from: &[i64],
    to: &[i64],
    sender: &mpsc::Sender<Result<Record, BusError>>,
) -> Result<(), KafkaError> {
    let mut missing: Vec<bool> = from.iter().zip(to).map(|(from, to)| from < to).collect();
    let wanted = from.iter().copied().enumerate().filter(|(partition, _)| missing[*partition]);
    let assignment = topic::assignment(&feed.topic, wanted)?;
    let mut config = config::consumer(&feed.options());
    // records that were compacted away or are not for readers leave the end of a partition without a record to stop at
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    consumer.assign(&assignment)?;
    while missing.contains(&true) {
        match consumer.poll(SILENCE) {
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
                let event = serde_json::from_slice(message.payload().unwrap_or_default()).ok();
                if sender.blocking_send(Ok(Record { partition, offset, event })).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
