//! Where entries lie: cells of equal size side by side, with no holes, so that what is allocated is what is
//! used.
//!
//! Each class of sizes is a dense array in chunks. A cell that is freed is filled with the last cell of its
//! class, whose slot changes by that; the owner mends what points to it. A slot is 32 bits: the class and the
//! place in it. A cell begins with a header of fixed fields, then the key, then its data.

/// Names a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

/// All cells of one part of a pool.
pub struct Cells {
    classes: Vec<Class>,
    bytes: usize,
    len: usize,
}

/// The bytes of a cell before its key.
pub const HEADER: usize = 19;

struct Class {
    chunks: Vec<Box<[u8]>>,
    len: u32,
    cell: u32,
    /// Cells of a chunk.
    per_chunk: u32,
    /// 2^40 / `per_chunk`, rounded up: what divides by it exactly.
    reciprocal: u64,
}

/// A field of the header.
struct At;

impl At {
    const NEWER: usize = 0;
    const OLDER: usize = 4;
    const FRAME: usize = 8;
    const LOADED: usize = 12;
    const USED: usize = 16;
    const MARK: usize = 18;
    const KEY: usize = HEADER;
}

const PLACE_BITS: u32 = 24;
const CLASS_LEN_MAX: u32 = (1 << PLACE_BITS) - 1;
/// The bytes of a chunk, for cells up to a size: few sizes of chunks, so that one class uses again what
/// another gave back. Greater cells have one each.
const CHUNKS: [(usize, usize); 2] = [(512, 4096 - CHUNK_OVERHEAD), (4096, 32_768 - CHUNK_OVERHEAD)];
/// What the allocator adds to a chunk.
const CHUNK_OVERHEAD: usize = 16;
/// Cells up to this size have a class for each size, then for each fourth up to `FOURTHS_MAX`, then so many
/// for each doubling.
const EXACT_MAX: usize = 64;
const FOURTHS_MAX: usize = 256;
const STEPS: usize = 11;
const CLASSES: usize = 255;

impl Slot {
    /// No cell.
    pub const NONE: Self = Self(u32::MAX);

    /// The cell, unless there is none.
    pub fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }

    fn class(self) -> usize {
        (self.0 >> PLACE_BITS) as usize
    }

    fn place(self) -> u32 {
        self.0 & CLASS_LEN_MAX
    }

    fn new(class: usize, place: u32) -> Self {
        Self((class as u32) << PLACE_BITS | place)
    }
}

impl Cells {
    /// No cells.
    pub fn new() -> Self {
        Self { classes: Vec::new(), bytes: 0, len: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        self.bytes + self.classes.capacity() * size_of::<Class>()
    }

    /// The bytes that are allocated, counted anew.
    pub fn count_bytes(&self) -> usize {
        let class = |class: &Class| {
            let chunks: usize = class.chunks.iter().map(|chunk| chunk.len() + CHUNK_OVERHEAD).sum();
            chunks + class.chunks.capacity() * size_of::<Box<[u8]>>()
        };
        self.classes.iter().map(class).sum::<usize>() + self.classes.capacity() * size_of::<Class>()
    }

    /// Whether a cell of this size lies in the same class as that one.
    pub fn fits(&self, slot: Slot, size: usize) -> bool {
        class_of(size).is_some_and(|(class, _)| class == slot.class())
    }

    /// A new cell of at least this size, its header yet to be written. None where it is too large, or there
    /// are too many.
    pub fn add(&mut self, size: usize) -> Option<Slot> {
        let (index, cell) = class_of(size)?;
        while self.classes.len() <= index {
            self.classes.push(Class { chunks: Vec::new(), len: 0, cell: 0, per_chunk: 0, reciprocal: 0 });
        }
        let class = &mut self.classes[index];
        let chunk = chunk_of(cell);
        if class.cell == 0 {
            class.cell = cell as u32;
            class.per_chunk = (chunk / cell) as u32;
            class.reciprocal = (1u64 << 40).div_ceil(u64::from(class.per_chunk));
        }
        if class.len == CLASS_LEN_MAX {
            return None;
        }
        let place = class.len;
        if class.locate(place).0 == class.chunks.len() {
            let before = class.chunks.capacity();
            class.chunks.push(vec![0; chunk].into());
            self.bytes += (class.chunks.capacity() - before) * size_of::<Box<[u8]>>();
            self.bytes += chunk + CHUNK_OVERHEAD;
        }
        class.len += 1;
        self.len += 1;
        Some(Slot::new(index, place))
    }

    /// Frees a cell that nothing points to. Gives the slot whose cell lies here now, if one had to move.
    pub fn free(&mut self, slot: Slot) -> Option<Slot> {
        let class = &mut self.classes[slot.class()];
        let last = class.len - 1;
        let moved = last != slot.place();
        if moved {
            class.copy(last, slot.place());
        }
        class.len = last;
        self.len -= 1;
        if class.locate(last) == (class.chunks.len() - 1, 0) {
            let chunk = class.chunks.pop().map_or(0, |chunk| chunk.len());
            self.bytes -= chunk + CHUNK_OVERHEAD;
            if class.chunks.len() * 4 < class.chunks.capacity() {
                let before = class.chunks.capacity();
                class.chunks.shrink_to(class.chunks.len() * 2);
                self.bytes -= (before - class.chunks.capacity()) * size_of::<Box<[u8]>>();
            }
        }
        moved.then(|| Slot::new(slot.class(), last))
    }

    /// Copies the header of a cell to another.
    pub fn copy_header(&mut self, from: Slot, to: Slot) {
        let mut header = [0; HEADER];
        header.copy_from_slice(&self.cell(from)[..HEADER]);
        self.cell_mut(to)[..HEADER].copy_from_slice(&header);
    }

    /// Writes key and data.
    pub fn write(&mut self, slot: Slot, key: &[u8], data: &[u8]) {
        let cell = &mut self.cell_mut(slot)[At::KEY..];
        cell[..key.len()].copy_from_slice(key);
        cell[key.len()..key.len() + data.len()].copy_from_slice(data);
    }

    /// The key of a cell, as it was written: its first byte says its length.
    pub fn key(&self, slot: Slot) -> &[u8] {
        let cell = &self.cell(slot)[At::KEY..];
        &cell[..super::key::encoded_len(cell[0])]
    }

    /// The data of a cell, and perhaps some bytes more.
    pub fn data(&self, slot: Slot) -> &[u8] {
        let cell = &self.cell(slot)[At::KEY..];
        &cell[super::key::encoded_len(cell[0])..]
    }

    /// The next cell in its queue towards the newest.
    pub fn newer(&self, slot: Slot) -> Slot {
        Slot(self.read_u32(slot, At::NEWER))
    }

    /// Sets [`Self::newer`].
    pub fn set_newer(&mut self, slot: Slot, to: Slot) {
        self.write_u32(slot, At::NEWER, to.0);
    }

    /// The next cell in its queue towards the oldest.
    pub fn older(&self, slot: Slot) -> Slot {
        Slot(self.read_u32(slot, At::OLDER))
    }

    /// Sets [`Self::older`].
    pub fn set_older(&mut self, slot: Slot, to: Slot) {
        self.write_u32(slot, At::OLDER, to.0);
    }

    /// What the data is: see [`super::partition::Frame`].
    pub fn frame(&self, slot: Slot) -> u32 {
        self.read_u32(slot, At::FRAME)
    }

    /// Sets [`Self::frame`].
    pub fn set_frame(&mut self, slot: Slot, frame: u32) {
        self.write_u32(slot, At::FRAME, frame);
    }

    /// When the data was loaded: the lower 32 bits of the milliseconds.
    pub fn loaded(&self, slot: Slot) -> u32 {
        self.read_u32(slot, At::LOADED)
    }

    /// Sets [`Self::loaded`].
    pub fn set_loaded(&mut self, slot: Slot, loaded: u32) {
        self.write_u32(slot, At::LOADED, loaded);
    }

    /// When it was last read, in ticks.
    pub fn used(&self, slot: Slot) -> u16 {
        let cell = self.cell(slot);
        u16::from_le_bytes([cell[At::USED], cell[At::USED + 1]])
    }

    /// Sets [`Self::used`].
    pub fn set_used(&mut self, slot: Slot, used: u16) {
        self.cell_mut(slot)[At::USED..At::USED + 2].copy_from_slice(&used.to_le_bytes());
    }

    /// What the policy remembers of it.
    pub fn mark(&self, slot: Slot) -> u8 {
        self.cell(slot)[At::MARK]
    }

    /// Sets [`Self::mark`].
    pub fn set_mark(&mut self, slot: Slot, mark: u8) {
        self.cell_mut(slot)[At::MARK] = mark;
    }

    fn read_u32(&self, slot: Slot, at: usize) -> u32 {
        let cell = self.cell(slot);
        u32::from_le_bytes([cell[at], cell[at + 1], cell[at + 2], cell[at + 3]])
    }

    fn write_u32(&mut self, slot: Slot, at: usize, value: u32) {
        self.cell_mut(slot)[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn cell(&self, slot: Slot) -> &[u8] {
        let class = &self.classes[slot.class()];
        let (chunk, at) = class.locate(slot.place());
        &class.chunks[chunk][at..at + class.cell as usize]
    }

    fn cell_mut(&mut self, slot: Slot) -> &mut [u8] {
        let class = &mut self.classes[slot.class()];
        let (chunk, at) = class.locate(slot.place());
        &mut class.chunks[chunk][at..at + class.cell as usize]
    }
}

impl Class {
    fn locate(&self, place: u32) -> (usize, usize) {
        let chunk = ((u64::from(place) * self.reciprocal) >> 40) as u32;
        (chunk as usize, ((place - chunk * self.per_chunk) * self.cell) as usize)
    }

    fn copy(&mut self, from: u32, to: u32) {
        let size = self.cell as usize;
        let ((from_chunk, from_at), (to_chunk, to_at)) = (self.locate(from), self.locate(to));
        if from_chunk == to_chunk {
            self.chunks[to_chunk].copy_within(from_at..from_at + size, to_at);
        } else if let Ok([from, to]) = self.chunks.get_disjoint_mut([from_chunk, to_chunk]) {
            to[to_at..to_at + size].copy_from_slice(&from[from_at..from_at + size]);
        }
    }
}

/// The class of cells of at least this size, and their size.
fn class_of(size: usize) -> Option<(usize, usize)> {
    if size <= EXACT_MAX {
        return Some((size - HEADER, size));
    }
    let exact = EXACT_MAX - HEADER;
    if size <= FOURTHS_MAX {
        let steps = (size - EXACT_MAX).div_ceil(4);
        return Some((exact + steps, EXACT_MAX + steps * 4));
    }
    let fourths = exact + (FOURTHS_MAX - EXACT_MAX) / 4;
    let doubling = ((size - 1) / FOURTHS_MAX).ilog2() as usize;
    let base = FOURTHS_MAX << doubling;
    let steps = ((size - base) * STEPS).div_ceil(base);
    let class = fourths + doubling * STEPS + steps;
    (class < CLASSES).then_some((class, base + (steps * base).div_ceil(STEPS)))
}

/// The bytes of a chunk of cells of this size.
fn chunk_of(cell: usize) -> usize {
    CHUNKS.iter().find(|(largest, _)| cell <= *largest).map_or(cell, |(_, chunk)| *chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_located_exactly() {
        for per_chunk in 1..=200u32 {
            let class = Class {
                chunks: Vec::new(),
                len: 0,
                cell: 3,
                per_chunk,
                reciprocal: (1u64 << 40).div_ceil(u64::from(per_chunk)),
            };
            for place in (0..1_000).chain((0..1 << PLACE_BITS).step_by(9_973)).chain([CLASS_LEN_MAX]) {
                assert_eq!(
                    class.locate(place),
                    ((place / per_chunk) as usize, (place % per_chunk * 3) as usize)
                );
            }
        }
    }

    #[test]
    fn classes_grow_with_size_and_waste_little() {
        let (mut before, mut largest) = ((0, HEADER), 0);
        for size in
            (HEADER..5_000).chain((5_000..200_000).step_by(97)).chain((200_000..20_000_000).step_by(9_973))
        {
            let Some((class, cell)) = class_of(size) else { break };
            assert!(cell >= size && (cell - size) as f64 <= 3.0f64.max(size as f64 / 10.0), "{size}: {cell}");
            assert!((class, cell) >= before && (class == before.0) == (cell == before.1), "{size}");
            (before, largest) = ((class, cell), size);
        }
        assert!(largest > 2 << 20, "records of 2 MiB have a place: {largest}");
    }

    #[test]
    fn freed_cells_leave_no_holes() {
        let mut cells = Cells::new();
        let mut held: Vec<(Slot, u32)> = Vec::new();
        let mut random = 12_345u64;
        for round in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (random >> 33) as usize;
            if held.is_empty() || pick % 5 < 3 {
                let slot = cells.add(HEADER + 4 + pick % 80).unwrap();
                cells.set_frame(slot, round);
                held.push((slot, round));
            } else {
                let (slot, _) = held.swap_remove(pick % held.len());
                if let Some(from) = cells.free(slot) {
                    held.iter_mut().find(|(other, _)| *other == from).unwrap().0 = slot;
                }
            }
            assert_eq!(cells.len(), held.len());
        }
        assert!(held.iter().all(|(slot, content)| cells.frame(*slot) == *content));
        assert_eq!(cells.bytes(), cells.count_bytes());
        while let Some((slot, _)) = held.pop() {
            if let Some(from) = cells.free(slot) {
                held.iter_mut().find(|(other, _)| *other == from).unwrap().0 = slot;
            }
        }
        assert!(cells.bytes() < 24 << 10, "{}", cells.bytes());
    }
}
