//! The table of orders.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0004_orders", makes: Makes::Records { entity: "order", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("user_id", Form::Short),
        column("items", Form::Json),
        column("total", Form::Money),
        column("currency", Form::Short),
        column("status", Form::Short),
        column("shipping_address", Form::Json),
        column("metadata", Form::Json),
    ])
    .index(&["user_id"])
    .index(&["status"])
}
