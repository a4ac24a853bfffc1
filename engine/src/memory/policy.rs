//! Which entry leaves: one trait, five policies. Each keeps its order in the headers of the cells and a byte
//! of its own in each.

mod fifo;
mod ghost;
mod lfu;
mod lru;
mod s3fifo;
mod sieve;

use super::Policy as Kind;
use super::{
    cells::{Cells, Slot},
    list::List,
};

/// The order in which the entries of one part of a pool leave.
pub trait Policy: Send {
    /// A cell came.
    fn added(&mut self, cells: &mut Cells, slot: Slot, hash: u64);

    /// A cell was read.
    fn read(&mut self, cells: &mut Cells, slot: Slot);

    /// A cell is about to go, whatever the reason.
    fn removing(&mut self, cells: &mut Cells, slot: Slot);

    /// A cell moved, with its header.
    fn moved(&mut self, cells: &mut Cells, from: Slot, to: Slot);

    /// The cell that is to leave next. It stays until it is removed.
    fn victim(&mut self, cells: &mut Cells) -> Option<Slot>;

    /// The cell that [`Self::victim`] chose is about to be evicted.
    fn evicting(&mut self, _cells: &Cells, _slot: Slot, _hash: u64) {}

    /// The queues, those that stay longest first.
    fn queues(&self) -> Vec<List>;

    /// Bytes that it has allocated.
    fn bytes(&self) -> usize;

    /// Bytes that it will allocate beside those once entries are evicted: room that is not to be filled
    /// before.
    fn reserved(&self) -> usize {
        0
    }
}

/// A policy by its name.
pub fn of(kind: Kind) -> Box<dyn Policy> {
    match kind {
        Kind::Lru => Box::new(lru::Lru::new()),
        Kind::Lfu => Box::new(lfu::Lfu::new()),
        Kind::Fifo => Box::new(fifo::Fifo::new()),
        Kind::S3Fifo => Box::new(s3fifo::S3Fifo::new()),
        Kind::Sieve => Box::new(sieve::Sieve::new()),
    }
}
