//! What a product says of its stock, and of the orders that hold pieces of it.

use serde_json::{Map, Value as Tree};

use crate::{
    schema::Schema,
    value::{Row, Value},
};

/// The pieces that can be had.
pub fn stock(schema: &Schema, row: &Row) -> i64 {
    match schema.get(row, "stock") {
        Value::Int(stock) => *stock,
        _ => 0,
    }
}

/// The pieces that orders hold.
pub fn held(schema: &Schema, row: &Row) -> i64 {
    holds(schema, row).values().filter_map(pieces).fold(0, i64::saturating_add)
}

/// The holds by their orders.
pub(crate) fn holds(schema: &Schema, row: &Row) -> Map<String, Tree> {
    match schema.get(row, "holds") {
        Value::Json(json) => json.to_value().as_object().cloned().unwrap_or_default(),
        _ => Map::new(),
    }
}

/// How many pieces a hold is of.
pub(crate) fn pieces(hold: &Tree) -> Option<i64> {
    hold.get(0)?.as_i64()
}

/// Since when a hold is there, in milliseconds since 1970.
pub(crate) fn since(hold: &Tree) -> Option<i64> {
    hold.get(1)?.as_i64()
}
