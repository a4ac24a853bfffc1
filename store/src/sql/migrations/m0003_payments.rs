//! The table of payments.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0003_payments", makes: Makes::Records { entity: "payment", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("user_id", Form::Short),
        column("order_id", Form::Short),
        column("amount", Form::Money),
        column("currency", Form::Short),
        column("gateway", Form::Short),
        column("method", Form::Short),
        column("status", Form::Short),
        column("transaction_id", Form::Short),
        column("metadata", Form::Json),
    ])
    .index(&["user_id"])
    .index(&["order_id"])
    .index(&["status"])
}
