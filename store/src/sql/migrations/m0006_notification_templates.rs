//! The table of templates of notifications.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration = Migration {
    name: "0006_notification_templates",
    makes: Makes::Records { entity: "notification_template", table },
};

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("template", Form::Short),
        column("subject", Form::Long),
        column("body", Form::Long),
        column("channels", Form::Json),
        column("metadata", Form::Json),
    ])
    .index(&["template"])
}
