//! SIEVE (Zhang and others, NSDI 2024): a hand goes from the oldest to the newest, spares what was read since
//! it last passed, and takes the first that was not.

use super::{Cells, List, Policy, Slot};

/// One queue in the order of coming, and the hand.
pub struct Sieve {
    queue: List,
    hand: Slot,
}

impl Sieve {
    pub fn new() -> Self {
        Self { queue: List::EMPTY, hand: Slot::NONE }
    }
}

impl Policy for Sieve {
    fn added(&mut self, cells: &mut Cells, slot: Slot, _hash: u64) {
        cells.set_mark(slot, 0);
        self.queue.push(cells, slot);
    }

    fn read(&mut self, cells: &mut Cells, slot: Slot) {
        cells.set_mark(slot, 1);
    }

    fn removing(&mut self, cells: &mut Cells, slot: Slot) {
        if self.hand == slot {
            self.hand = cells.newer(slot);
        }
        self.queue.remove(cells, slot);
    }

    fn moved(&mut self, cells: &mut Cells, from: Slot, to: Slot) {
        if self.hand == from {
            self.hand = to;
        }
        self.queue.moved(cells, to);
    }

    fn victim(&mut self, cells: &mut Cells) -> Option<Slot> {
        let mut at = self.hand.some().or(self.queue.oldest())?;
        while cells.mark(at) != 0 {
            cells.set_mark(at, 0);
            at = cells.newer(at).some().or(self.queue.oldest())?;
        }
        self.hand = at;
        Some(at)
    }

    fn queues(&self) -> Vec<List> {
        vec![self.queue]
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}
