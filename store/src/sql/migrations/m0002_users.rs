//! The table of users.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0002_users", makes: Makes::Records { entity: "user", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("email", Form::Short),
        column("name", Form::Long),
        column("username", Form::Short),
        column("profile", Form::Json),
        column("preferences", Form::Json),
    ])
    .unique(&["email"])
    .unique(&["username"])
}
