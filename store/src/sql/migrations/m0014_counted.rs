//! What a product remembers of counts and sales.

use super::{
    super::ddl::{Form, column},
    Makes, Migration,
};

/// The migration.
pub const MIGRATION: Migration = Migration {
    name: "0014_counted",
    makes: Makes::Columns {
        entity: "product",
        columns: || vec![column("counted", Form::Json)],
        indexed: &[],
    },
};
