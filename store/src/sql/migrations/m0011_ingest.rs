//! The event that a product has its price and stock from.

use super::{
    super::ddl::{Form, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration = Migration {
    name: "0011_priced_by",
    makes: Makes::Columns {
        entity: "product",
        columns: || vec![column("priced_by", Form::Short)],
        indexed: &[],
    },
};
