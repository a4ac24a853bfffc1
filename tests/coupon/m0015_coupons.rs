//! The table of coupons.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0015_coupons", makes: Makes::Records { entity: "coupon", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("name", Form::Short),
        column("percent", Form::Int),
        column("campaign", Form::Short),
    ])
    .index(&["campaign"])
}
