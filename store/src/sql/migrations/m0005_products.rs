//! The table of products.

use super::{
    super::ddl::{Form, TableDef, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration =
    Migration { name: "0005_products", makes: Makes::Records { entity: "product", table } };

fn table() -> TableDef {
    TableDef::of_records(vec![
        column("name", Form::Long),
        column("description", Form::Long),
        column("price", Form::Money),
        column("currency", Form::Short),
        column("category", Form::Short),
        column("brand", Form::Short),
        column("stock", Form::Int),
        column("attributes", Form::Json),
    ])
    .index(&["category"])
}
