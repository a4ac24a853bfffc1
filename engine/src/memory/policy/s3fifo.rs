//! S3-FIFO (Yang and others, SOSP 2023): new entries pass a small queue, those read meanwhile go on to the
//! main queue, the others leave a ghost behind, and what comes back while its ghost is there goes to the main
//! queue at once.

use super::{Cells, List, Policy, Slot, ghost::Ghost};

/// Two queues and the ghosts. The mark of a cell holds its reads, up to `READS_MAX`, and whether it is in the
/// main queue.
pub struct S3Fifo {
    small: List,
    main: List,
    ghost: Ghost,
}

const READS_MAX: u8 = 3;
const IN_MAIN: u8 = 128;
/// One in so many entries is in the small queue.
const SMALL_PART: usize = 10;

impl S3Fifo {
    pub fn new() -> Self {
        Self { small: List::EMPTY, main: List::EMPTY, ghost: Ghost::new() }
    }

    fn queue(&mut self, mark: u8) -> &mut List {
        if mark & IN_MAIN == 0 { &mut self.small } else { &mut self.main }
    }

    /// Ghosts are kept of as many entries as the main queue is to hold.
    fn span(&self) -> usize {
        let entries = self.small.len() + self.main.len();
        entries - entries / SMALL_PART
    }

    fn move_to_main(&mut self, cells: &mut Cells, slot: Slot, reads: u8) {
        self.queue(cells.mark(slot)).remove(cells, slot);
        cells.set_mark(slot, IN_MAIN | reads);
        self.main.push(cells, slot);
    }
}

impl Policy for S3Fifo {
    fn added(&mut self, cells: &mut Cells, slot: Slot, hash: u64) {
        let mark = if self.ghost.take(hash) { IN_MAIN } else { 0 };
        cells.set_mark(slot, mark);
        self.queue(mark).push(cells, slot);
    }

    fn read(&mut self, cells: &mut Cells, slot: Slot) {
        let mark = cells.mark(slot);
        if mark & READS_MAX < READS_MAX {
            cells.set_mark(slot, mark + 1);
        }
    }

    fn removing(&mut self, cells: &mut Cells, slot: Slot) {
        self.queue(cells.mark(slot)).remove(cells, slot);
    }

    fn moved(&mut self, cells: &mut Cells, _from: Slot, to: Slot) {
        self.queue(cells.mark(to)).moved(cells, to);
    }

    fn victim(&mut self, cells: &mut Cells) -> Option<Slot> {
        loop {
            let from_small = self.small.len() * SMALL_PART >= self.small.len() + self.main.len();
            let slot = if from_small { self.small.oldest()? } else { self.main.oldest()? };
            let reads = cells.mark(slot) & READS_MAX;
            match (from_small, reads) {
                (true, 0 | 1) | (false, 0) => return Some(slot),
                (true, _) => self.move_to_main(cells, slot, 0),
                (false, _) => self.move_to_main(cells, slot, reads - 1),
            }
        }
    }

    fn evicting(&mut self, cells: &Cells, slot: Slot, hash: u64) {
        if cells.mark(slot) & IN_MAIN == 0 {
            self.ghost.add(hash, self.span());
        }
    }

    fn queues(&self) -> Vec<List> {
        vec![self.main, self.small]
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.ghost.bytes()
    }

    fn reserved(&self) -> usize {
        self.ghost.reserved(self.span())
    }
}
