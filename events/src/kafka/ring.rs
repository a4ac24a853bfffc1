//! The newest events of the feed in memory, in the order in which they arrived here, each with the position
//! after it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use super::super::cursor::{Cursor, TopicPlace, mark_of};
use model::event::Envelope;

/// Events that a reader takes at once.
const TAKE: usize = 256;
/// Events whose ids a reader remembers, so that a repetition is noticed.
const REMEMBERED: usize = 16_384;

/// The newest events, as many as fit.
pub struct Ring {
    /// Which topic it is; 0 where nobody knows.
    topic: u64,
    /// The partition and the mark of the newest event, while no other record of that partition follows.
    last: Option<(usize, u32)>,
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    /// All events from these offsets on are here.
    start: Vec<i64>,
    /// The next offset of each partition.
    position: Vec<i64>,
    ids: HashSet<Uuid>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// Grows with each gap: what was before does not go on.
    generation: u64,
}

struct Entry {
    partition: usize,
    offset: i64,
    bytes: usize,
    /// The position once this event was here.
    after: Box<[i64]>,
    event: Arc<Envelope>,
}

/// A reader of the feed with a position of its own, which may be any: cursors of other replicas interleave
/// partitions in another way.
pub struct Reader {
    /// The next offset that it wants of each partition.
    pub at: Vec<i64>,
    topic: u64,
    generation: u64,
    /// The number of the next entry, once it reads from the ring.
    next: Option<u64>,
    recent: Recent,
}

/// What the ring had for a reader.
pub enum Read {
    /// The next events, in order; none when it has them all.
    Events(Vec<Arc<Envelope>>),
    /// The ring does not reach back as far. It has everything from this position on.
    Behind(Vec<i64>),
    /// There was a gap since the reader began.
    Broken,
}

impl Ring {
    /// An empty ring for a feed that begins at a position.
    pub fn new(topic: u64, position: Vec<i64>, events_max: usize, bytes_max: usize) -> Self {
        Self {
            topic,
            last: None,
            entries: VecDeque::new(),
            first: 0,
            start: position.clone(),
            position,
            ids: HashSet::new(),
            bytes: 0,
            events_max,
            bytes_max,
            generation: 0,
        }
    }

    /// The next offset of each partition.
    pub fn position(&self) -> &[i64] {
        &self.position
    }

    /// Whether a topic is surely another than the one that this is of.
    pub fn is_of_another(&self, topic: u64) -> bool {
        !self.place().may_be_of(topic)
    }

    /// Which topic it is, once that is known.
    pub fn name(&mut self, topic: u64) {
        if topic != 0 {
            self.topic = topic;
        }
    }

    /// The place after the newest record.
    pub fn place(&self) -> TopicPlace {
        TopicPlace { topic: self.topic, last: self.last, at: self.position.clone() }
    }

    /// The mark of the event at a place, if it is here.
    pub fn mark_at(&self, partition: usize, offset: i64) -> Option<u32> {
        let is_there = |entry: &&Entry| entry.partition == partition && entry.offset == offset;
        self.entries.iter().rev().find(is_there).map(|entry| mark_of(entry.event.id))
    }

    /// All records of each partition up to these offsets were noted: those that are missing are none.
    pub fn advance(&mut self, to: &[i64]) {
        for (partition, (position, to)) in self.position.iter_mut().zip(to).enumerate() {
            if *position < *to {
                *position = *to;
                self.last.take_if(|(last, _)| *last == partition);
            }
        }
    }

    /// Notes a record. The event with its cursor, but nothing where the same event is here already: a relay
    /// repeats itself after a crash.
    pub fn push(
        &mut self,
        partition: usize,
        offset: i64,
        event: Option<Envelope>,
        bytes: usize,
    ) -> Option<Arc<Envelope>> {
        self.position[partition] = offset + 1;
        self.last.take_if(|(last, _)| *last == partition);
        let mut event = event.filter(|event| self.ids.insert(event.id))?;
        self.last = Some((partition, mark_of(event.id)));
        event.cursor = Some(Cursor::Topic(self.place()).encode());
        let event = Arc::new(event);
        let after = self.position.clone().into_boxed_slice();
        let bytes = bytes + size_of::<Entry>() + size_of_val(&*after);
        self.entries.push_back(Entry { partition, offset, bytes, after, event: event.clone() });
        self.bytes += bytes;
        while self.entries.len() > self.events_max || (self.bytes > self.bytes_max && self.entries.len() > 1)
        {
            self.drop_first();
        }
        Some(event)
    }

    /// Begins anew after a gap.
    pub fn restart(&mut self, topic: u64, position: Vec<i64>) {
        let generation = self.generation + 1;
        *self = Self { generation, ..Self::new(topic, position, self.events_max, self.bytes_max) };
    }

    /// A new partition: all of it is yet to come.
    pub fn add_partitions(&mut self, partitions: usize) {
        self.start.resize(partitions, 0);
        self.position.resize(partitions, 0);
    }

    /// A reader that begins at a place; none when it is one of another topic, or has more partitions than
    /// this.
    pub fn reader(&self, place: &TopicPlace) -> Option<Reader> {
        if place.at.len() > self.position.len() || !place.may_be_of(self.topic) {
            return None;
        }
        let mut at = place.at.clone();
        at.resize(self.position.len(), 0);
        Some(Reader {
            at,
            topic: self.topic,
            generation: self.generation,
            next: None,
            recent: Recent::default(),
        })
    }

    /// The next events for a reader.
    pub fn read(&self, reader: &mut Reader) -> Read {
        if reader.generation != self.generation {
            return Read::Broken;
        }
        reader.at.resize(self.position.len(), 0);
        let number = match reader.next {
            Some(number) if number >= self.first => number,
            None if reader.at.iter().zip(&self.start).all(|(at, start)| at >= start) => self.first,
            _ => {
                reader.next = None;
                return Read::Behind(self.position.clone());
            }
        };
        let mut taken = Vec::new();
        let mut next = number;
        for entry in self.entries.range((number - self.first) as usize..) {
            if taken.len() == TAKE {
                break;
            }
            next += 1;
            if entry.offset < reader.at[entry.partition] {
                continue;
            }
            reader.at[entry.partition] = entry.offset + 1;
            if reader.recent.is_new(entry.event.id) {
                taken.push(reader.event_of(entry));
            }
        }
        reader.next = Some(next);
        Read::Events(taken)
    }

    fn drop_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first += 1;
        self.bytes -= entry.bytes;
        self.start[entry.partition] = entry.offset + 1;
        self.ids.remove(&entry.event.id);
    }
}

impl Reader {
    /// Whether the event was not read before, as far as that is remembered.
    pub fn is_new(&mut self, event: Uuid) -> bool {
        self.recent.is_new(event)
    }

    /// The cursor of an event that was just read of a partition.
    pub fn cursor(&self, partition: usize, event: Uuid) -> String {
        let last = Some((partition, mark_of(event)));
        Cursor::Topic(TopicPlace { topic: self.topic, last, at: self.at.clone() }).encode()
    }

    /// The event as this reader sees it: the same for all, but its cursor says what this reader has.
    fn event_of(&self, entry: &Entry) -> Arc<Envelope> {
        // a partition that came later is missing in older entries: nothing of it was read then
        let same = entry.after.len() == self.at.len() && *entry.after == *self.at;
        if same {
            return entry.event.clone();
        }
        let cursor = Some(self.cursor(entry.partition, entry.event.id));
        Arc::new(Envelope { cursor, ..(*entry.event).clone() })
    }
}

/// The ids of the last events.
#[derive(Default)]
struct Recent {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Recent {
    fn is_new(&mut self, id: Uuid) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    fn filled(events_max: usize) -> (Ring, Vec<Arc<Envelope>>) {
        let mut ring = Ring::new(7, vec![10, 20], events_max, usize::MAX);
        let pushed = (0..10).map(|n| {
            let (partition, offset) = (n % 2, if n % 2 == 0 { 10 } else { 20 } + n as i64 / 2);
            ring.push(partition, offset, Some(event(&format!("k{partition}"), n as u64 / 2 + 1)), 100)
                .unwrap()
        });
        let pushed = pushed.collect();
        (ring, pushed)
    }

    /// A place of which nothing is known but its offsets.
    fn at(at: Vec<i64>) -> TopicPlace {
        TopicPlace { at, ..TopicPlace::default() }
    }

    fn read(ring: &Ring, reader: &mut Reader) -> Vec<Arc<Envelope>> {
        match ring.read(reader) {
            Read::Events(events) => events,
            _ => panic!("not in the ring"),
        }
    }

    #[test]
    fn a_reader_gets_what_is_after_its_position_once() {
        let (mut ring, pushed) = filled(100);
        let mut reader = ring.reader(&at(vec![10, 20])).unwrap();
        let all = read(&ring, &mut reader);
        assert!(all.iter().zip(&pushed).all(|(a, b)| Arc::ptr_eq(a, b)), "events are shared");
        assert!(read(&ring, &mut reader).is_empty());
        let next = ring.push(1, 25, Some(event("k1", 6)), 100).unwrap();
        assert!(Arc::ptr_eq(&read(&ring, &mut reader)[0], &next));

        // a position that this ring never had: all of one partition, nothing of the other
        let mut reader = ring.reader(&at(vec![10, 26])).unwrap();
        let seen = read(&ring, &mut reader);
        assert!(seen.iter().all(|event| event.key == "k0") && seen.len() == 5);
        let own = |at: Vec<i64>, event: &Envelope| {
            Some(Cursor::Topic(TopicPlace { topic: 7, last: Some((0, mark_of(event.id))), at }).encode())
        };
        assert_eq!(seen[0].cursor, own(vec![11, 26], &seen[0]), "its own cursor");
        assert_eq!(seen[4].cursor, own(vec![15, 26], &seen[4]));
        let next = ring.push(0, 15, Some(event("k0", 6)), 100).unwrap();
        assert!(Arc::ptr_eq(&read(&ring, &mut reader)[0], &next), "shared again");
    }

    #[test]
    fn what_was_dropped_is_not_skipped() {
        let (ring, _) = filled(4);
        let mut reader = ring.reader(&at(vec![10, 20])).unwrap();
        assert!(matches!(ring.read(&mut reader), Read::Behind(to) if to == [15, 25]));
        assert_eq!(read(&ring, &mut ring.reader(&at(vec![13, 23])).unwrap()).len(), 4);
        assert!(matches!(ring.read(&mut ring.reader(&at(vec![13, 22])).unwrap()), Read::Behind(_)));
        assert!(ring.reader(&at(vec![1, 1, 1])).is_none());

        // a reader that the ring has lapped
        let mut ring = filled(100).0;
        let mut reader = ring.reader(&at(vec![10, 20])).unwrap();
        read(&ring, &mut reader);
        ring.events_max = 2;
        for n in 0..6 {
            ring.push(0, 15 + n, Some(event("k0", 6 + n as u64)), 100);
        }
        assert!(matches!(ring.read(&mut reader), Read::Behind(_)));
        assert_eq!(reader.at, [15, 25]);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut ring = Ring::new(7, vec![0], 1_000, 10_000);
        for n in 0..100 {
            ring.push(0, n, Some(event("k", n as u64 + 1)), 3_000);
        }
        assert!(ring.entries.len() == 3 && ring.bytes <= 10_000);
        ring.push(0, 100, Some(event("k", 101)), 50_000);
        assert_eq!(ring.entries.len(), 1, "the newest stays");
    }

    #[test]
    fn repetitions_and_strangers_are_left_out() {
        let (mut ring, pushed) = filled(100);
        assert!(ring.push(0, 15, Some(pushed[0].as_ref().clone()), 100).is_none());
        assert!(ring.push(0, 16, None, 100).is_none());
        assert_eq!(ring.position(), [17, 25]);
        let mut reader = ring.reader(&at(vec![14, 25])).unwrap();
        assert_eq!(read(&ring, &mut reader).len(), 1);
    }

    #[test]
    fn a_place_tells_its_topic_and_its_last_event() {
        let (mut ring, pushed) = filled(100);
        let place = ring.place();
        assert_eq!(place, TopicPlace { topic: 7, last: Some((1, mark_of(pushed[9].id))), at: vec![15, 25] });
        assert_eq!(pushed[9].cursor, Some(Cursor::Topic(place.clone()).encode()));
        assert_eq!(ring.mark_at(1, 24), Some(mark_of(pushed[9].id)));
        assert_eq!((ring.mark_at(0, 24), ring.mark_at(1, 25)), (None, None));
        assert!(ring.reader(&place).is_some());
        assert!(ring.reader(&TopicPlace { topic: 8, ..place }).is_none(), "a topic that was made anew");
        // what is no event stands behind the last one now, then in the same partition
        ring.push(0, 15, None, 100);
        assert_eq!(ring.place().last, Some((1, mark_of(pushed[9].id))));
        ring.push(1, 25, Some(pushed[0].as_ref().clone()), 100);
        assert_eq!(ring.place().last, None);
        assert!(ring.is_of_another(8) && !ring.is_of_another(7) && !ring.is_of_another(0));
    }

    #[test]
    fn a_gap_ends_readers() {
        let (mut ring, _) = filled(100);
        let mut reader = ring.reader(&at(vec![10, 20])).unwrap();
        read(&ring, &mut reader);
        ring.restart(8, vec![0, 0]);
        assert!(matches!(ring.read(&mut reader), Read::Broken));
        assert!(
            read(&ring, &mut ring.reader(&TopicPlace { topic: 8, ..at(vec![0, 0]) }).unwrap()).is_empty()
        );
    }
}
