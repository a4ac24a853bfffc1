//! The newest events of the feed in memory, in the order in which they arrived here, each with the position after it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use uuid::Uuid;

use super::super::cursor::Cursor;
use crate::domain::event::Envelope;

/// Events that a reader takes at once.
const TAKE: usize = 256;
/// Events whose ids a reader remembers, so that a repetition is noticed.
const REMEMBERED: usize = 10_000;

/// The newest events, as many as fit.
pub struct Ring {
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

/// A reader of the feed with a position of its own, which may be any: cursors of other replicas interleave partitions in another way.
pub struct Reader {
    /// The next offset that it wants of each partition.
    pub at: Vec<i64>,
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
    pub fn new(position: Vec<i64>, events_max: usize, bytes_max: usize) -> Self {
        Self {
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

    /// Notes a record. The event with its cursor, but nothing where the same event is here already: a relay repeats itself after a crash.
    pub fn push(
        &mut self,
        partition: usize,
        offset: i64,
        event: Option<Envelope>,
        bytes: usize,
    ) -> Option<Arc<Envelope>> {
        self.position[partition] = offset + 1;
        let mut event = event.filter(|event| self.ids.insert(event.id))?;
        event.cursor = Some(Cursor::Topic(self.position.clone()).encode());
        let event = Arc::new(event);
        let after = self.position.clone().into_boxed_slice();
        let bytes = bytes + size_of::<Entry>() + size_of_val(&*after);
        self.entries.push_back(Entry { partition, offset, bytes, after, event: event.clone() });
        self.bytes += bytes;
        while self.entries.len() > self.events_max || (self.bytes > self.bytes_max && self.entries.len() > 1) {
            self.drop_first();
        }
        Some(event)
    }

    /// Begins anew after a gap.
    pub fn restart(&mut self, position: Vec<i64>) {
        let generation = self.generation + 1;
        *self = Self { generation, ..Self::new(position, self.events_max, self.bytes_max) };
    }

    /// A new partition: all of it is yet to come.
    pub fn add_partitions(&mut self, partitions: usize) {
        self.start.resize(partitions, 0);
        self.position.resize(partitions, 0);
    }

    /// A reader that begins at a position; none when the position has more partitions than the topic.
    pub fn reader(&self, mut at: Vec<i64>) -> Option<Reader> {
        if at.len() > self.position.len() {
            return None;
        }
        at.resize(self.position.len(), 0);
        Some(Reader { at, generation: self.generation, next: None, recent: Recent::default() })
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

    /// The event as this reader sees it: the same for all, but its cursor says what this reader has.
    fn event_of(&self, entry: &Entry) -> Arc<Envelope> {
        // a partition that came later is missing in older entries: nothing of it was read then
        let same = entry.after.len() == self.at.len() && *entry.after == *self.at;
        if same {
            return entry.event.clone();
        }
        let cursor = Some(Cursor::Topic(self.at.clone()).encode());
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
    use crate::events::testing::event;

    fn filled(events_max: usize) -> (Ring, Vec<Arc<Envelope>>) {
        let mut ring = Ring::new(vec![10, 20], events_max, usize::MAX);
        let pushed = (0..10).map(|n| {
            let (partition, offset) = (n % 2, if n % 2 == 0 { 10 } else { 20 } + n as i64 / 2);
            ring.push(partition, offset, Some(event(&format!("k{partition}"), n as u64 / 2 + 1)), 100).unwrap()
        });
        let pushed = pushed.collect();
        (ring, pushed)
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
        let mut reader = ring.reader(vec![10, 20]).unwrap();
        let all = read(&ring, &mut reader);
        assert!(all.iter().zip(&pushed).all(|(a, b)| Arc::ptr_eq(a, b)), "events are shared");
        assert!(read(&ring, &mut reader).is_empty());
        let next = ring.push(1, 25, Some(event("k1", 6)), 100).unwrap();
        assert!(Arc::ptr_eq(&read(&ring, &mut reader)[0], &next));

        // a position that this ring never had: all of one partition, nothing of the other
        let mut reader = ring.reader(vec![10, 26]).unwrap();
        let seen = read(&ring, &mut reader);
        assert!(seen.iter().all(|event| event.key == "k0") && seen.len() == 5);
        assert_eq!(seen[0].cursor, Some(Cursor::Topic(vec![11, 26]).encode()), "its own cursor");
        assert_eq!(seen[4].cursor, Some(Cursor::Topic(vec![15, 26]).encode()));
        let next = ring.push(0, 15, Some(event("k0", 6)), 100).unwrap();
        assert!(Arc::ptr_eq(&read(&ring, &mut reader)[0], &next), "shared again");
    }

    #[test]
    fn what_was_dropped_is_not_skipped() {
        let (ring, _) = filled(4);
        assert!(matches!(ring.read(&mut ring.reader(vec![10, 20]).unwrap()), Read::Behind(to) if to == [15, 25]));
        assert_eq!(read(&ring, &mut ring.reader(vec![13, 23]).unwrap()).len(), 4);
        assert!(matches!(ring.read(&mut ring.reader(vec![13, 22]).unwrap()), Read::Behind(_)));
        assert!(ring.reader(vec![1, 1, 1]).is_none());

        // a reader that the ring has lapped
        let mut ring = filled(100).0;
        let mut reader = ring.reader(vec![10, 20]).unwrap();
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
        let mut ring = Ring::new(vec![0], 1_000, 10_000);
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
        let mut reader = ring.reader(vec![14, 25]).unwrap();
        assert_eq!(read(&ring, &mut reader).len(), 1);
    }

    #[test]
    fn a_gap_ends_readers() {
        let (mut ring, _) = filled(100);
        let mut reader = ring.reader(vec![10, 20]).unwrap();
        read(&ring, &mut reader);
        ring.restart(vec![0, 0]);
        assert!(matches!(ring.read(&mut reader), Read::Broken));
        assert!(read(&ring, &mut ring.reader(vec![0, 0]).unwrap()).is_empty());
    }
}
