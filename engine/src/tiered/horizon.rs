//! Which versions and times are not believed.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{key::Version, record::Lookup};

/// Times before which entries are not believed.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    pub(super) memory_ms: AtomicU64,
    pub(super) shared_ms: AtomicU64,
}

impl Horizon {
    pub(super) fn distrust_shared(&self, now_ms: u64) {
        self.shared_ms.fetch_max(now_ms, Ordering::AcqRel);
    }
}

/// The version that a lookup speaks of: 0 where there never was a record.
pub(super) fn version_of(found: &Lookup) -> Version {
    match found {
        Lookup::Found(record) => record.version,
        Lookup::Deleted(version) => *version,
        Lookup::Missing => Version(0),
        Lookup::Unreadable(unreadable) => unreadable.rest.version,
    }
}
