//! An entry as bytes in a shared cache: how long it is fresh, then the record packed, its encrypted fields
//! sealed.

use std::sync::Arc;

use bytes::BufMut;

use super::rules::Span;
use crate::{flyweight::packed::Packer, shared::Held};
use model::{
    key::{Key, Version},
    record::Lookup,
    schema::Schema,
    seal::{SealError, Sealer},
};

/// Writes and reads the entries of one pool.
pub struct Framer {
    packer: Packer,
    sealer: Arc<dyn Sealer>,
    /// Records with encrypted fields stay out of shared caches where there is nothing to seal them with.
    records: bool,
}

/// Stands in where there is nothing to seal.
struct NoSealer;

/// A record or its absence, the first byte. Any other byte is of another version of this program: a miss.
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;
/// Kind, fresh and stale milliseconds.
const HEAD: usize = 9;

impl Framer {
    /// The framer of a schema.
    pub fn new(schema: &Arc<Schema>, sealer: Option<Arc<dyn Sealer>>) -> Self {
        let records = sealer.is_some() || !schema.fields.iter().any(|field| field.encrypted);
        Self {
            packer: Packer::new(schema.clone()),
            sealer: sealer.unwrap_or_else(|| Arc::new(NoSealer)),
            records,
        }
    }

    /// The bytes of an entry; nothing where it may not leave the process.
    pub fn encode(&self, found: &Lookup, span: Span) -> Option<Vec<u8>> {
        let short = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        let packed = match found {
            Lookup::Found(record) if self.records => self.packer.pack(record, &*self.sealer).ok()?,
            Lookup::Found(_) | Lookup::Unreadable(_) => return None,
            Lookup::Deleted(_) | Lookup::Missing => Vec::new(),
        };
        let mut out = Vec::with_capacity(HEAD + packed.len());
        out.put_u8(if matches!(found, Lookup::Found(_)) { PRESENT } else { ABSENT });
        out.put_u32(short(span.fresh_ms));
        out.put_u32(short(span.stale_ms));
        out.put_slice(&packed);
        Some(out)
    }

    /// The entry in some bytes, with how long it lives since it was loaded. Nothing where they cannot be
    /// read.
    pub fn decode(&self, key: &Key, held: &Held) -> Option<(Lookup, Span)> {
        let (head, packed) = held.value.split_at_checked(HEAD)?;
        let number = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let span = Span { fresh_ms: number(1)?.into(), stale_ms: number(5)?.into() };
        let found = match (head[0], held.version) {
            (ABSENT, Version(0)) => Lookup::Missing,
            (ABSENT, version) => Lookup::Deleted(version),
            (PRESENT, version) => {
                let record = self.packer.unpack(key, packed, &*self.sealer).ok()?;
                // what guards the order in the cache must be what is served
                Lookup::Found(Some(record).filter(|record| record.version == version)?)
            }
            _ => return None,
        };
        Some((found, span))
    }
}

impl Sealer for NoSealer {
    fn seal(&self, _plain: &[u8], _context: &str) -> String {
        String::new()
    }

    fn open(&self, _sealed: &str, _context: &str) -> Result<Vec<u8>, SealError> {
        Err(SealError)
    }
}
