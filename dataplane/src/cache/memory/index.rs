//! From keys to cells: linear hashing (Litwin, 1980). The table grows and shrinks by one bucket at a time, so that no call is slow and no memory lies idle.
//! The cells of a bucket are chained through their headers.

use super::cells::{Cells, Slot};

/// The buckets.
pub struct Index {
    #[expect(clippy::vec_box, reason = "growing moves pointers, not segments")]
    segments: Vec<Box<[u32; SEGMENT]>>,
    buckets: u32,
    len: u32,
}

const SEGMENT: usize = 256;
/// Cells per bucket, at most in the mean: more saves memory and costs looks at other cells.
const LOAD: u32 = 2;
const BUCKETS_MIN: u32 = 16;

impl Index {
    /// No cells.
    pub fn new() -> Self {
        Self { segments: vec![Box::new([u32::MAX; SEGMENT])], buckets: BUCKETS_MIN, len: 0 }
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.segments.len() * (SEGMENT * 4 + 16) + self.segments.capacity() * size_of::<usize>()
    }

    /// The cell of a key.
    pub fn find(&self, cells: &Cells, hash: u64, key: &[u8]) -> Option<Slot> {
        let mut slot = self.head(self.bucket(hash));
        while slot != Slot::NONE && cells.key(slot) != key {
            slot = cells.chain(slot);
        }
        slot.some()
    }

    /// Adds a cell whose key is not there. `hash_of` gives the hash of any key.
    pub fn add(&mut self, cells: &mut Cells, hash: u64, slot: Slot, hash_of: impl Fn(&[u8]) -> u64) {
        self.link(cells, self.bucket(hash), slot);
        self.len += 1;
        if self.len > self.buckets * LOAD {
            self.split(cells, hash_of);
        }
    }

    /// Takes a cell out.
    pub fn remove(&mut self, cells: &mut Cells, hash: u64, slot: Slot) {
        let next = cells.chain(slot);
        self.redirect(cells, hash, slot, next);
        self.len -= 1;
        if self.buckets > BUCKETS_MIN && self.len < self.buckets * LOAD / 2 {
            self.merge(cells);
        }
    }

    /// Follows a cell that moved, with its header, from one slot to another.
    pub fn moved(&mut self, cells: &mut Cells, hash: u64, from: Slot, to: Slot) {
        self.redirect(cells, hash, from, to);
    }

    /// The cells of so many buckets below the given one, which is `u32::MAX` at first; the answer is the bucket to go on with, if any. Cells may be removed
    /// between the calls and none is missed by that: a bucket that goes is the last, and is emptied into one further down.
    pub fn walk(&self, cells: &Cells, below: u32, buckets: u32, mut visit: impl FnMut(Slot)) -> Option<u32> {
        let below = below.min(self.buckets);
        let end = below.saturating_sub(buckets);
        for bucket in end..below {
            let mut slot = self.head(bucket);
            while slot != Slot::NONE {
                visit(slot);
                slot = cells.chain(slot);
            }
        }
        (end > 0).then_some(end)
    }

    /// Makes whatever points to `from` point to `to`.
    fn redirect(&mut self, cells: &mut Cells, hash: u64, from: Slot, to: Slot) {
        let bucket = self.bucket(hash);
        let mut at = self.head(bucket);
        if at == from {
            return self.set_head(bucket, to);
        }
        while at != Slot::NONE {
            let next = cells.chain(at);
            if next == from {
                return cells.set_chain(at, to);
            }
            at = next;
        }
    }

    fn split(&mut self, cells: &mut Cells, hash_of: impl Fn(&[u8]) -> u64) {
        let new = self.buckets;
        if new as usize == self.segments.len() * SEGMENT {
            self.segments.push(Box::new([u32::MAX; SEGMENT]));
        }
        let old = new - top_bit(new);
        self.buckets += 1;
        let mut slot = self.head(old);
        self.set_head(old, Slot::NONE);
        self.set_head(new, Slot::NONE);
        while slot != Slot::NONE {
            let next = cells.chain(slot);
            let bucket = self.bucket(hash_of(cells.key(slot)));
            self.link(cells, bucket, slot);
            slot = next;
        }
    }

    fn merge(&mut self, cells: &mut Cells) {
        let last = self.buckets - 1;
        let into = last - top_bit(last);
        let mut slot = self.head(last);
        while slot != Slot::NONE {
            let next = cells.chain(slot);
            self.link(cells, into, slot);
            slot = next;
        }
        self.set_head(last, Slot::NONE);
        self.buckets = last;
        // A segment to spare, so that one more and one less does not allocate each time.
        if self.segments.len() * SEGMENT > self.buckets as usize + 2 * SEGMENT {
            self.segments.pop();
            self.segments.shrink_to(self.segments.len() * 2);
        }
    }

    fn link(&mut self, cells: &mut Cells, bucket: u32, slot: Slot) {
        cells.set_chain(slot, self.head(bucket));
        self.set_head(bucket, slot);
    }

    fn bucket(&self, hash: u64) -> u32 {
        let hash = hash as u32;
        let top = top_bit(self.buckets);
        let wide = hash & (2 * top - 1);
        if wide < self.buckets { wide } else { hash & (top - 1) }
    }

    fn head(&self, bucket: u32) -> Slot {
        Slot(self.segments[bucket as usize / SEGMENT][bucket as usize % SEGMENT])
    }

    fn set_head(&mut self, bucket: u32, slot: Slot) {
        self.segments[bucket as usize / SEGMENT][bucket as usize % SEGMENT] = slot.0;
    }
}

/// The greatest power of two that is not above a number above 0.
fn top_bit(number: u32) -> u32 {
    1 << number.ilog2()
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::cache::memory::key::CellKey;

    fn key(n: u32) -> CellKey {
        CellKey::new(&format!("key-{n}").parse().unwrap())
    }

    #[test]
    fn every_key_is_found_while_the_table_grows_and_shrinks() {
        let (mut cells, mut index) = (Cells::new(), Index::new());
        let mut slots = Vec::new();
        for n in 0..3_000 {
            let key = key(n);
            let slot = cells.add(super::super::cells::HEADER + 20).unwrap();
            cells.write(slot, key.as_bytes(), &[]);
            index.add(&mut cells, xxh3_64(key.as_bytes()), slot, xxh3_64);
            slots.push(slot);
        }
        assert_eq!(index.buckets, 1_500);
        let found =
            |cells: &Cells, index: &Index, n: u32| index.find(cells, xxh3_64(key(n).as_bytes()), key(n).as_bytes());
        assert!((0..3_000).all(|n| found(&cells, &index, n) == Some(slots[n as usize])));
        for n in (0..3_000).filter(|n| n % 10 != 3) {
            index.remove(&mut cells, xxh3_64(key(n).as_bytes()), slots[n as usize]);
        }
        assert!((0..3_000).all(|n| found(&cells, &index, n).is_some() == (n % 10 == 3)));
        assert!(index.buckets < 400 && index.bytes() < 8_000, "{} {}", index.buckets, index.bytes());
        let (mut seen, mut next) = (0, Some(u32::MAX));
        while let Some(below) = next {
            next = index.walk(&cells, below, 7, |_| seen += 1);
        }
        assert_eq!(seen, 300);
    }
}
