//! Least frequently used: the fewest reads, and among equals the one that has had that many for longest.

use super::{Cells, List, Policy, Slot};

/// A queue for each number of reads up to `READS_MAX`, above which no difference is made; the number is the
/// cell's mark.
pub struct Lfu {
    queues: Box<[List; READS_MAX + 1]>,
    /// A bit for each queue that is not empty.
    used: [u64; (READS_MAX + 1) / 64],
}

const READS_MAX: usize = 255;

impl Lfu {
    pub fn new() -> Self {
        Self { queues: Box::new([List::EMPTY; READS_MAX + 1]), used: [0; (READS_MAX + 1) / 64] }
    }

    fn push(&mut self, cells: &mut Cells, slot: Slot, reads: usize) {
        cells.set_mark(slot, reads as u8);
        self.queues[reads].push(cells, slot);
        self.used[reads / 64] |= 1 << (reads % 64);
    }

    fn take(&mut self, cells: &mut Cells, slot: Slot) -> usize {
        let reads = usize::from(cells.mark(slot));
        self.queues[reads].remove(cells, slot);
        if self.queues[reads].len() == 0 {
            self.used[reads / 64] &= !(1 << (reads % 64));
        }
        reads
    }
}

impl Policy for Lfu {
    fn added(&mut self, cells: &mut Cells, slot: Slot, _hash: u64) {
        self.push(cells, slot, 0);
    }

    fn read(&mut self, cells: &mut Cells, slot: Slot) {
        let reads = self.take(cells, slot);
        self.push(cells, slot, READS_MAX.min(reads + 1));
    }

    fn removing(&mut self, cells: &mut Cells, slot: Slot) {
        self.take(cells, slot);
    }

    fn moved(&mut self, cells: &mut Cells, _from: Slot, to: Slot) {
        self.queues[usize::from(cells.mark(to))].moved(cells, to);
    }

    fn victim(&mut self, _cells: &mut Cells) -> Option<Slot> {
        let word = self.used.iter().position(|word| *word != 0)?;
        self.queues[word * 64 + self.used[word].trailing_zeros() as usize].oldest()
    }

    fn queues(&self) -> Vec<List> {
        self.queues.iter().rev().filter(|queue| queue.len() > 0).copied().collect()
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of::<[List; READS_MAX + 1]>()
    }
}
