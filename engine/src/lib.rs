//! Tiers between readers and the store. Every fill and every invalidation is fenced by version: no tier goes
//! back.

#[cfg(test)]
extern crate self as engine;

use bytes::Bytes;

use model::key::Version;

pub mod clock;
pub mod flight;
pub mod flyweight;
pub mod memory;
pub mod shared;
pub mod tiered;

/// What a tier holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The record, ready to be sent.
    Present(Entry),
    /// There is no record: the version of its delete, or 0 where there never was one.
    Absent(Version),
}

/// A record ready to be sent: its body is `own`, then `shared`, then `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's version.
    pub version: Version,
    /// `{"id":…` and the record's own fields, without a closing brace.
    pub own: Bytes,
    /// `,"field":…` for each shared field, or nothing. Equal shared states have one copy in memory.
    pub shared: Bytes,
}

impl Cached {
    /// The version that this speaks of.
    pub fn version(&self) -> Version {
        match self {
            Self::Present(entry) => entry.version,
            Self::Absent(version) => *version,
        }
    }
}

impl Entry {
    /// The bytes of the whole body.
    pub fn body_len(&self) -> usize {
        self.own.len() + self.shared.len() + 1
    }

    /// The whole body in one piece.
    pub fn to_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.body_len());
        body.extend_from_slice(&self.own);
        body.extend_from_slice(&self.shared);
        body.push(b'}');
        body
    }
}
