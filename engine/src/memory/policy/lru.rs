//! Least recently used.

use super::{Cells, List, Policy, Slot};

/// One queue; a read brings to its front.
pub struct Lru(List);

impl Lru {
    pub fn new() -> Self {
        Self(List::EMPTY)
    }
}

impl Policy for Lru {
    fn added(&mut self, cells: &mut Cells, slot: Slot, _hash: u64) {
        self.0.push(cells, slot);
    }

    fn read(&mut self, cells: &mut Cells, slot: Slot) {
        if self.0.newest() != Some(slot) {
            self.0.remove(cells, slot);
            self.0.push(cells, slot);
        }
    }

    fn removing(&mut self, cells: &mut Cells, slot: Slot) {
        self.0.remove(cells, slot);
    }

    fn moved(&mut self, cells: &mut Cells, _from: Slot, to: Slot) {
        self.0.moved(cells, to);
    }

    fn victim(&mut self, _cells: &mut Cells) -> Option<Slot> {
        self.0.oldest()
    }

    fn queues(&self) -> Vec<List> {
        vec![self.0]
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}
