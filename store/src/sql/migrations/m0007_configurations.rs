//! The table of configuration values.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0007_configurations", makes: Makes::Records { entity: "configuration", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("value", Form::Json),
        column("description", Form::Long),
        column("category", Form::Short),
        column("metadata", Form::Json),
    ])
    .index(&["category"])
}
