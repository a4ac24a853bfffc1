//! The outbox with the leases of its shards, and the tombstones of deleted records.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// Events that are committed and not yet published.
pub const OUTBOX: &str = "flyweight_outbox";
/// Which owner relays which shard of the outbox.
pub const LEASES: &str = "flyweight_leases";
/// The versions of deleted records.
pub const TOMBSTONES: &str = "flyweight_tombstones";

/// The migration.
pub const MIGRATION: Migration = Migration { name: "0001_base", makes: Makes::Own(tables) };

fn tables() -> Vec<(&'static str, TableDef)> {
    let outbox = vec![
        column("seq", Form::Serial),
        column("event_id", Form::Key).not_null(),
        column("shard", Form::Int).not_null(),
        column("record_key", Form::Key).not_null(),
        column("committed_at", Form::Time).not_null(),
        column("envelope", Form::Json).not_null(),
    ];
    let leases = vec![
        column("shard", Form::Int).not_null(),
        column("owner", Form::Short).not_null(),
        column("until_ms", Form::Int).not_null(),
    ];
    let tombstones = vec![
        column("collection", Form::Key).not_null(),
        column("id", Form::Key).not_null(),
        column("version", Form::Int).not_null(),
        column("deleted_at", Form::Time).not_null(),
    ];
    vec![
        (OUTBOX, TableDef::new(outbox, &[]).unique(&["event_id"]).index(&["shard", "seq"])),
        (LEASES, TableDef::new(leases, &["shard"])),
        (TOMBSTONES, TableDef::new(tombstones, &["collection", "id"]).index(&["deleted_at"])),
    ]
}
