//! Room for the keys of other programs' records, of up to 255 bytes, in the store's own tables.

use super::{AUDIT, Makes, Migration, OUTBOX, TOMBSTONES};

/// The migration.
pub const MIGRATION: Migration = Migration {
    name: "0013_wide_keys",
    makes: Makes::Wider(&[(OUTBOX, "record_key"), (TOMBSTONES, "id"), (AUDIT, "record_key")]),
};
