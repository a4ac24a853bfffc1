//! The audit, and the answers that are kept under idempotency keys.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// Who changed what and when.
pub const AUDIT: &str = "flyweight_audit";
/// What requests with an idempotency key were answered.
pub const IDEMPOTENCY: &str = "flyweight_idempotency";

/// The migration.
pub const MIGRATION: Migration = Migration { name: "0008_audit", makes: Makes::Own(tables) };

fn tables() -> Vec<(&'static str, TableDef)> {
    let audit = vec![
        column("seq", Form::Serial),
        column("event_id", Form::Key).not_null(),
        column("at", Form::Time).not_null(),
        column("actor", Form::Key).not_null(),
        column("entity", Form::Key).not_null(),
        column("record_key", Form::Key).not_null(),
        column("action", Form::Key).not_null(),
        column("version", Form::Int).not_null(),
        column("before_json", Form::Json),
        column("after_json", Form::Json),
    ];
    let idempotency = vec![
        column("id", Form::Key).not_null(),
        column("request", Form::Key).not_null(),
        column("at", Form::Time).not_null(),
        column("answer", Form::Json).not_null(),
    ];
    let audit = TableDef::new(audit, &[])
        .index(&["entity", "record_key", "at"])
        .index(&["actor", "at"])
        .index(&["at"]);
    vec![(AUDIT, audit), (IDEMPOTENCY, TableDef::new(idempotency, &["id"]).index(&["at"]))]
}
