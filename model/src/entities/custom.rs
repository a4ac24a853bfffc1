//! Declared tables and collections: a pool says what their records look like.

use crate::entity::{Definition, Home};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/pools/{pool}",
    schema: None,
    home: Home::Mysql,
    upserts: true,
    not_behind: None,
    lists: &[],
    example: "",
};
