//! What the order pipeline keeps beside the records: holds in products, progress in orders, dead letters.

use super::{
    super::ddl::{Column, Form, TableDef, column},
    Makes, Migration,
};

/// The holds of orders, in the products that they reduce.
pub const PRODUCTS: Migration = Migration {
    name: "0009_holds",
    makes: Makes::Columns {
        entity: "product",
        columns: || vec![column("holds", Form::Json), column("held_since", Form::Time)],
        indexed: &["held_since"],
    },
};

/// How far the pipeline is with an order, and when it looks at it again.
pub const ORDERS: Migration = Migration {
    name: "0009_progress",
    makes: Makes::Columns { entity: "order", columns: progress, indexed: &["due_at"] },
};

/// What could not be done.
pub const DEAD_LETTERS: Migration = Migration {
    name: "0009_dead_letters",
    makes: Makes::Records { entity: "dead_letter", table: dead_letters },
};

fn dead_letters() -> TableDef {
    TableDef::of_records(vec![
        column("stage", Form::Short),
        column("subject", Form::Short),
        column("class", Form::Short),
        column("error", Form::Long),
        column("attempts", Form::Int),
        column("trace", Form::Short),
        column("payload", Form::Json),
    ])
    .index(&["stage"])
    .index(&["subject"])
}

fn progress() -> Vec<Column> {
    vec![column("progress", Form::Json), column("due_at", Form::Time)]
}
