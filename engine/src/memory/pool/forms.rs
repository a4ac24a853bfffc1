//! The forms of a pool's entries: from records to compact bytes in a shape, with their shared state in the
//! interner, and from those to what is served.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Pool;
use crate::{
    Cached, Entry,
    flyweight::{
        codec::Split,
        interner::Interner,
        roles::Roles,
        shape::Shape,
        tags::{TagReader, TagWriter},
    },
    memory::partition::Frame,
};
use model::{
    key::{Key, Version},
    record::{Lookup, Record},
};

/// An entry in its compact form, holding its shared state.
pub(super) struct Packed {
    pub(super) version: Version,
    pub(super) frame: Frame,
    pub(super) data: Vec<u8>,
}

/// The number of the shape that shares nothing.
pub(super) const UNSHARED: u16 = 0;

impl Pool {
    /// Samples the record for the choice of roles.
    pub(super) fn observe(&self, hash: u64, record: &Record) {
        let entities = self.entities();
        if !Roles::wants(hash, entities) {
            return;
        }
        let mut roles = self.roles.lock();
        let before = roles.bytes() as u64;
        let split = roles.observe(hash, record, entities);
        self.figures.bytes.fetch_add((roles.bytes() as u64).wrapping_sub(before), Ordering::Relaxed);
        drop(roles);
        split.into_iter().for_each(|split| self.use_split(split));
    }

    /// Uses a split for new entries from now on.
    pub(super) fn use_split(&self, split: Split) {
        for (number, shape) in self.shapes.iter().enumerate() {
            let mut fresh = 0;
            let shape = shape.get_or_init(|| {
                let shape = Shape::new(self.schema.clone(), split);
                fresh = shape.bytes() as u64;
                shape
            });
            self.figures.bytes.fetch_add(fresh, Ordering::Relaxed);
            if shape.split() == split {
                return self.shape.store(number as u16, Ordering::Relaxed);
            }
        }
    }

    fn shape(&self, number: u16) -> Option<&Shape> {
        self.shapes.get(usize::from(number))?.get()
    }

    /// The compact form of an entry. None where a value is not of its field's kind.
    pub(super) fn pack(&self, found: &Lookup, interner: &Interner) -> Option<Packed> {
        let mut data = Vec::with_capacity(64);
        let record = match found {
            Lookup::Found(record) => record,
            Lookup::Deleted(version) => return Some(Packed::absent(*version)),
            Lookup::Missing => return Some(Packed::absent(Version(0))),
            Lookup::Unreadable(_) => return None,
        };
        let number = self.shape.load(Ordering::Relaxed);
        let shape = self.shape(number)?;
        let mut frame = Frame::Unshared { shape: UNSHARED };
        if !shape.split().is_none() {
            let shared = shape.shared(record);
            let owner = u32::from(self.number) << 16 | u32::from(number);
            if let Some(interned) = interner.intern(owner, shared.as_bytes()) {
                frame = Frame::Shared { index: interned.handle.index };
                self.figures.referred_bytes.fetch_add(shared.len() as u64, Ordering::Relaxed);
                if interned.fresh {
                    self.figures.distinct.fetch_add(1, Ordering::Relaxed);
                    self.figures.stored_bytes.fetch_add(interner.cost(shared.len()), Ordering::Relaxed);
                }
            }
        }
        let shape =
            if frame == (Frame::Unshared { shape: UNSHARED }) { self.shape(UNSHARED)? } else { shape };
        if shape.pack(record, &mut data).is_err() {
            self.release(frame, interner);
            return None;
        }
        Some(Packed { version: record.version, frame, data })
    }

    /// Gives up the shared state of an entry that is no more.
    pub(super) fn release(&self, frame: Frame, interner: &Interner) {
        let Frame::Shared { index } = frame else { return };
        let Some(released) = interner.release(index) else { return };
        self.figures.referred_bytes.fetch_sub(released.len as u64, Ordering::Relaxed);
        if released.freed {
            self.figures.distinct.fetch_sub(1, Ordering::Relaxed);
            self.figures.stored_bytes.fetch_sub(interner.cost(released.len), Ordering::Relaxed);
        }
    }

    pub(super) fn version_of(&self, frame: Frame, data: &[u8], interner: &Interner) -> Option<Version> {
        match frame {
            Frame::Absent => TagReader::new(data, 1).number()?.map(Version),
            Frame::Unshared { shape } => self.shape(shape)?.version(data),
            Frame::Shared { index } => self.shape(interner.owner(index)? as u16)?.version(data),
        }
    }

    /// The entry as it is served.
    pub(super) fn splice(&self, key: &Key, frame: Frame, data: &[u8], interner: &Interner) -> Option<Cached> {
        let (shape, shared) = match frame {
            Frame::Absent => return self.version_of(frame, data, interner).map(Cached::Absent),
            Frame::Unshared { shape } => (shape, Bytes::new()),
            Frame::Shared { index } => interner.held(index).map(|(owner, shared)| (owner as u16, shared))?,
        };
        let (version, own) = self.shape(shape)?.write_own(key.as_str(), data).ok()?;
        Some(Cached::Present(Entry { version, own, shared }))
    }
}

impl Packed {
    fn absent(version: Version) -> Self {
        let mut data = Vec::new();
        TagWriter::new(&mut data, 1).number(version.0);
        Self { version, frame: Frame::Absent, data }
    }
}
