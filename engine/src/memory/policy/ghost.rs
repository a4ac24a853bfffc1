//! Ghosts: which keys left lately, in four bytes each, as half a hash and the time of leaving.

use std::ops::Range;

/// The keys that left last, as many as the main queue holds. Time is counted in departures.
pub struct Ghost {
    /// Made when they are first used, so that the table grows as entries leave and can take their room.
    segments: Vec<Option<Box<[u32; SEGMENT]>>>,
    made: usize,
    span: usize,
    clock: u64,
}

const BUCKET: usize = 8;
/// A whole number of buckets in a page less what the allocator adds.
const SEGMENT: usize = 1016;
/// Departures are told apart to this part of the span.
const TICKS_PER_SPAN: u64 = 16_384;
const SPAN_MIN: usize = 16;

impl Ghost {
    /// No ghosts.
    pub fn new() -> Self {
        Self { segments: Vec::new(), made: 0, span: 0, clock: 0 }
    }

    /// Remembers a key until `span` others have left. Where the span has doubled or halved since the start,
    /// all are forgotten.
    pub fn add(&mut self, hash: u64, span: usize) {
        let span = span.max(SPAN_MIN);
        if self.span == 0 || span > self.span * 2 || span * 2 < self.span {
            let segments = std::iter::repeat_with(|| None).take(segments(span)).collect();
            *self = Self { segments, made: 0, span, clock: 0 };
        }
        self.clock += 1;
        let (now, mark) = (self.now(), mark(hash));
        let clock = self.age_of();
        let (segment, places) = self.bucket(hash);
        let segment = self.segments[segment].get_or_insert_with(|| {
            self.made += 1;
            Box::new([0; SEGMENT])
        });
        let bucket = &mut segment[places];
        // The place of the same key, else a free one, else that of the one that left first.
        let place = bucket.iter_mut().max_by_key(|slot| match **slot {
            0 => u64::MAX - 1,
            taken if taken >> 16 == mark => u64::MAX,
            taken => clock(taken),
        });
        if let Some(place) = place {
            *place = mark << 16 | now;
        }
    }

    /// Whether a key is remembered; it is not from then on.
    pub fn take(&mut self, hash: u64) -> bool {
        if self.segments.is_empty() {
            return false;
        }
        let (age, mark) = (self.age_of(), mark(hash));
        let (segment, places) = self.bucket(hash);
        let Some(segment) = &mut self.segments[segment] else { return false };
        let found = segment[places]
            .iter_mut()
            .find(|slot| **slot != 0 && **slot >> 16 == mark && age(**slot) <= TICKS_PER_SPAN);
        found.map(|slot| *slot = 0).is_some()
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.segments.capacity() * size_of::<usize>() + self.made * (SEGMENT * 4 + 16)
    }

    /// Bytes that are not yet allocated for such a span.
    pub fn reserved(&self, span: usize) -> usize {
        segments(span.max(self.span)).saturating_sub(self.made) * (SEGMENT * 4 + 16)
    }

    /// The segment of a hash, and the places in it.
    fn bucket(&self, hash: u64) -> (usize, Range<usize>) {
        let buckets = (self.segments.len() * SEGMENT / BUCKET) as u64;
        let at = (((hash & 0xffff_ffff) * buckets) >> 32) as usize * BUCKET;
        (at / SEGMENT, at % SEGMENT..at % SEGMENT + BUCKET)
    }

    fn now(&self) -> u32 {
        (self.clock * TICKS_PER_SPAN / self.span as u64) as u32 & 0xffff
    }

    /// The age of a slot, in ticks.
    fn age_of(&self) -> impl Fn(u32) -> u64 + use<> {
        let now = self.now();
        move |slot| u64::from(now.wrapping_sub(slot & 0xffff) & 0xffff)
    }
}

/// The segments of a table for a span, a quarter of it free.
fn segments(span: usize) -> usize {
    (span * 4 / 3).div_ceil(SEGMENT)
}

/// Half a hash, never 0.
fn mark(hash: u64) -> u32 {
    ((hash >> 40) as u32 & 0xffff).max(1)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    #[test]
    fn the_last_to_leave_are_remembered_and_those_before_are_not() {
        let mut ghost = Ghost::new();
        (0..10_000).for_each(|n| ghost.add(hash(n), 1_000));
        let remembered = |ghost: &mut Ghost, keys: Range<u64>| keys.filter(|n| ghost.take(hash(*n))).count();
        let recent = remembered(&mut ghost, 9_001..10_000);
        let before = remembered(&mut ghost, 0..8_990);
        assert!(recent > 900, "{recent}");
        assert!(before < 20, "{before}");
        assert_eq!(remembered(&mut ghost, 9_001..10_000), 0, "each comes back once");
    }
}
