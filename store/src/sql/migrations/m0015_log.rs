//! The logs by which replicas tell each other where there is no broker, and who reads them.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The entries of all logs.
pub const LOG: &str = "flyweight_log";
/// Which member of a group has which part of a log.
pub const CLAIMS: &str = "flyweight_claims";

/// The migration.
pub const MIGRATION: Migration = Migration { name: "0015_log", makes: Makes::Own(tables) };

fn tables() -> Vec<(&'static str, TableDef)> {
    let log = vec![
        column("log", Form::Key).not_null(),
        column("number", Form::Int).not_null(),
        column("part", Form::Int).not_null(),
        column("event_id", Form::Key).not_null(),
        column("at_ms", Form::Int).not_null(),
        column("entry", Form::Long).not_null(),
    ];
    let claims = vec![
        column("log", Form::Key).not_null(),
        column("consumers", Form::Key).not_null(),
        column("part", Form::Int).not_null(),
        column("owner", Form::Key).not_null(),
        column("until_ms", Form::Int).not_null(),
        column("position", Form::Int).not_null(),
    ];
    vec![
        (LOG, TableDef::new(log, &["log", "number"]).unique(&["log", "event_id"])),
        (CLAIMS, TableDef::new(claims, &["log", "consumers", "part"])),
    ]
}
