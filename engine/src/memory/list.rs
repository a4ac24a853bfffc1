//! A queue of cells, newest first, linked through their headers.

use super::cells::{Cells, Slot};

/// The ends of a queue.
#[derive(Clone, Copy)]
pub struct List {
    newest: Slot,
    oldest: Slot,
    len: usize,
}

impl List {
    /// An empty queue.
    pub const EMPTY: Self = Self { newest: Slot::NONE, oldest: Slot::NONE, len: 0 };

    /// How many cells are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The cell that came last.
    pub fn newest(&self) -> Option<Slot> {
        self.newest.some()
    }

    /// The cell that came first.
    pub fn oldest(&self) -> Option<Slot> {
        self.oldest.some()
    }

    /// Puts a cell in as the newest.
    pub fn push(&mut self, cells: &mut Cells, slot: Slot) {
        cells.set_newer(slot, Slot::NONE);
        cells.set_older(slot, self.newest);
        match self.newest.some() {
            Some(next) => cells.set_newer(next, slot),
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.len += 1;
    }

    /// Takes a cell out that is in it.
    pub fn remove(&mut self, cells: &mut Cells, slot: Slot) {
        let (newer, older) = (cells.newer(slot), cells.older(slot));
        self.join(cells, newer, older, older, newer);
        self.len -= 1;
    }

    /// Follows a cell that moved with its header.
    pub fn moved(&mut self, cells: &mut Cells, to: Slot) {
        let (newer, older) = (cells.newer(to), cells.older(to));
        self.join(cells, newer, older, to, to);
    }

    /// Lets the newer neighbour (or the end) point to `below`, and the older one to `above`.
    fn join(&mut self, cells: &mut Cells, newer: Slot, older: Slot, below: Slot, above: Slot) {
        match newer.some() {
            Some(newer) => cells.set_older(newer, below),
            None => self.newest = below,
        }
        match older.some() {
            Some(older) => cells.set_newer(older, above),
            None => self.oldest = above,
        }
    }
}
