//! From keys to cells: linear hashing (Litwin, 1980) with two choices (Azar and others, 1994). The table
//! grows and shrinks by one line at a time, so that no call is slow and no memory lies idle; the second
//! choice evens out that lines not yet divided get twice as many keys.
//!
//! A line is one line of the processor's cache, with a byte of the hash and the slot of each of its cells: a
//! look waits for its two lines, at the same time, then for the cell that it looks for, and hardly ever for
//! another one. Cells lie anywhere, so that each one more would be one more wait for memory.

use super::cells::{Cells, Slot};

/// The lines.
pub struct Index {
    #[expect(clippy::vec_box, reason = "growing moves pointers, not segments")]
    segments: Vec<Box<[Line; SEGMENT]>>,
    lines: u32,
    len: u32,
    /// Cells that found both their lines full, and everybody in them at home: hardly ever any.
    spilt: Vec<Slot>,
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    /// `Slot::NONE` where a place is free.
    slots: [u32; PLACES],
    tags: [u8; PLACES],
}

const PLACES: usize = 12;
const SEGMENT: usize = 16;
/// Cells per line, in the mean, before one is added; or fewer, where a cell found no place. More would save
/// memory and let more cells look for another place.
const LOAD: u32 = 10;
const LOAD_WHERE_SPILT: u32 = 9;
const LINES_MIN: u32 = SEGMENT as u32;
/// What the allocator adds to a segment.
const SEGMENT_OVERHEAD: usize = 16;

impl Index {
    /// No cells.
    pub fn new() -> Self {
        Self { segments: vec![segment()], lines: LINES_MIN, len: 0, spilt: Vec::new() }
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.segments.len() * (size_of::<[Line; SEGMENT]>() + SEGMENT_OVERHEAD)
            + self.segments.capacity() * size_of::<usize>()
            + self.spilt.capacity() * size_of::<Slot>()
    }

    /// The cell of a key.
    pub fn find(&self, cells: &Cells, hash: u64, key: &[u8]) -> Option<Slot> {
        let is = |slot: &Slot| cells.key(*slot) == key;
        let [one, two] = self.choices(hash).map(|number| self.line(number).tagged(tag(hash)));
        one.chain(two).find(is).or_else(|| self.spilt.iter().copied().find(is))
    }

    /// Adds a cell whose key is not there. `hash_of` gives the hash of any key.
    pub fn add(&mut self, cells: &Cells, hash: u64, slot: Slot, hash_of: impl Fn(&[u8]) -> u64) {
        self.place(cells, hash, slot, &hash_of);
        self.len += 1;
        while self.len > self.lines * if self.spilt.is_empty() { LOAD } else { LOAD_WHERE_SPILT } {
            self.split(cells, &hash_of);
        }
    }

    /// Takes a cell out. `hash_of` gives the hash of any key.
    pub fn remove(&mut self, cells: &Cells, hash: u64, slot: Slot, hash_of: impl Fn(&[u8]) -> u64) {
        self.moved(hash, slot, Slot::NONE);
        self.len -= 1;
        if self.lines > LINES_MIN && self.len < self.lines * LOAD / 2 {
            self.merge(cells, &hash_of);
        }
    }

    /// Follows a cell that moved from one slot to another.
    pub fn moved(&mut self, hash: u64, from: Slot, to: Slot) {
        for number in self.choices(hash) {
            let line = self.line_mut(number);
            if let Some(at) = line.slots.iter().position(|slot| *slot == from.0) {
                line.slots[at] = to.0;
                return;
            }
        }
        if let Some(at) = self.spilt.iter().position(|slot| *slot == from) {
            match to.some() {
                Some(to) => self.spilt[at] = to,
                None => _ = self.spilt.swap_remove(at),
            }
        }
    }

    /// The cells of so many lines below the given one, which is `u32::MAX` at first; the answer is the line
    /// to go on with, if any. Cells may be removed between the calls and none is missed by that: a line that
    /// goes is the last. Cells that are added meanwhile may push others to where the walk was.
    pub fn walk(&self, below: u32, lines: u32, mut visit: impl FnMut(Slot)) -> Option<u32> {
        let below = below.min(self.lines);
        let end = below.saturating_sub(lines);
        (end..below).flat_map(|number| self.line(number).all()).for_each(&mut visit);
        if end > 0 {
            return Some(end);
        }
        self.spilt.iter().copied().for_each(visit);
        None
    }

    /// Puts a cell into the emptier of its lines; where both are full, into the place of one that can go to
    /// its other line.
    fn place(&mut self, cells: &Cells, hash: u64, slot: Slot, hash_of: &impl Fn(&[u8]) -> u64) {
        let choices = self.choices(hash);
        let [one, two] = choices.map(|number| self.line(number).len());
        let emptier = if one <= two { choices[0] } else { choices[1] };
        if self.line_mut(emptier).put(tag(hash), slot) {
            return;
        }
        for number in choices {
            for other in self.line(number).all() {
                let hash_of_other = hash_of(cells.key(other));
                let elsewhere = self.choices(hash_of_other).into_iter().find(|choice| *choice != number);
                if elsewhere.is_some_and(|elsewhere| self.line_mut(elsewhere).put(tag(hash_of_other), other))
                {
                    let line = self.line_mut(number);
                    line.clear(other);
                    line.put(tag(hash), slot);
                    return;
                }
            }
        }
        self.spilt.push(slot);
    }

    fn split(&mut self, cells: &Cells, hash_of: &impl Fn(&[u8]) -> u64) {
        let new = self.lines;
        if new as usize == self.segments.len() * SEGMENT {
            self.segments.push(segment());
        }
        self.lines += 1;
        self.place_anew(cells, new - top_bit(new), hash_of);
    }

    fn merge(&mut self, cells: &Cells, hash_of: &impl Fn(&[u8]) -> u64) {
        self.lines -= 1;
        self.place_anew(cells, self.lines, hash_of);
        // A segment to spare, so that one more and one less does not allocate each time.
        if self.segments.len() * SEGMENT > self.lines as usize + 2 * SEGMENT {
            self.segments.pop();
            self.segments.shrink_to(self.segments.len() * 2);
        }
    }

    /// Empties a line and puts its cells where they belong now, and those that were spilt.
    fn place_anew(&mut self, cells: &Cells, number: u32, hash_of: &impl Fn(&[u8]) -> u64) {
        let line = std::mem::replace(self.line_mut(number), Line::EMPTY);
        for slot in line.all().chain(std::mem::take(&mut self.spilt)) {
            self.place(cells, hash_of(cells.key(slot)), slot, hash_of);
        }
    }

    /// The two lines of a hash, which may be the same.
    fn choices(&self, hash: u64) -> [u32; 2] {
        // The part of the pool is chosen by other bits: all are mixed in.
        let second = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        [self.number(hash as u32), self.number(second)]
    }

    fn number(&self, hash: u32) -> u32 {
        let top = top_bit(self.lines);
        let wide = hash & (2 * top - 1);
        if wide < self.lines { wide } else { hash & (top - 1) }
    }

    fn line(&self, number: u32) -> &Line {
        &self.segments[number as usize / SEGMENT][number as usize % SEGMENT]
    }

    fn line_mut(&mut self, number: u32) -> &mut Line {
        &mut self.segments[number as usize / SEGMENT][number as usize % SEGMENT]
    }
}

impl Line {
    const EMPTY: Self = Self { slots: [Slot::NONE.0; PLACES], tags: [0; PLACES] };

    fn len(&self) -> usize {
        self.slots.iter().map(|slot| usize::from(*slot != Slot::NONE.0)).sum()
    }

    fn all(&self) -> impl Iterator<Item = Slot> + use<> {
        self.slots.into_iter().filter_map(|slot| Slot(slot).some())
    }

    /// The cells with this tag.
    fn tagged(&self, tag: u8) -> impl Iterator<Item = Slot> + '_ {
        let same = |sum: u32, (at, other): (usize, &u8)| sum | u32::from(*other == tag) << at;
        let mut left = self.tags.iter().enumerate().fold(0, same);
        let next = move || {
            let at = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (at < u32::BITS).then(|| Slot(self.slots[at as usize]))
        };
        std::iter::from_fn(next).filter_map(Slot::some)
    }

    /// Puts a cell into a free place. False where there is none.
    fn put(&mut self, tag: u8, slot: Slot) -> bool {
        let free = self.slots.iter().position(|slot| *slot == Slot::NONE.0);
        if let Some(at) = free {
            (self.slots[at], self.tags[at]) = (slot.0, tag);
        }
        free.is_some()
    }

    fn clear(&mut self, slot: Slot) {
        self.slots.iter_mut().filter(|other| **other == slot.0).for_each(|other| *other = Slot::NONE.0);
    }
}

fn segment() -> Box<[Line; SEGMENT]> {
    Box::new([Line::EMPTY; SEGMENT])
}

/// A byte of the hash that lines are not chosen by.
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// The greatest power of two that is not above a number above 0.
fn top_bit(number: u32) -> u32 {
    1 << number.ilog2()
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::memory::{cells::HEADER, key::CellKey};

    fn key(n: u32) -> CellKey {
        CellKey::new(&format!("key-{n}").parse().unwrap())
    }

    fn walked(index: &Index) -> usize {
        let (mut seen, mut next) = (0, Some(u32::MAX));
        while let Some(below) = next {
            next = index.walk(below, 7, |_| seen += 1);
        }
        seen
    }

    #[test]
    fn every_key_is_found_while_the_table_grows_and_shrinks() {
        let (mut cells, mut index) = (Cells::new(), Index::new());
        let mut slots = Vec::new();
        let found = |cells: &Cells, index: &Index, n: u32| {
            index.find(cells, xxh3_64(key(n).as_bytes()), key(n).as_bytes())
        };
        for n in 0..20_000 {
            let key = key(n);
            let slot = cells.add(HEADER + 20).unwrap();
            cells.write(slot, key.as_bytes(), &[]);
            index.add(&cells, xxh3_64(key.as_bytes()), slot, xxh3_64);
            slots.push(slot);
            assert!(index.spilt.is_empty(), "{} of {n} keys found no place", index.spilt.len());
            assert!(index.lines <= LINES_MIN.max(n / LOAD_WHERE_SPILT), "{} lines for {n} keys", index.lines);
            assert_eq!(found(&cells, &index, n / 2), Some(slots[n as usize / 2]));
        }
        assert_eq!(walked(&index), 20_000);
        assert!((0..20_000).all(|n| found(&cells, &index, n) == Some(slots[n as usize])));
        for n in (0..20_000).filter(|n| n % 100 != 3) {
            index.remove(&cells, xxh3_64(key(n).as_bytes()), slots[n as usize], xxh3_64);
            assert_eq!(found(&cells, &index, n / 200 * 100 + 3), Some(slots[n as usize / 200 * 100 + 3]));
        }
        assert!((0..20_000).all(|n| found(&cells, &index, n).is_some() == (n % 100 == 3)));
        assert!(index.lines < 50 && index.bytes() < 7_000, "{} {}", index.lines, index.bytes());
        assert_eq!(walked(&index), 200);
    }

    #[test]
    fn keys_that_find_no_place_are_spilt_and_found() {
        // All of one hash: its lines hold 24, or 12 where both are one.
        let (mut cells, mut index) = (Cells::new(), Index::new());
        let slots: Vec<_> = (0..40)
            .map(|n| {
                let slot = cells.add(HEADER + 20).unwrap();
                cells.write(slot, key(n).as_bytes(), &[]);
                index.add(&cells, 7, slot, |_| 7);
                slot
            })
            .collect();
        assert!(index.spilt.len() >= 16, "{}", index.spilt.len());
        let found = |index: &Index, n: u32| index.find(&cells, 7, key(n).as_bytes());
        assert!((0..40).all(|n| found(&index, n) == Some(slots[n as usize])));
        assert_eq!(walked(&index), 40);
        for n in 0..40 {
            index.remove(&cells, 7, slots[n as usize], |_| 7);
            assert!((0..40).all(|m| found(&index, m).is_some() == (m > n)));
        }
        assert_eq!((walked(&index), index.spilt.len()), (0, 0));
    }
}
