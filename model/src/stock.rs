//! Stock that orders hold: a product's `stock` and its list of holds change together, so that nothing is ever
//! sold twice.
//!
//! `stock` is what can be had: what was counted, less what orders hold, less what was sold since (see
//! `counted`). Each hold is named by its order, so that whatever is repeated has no second effect: to hold
//! again, to settle again.

use serde_json::{Map, Value as Tree, json};

use super::{
    counted::Counted,
    holds::{holds, pieces, since, stock},
    key::Key,
    schema::Schema,
    value::{Json, Row, Timestamp, Value},
};

/// The most orders that hold one product at a time.
pub const HOLDS_MAX: usize = 10_000;
/// The most bytes of a product's holds.
pub const HOLDS_BYTES_MAX: usize = 4 << 20;

/// What came of the wish to hold stock.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// The product as it is with the hold.
    Now(Row),
    /// The order holds just that already.
    Already,
    /// There is not enough; so much there is.
    Short(i64),
    /// Too many orders hold the product at this moment.
    Crowded,
}

/// What becomes of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// The pieces are sold.
    Commit,
    /// The pieces are given back.
    Release,
}

/// Takes pieces from the stock for an order.
pub fn hold(schema: &Schema, row: &Row, order: &Key, quantity: i64, now: Timestamp) -> Held {
    let mut holds = holds(schema, row);
    let before = holds.get(order.as_str()).and_then(pieces).unwrap_or(0);
    if before == quantity {
        return Held::Already;
    }
    let mut memory = Counted::of(schema, row, now);
    let free = memory.give(stock(schema, row), before);
    if free < quantity {
        return Held::Short(free);
    }
    if before == 0 && holds.len() >= HOLDS_MAX {
        return Held::Crowded;
    }
    holds.insert(order.to_string(), json!([quantity, now.0]));
    Held::Now(with(schema, row, free - quantity, holds, memory))
}

/// Ends the hold of an order. None where there is no such hold: it was ended before.
pub fn settle(schema: &Schema, row: &Row, order: &Key, settling: Settling, now: Timestamp) -> Option<Row> {
    let mut holds = holds(schema, row);
    let quantity = holds.remove(order.as_str()).as_ref().and_then(pieces)?;
    let (stock, mut memory) = (stock(schema, row), Counted::of(schema, row, now));
    let stock = match settling {
        Settling::Commit => {
            memory.sell(quantity, now);
            stock
        }
        Settling::Release => memory.give(stock, quantity),
    };
    Some(with(schema, row, stock, holds, memory))
}

/// The orders that have held a product since before a time.
pub fn held_before(schema: &Schema, row: &Row, time: Timestamp) -> Vec<Key> {
    let old = |(_, hold): &(&String, &Tree)| since(hold).is_some_and(|since| since < time.0);
    holds(schema, row).iter().filter(old).filter_map(|(order, _)| order.parse().ok()).collect()
}

fn with(schema: &Schema, row: &Row, stock: i64, holds: Map<String, Tree>, memory: Counted) -> Row {
    let mut row = row.clone();
    let oldest = holds.values().filter_map(since).min();
    let shown =
        if holds.is_empty() { Value::Null } else { Value::Json(Json::from_value(&Tree::Object(holds))) };
    schema.set(&mut row, "stock", Value::Int(stock));
    schema.set(&mut row, "holds", shown);
    schema.set(&mut row, "held_since", oldest.map_or(Value::Null, |at| Value::Time(Timestamp(at))));
    memory.write(schema, &mut row);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{counted, entities::product, json::parse_create};

    fn product(stock: i64) -> (Schema, Row) {
        let schema = product::schema();
        let body = format!(r#"{{"name":"Lamp","price":"1","stock":{stock}}}"#);
        let row = parse_create(&schema, body.as_bytes()).unwrap().values;
        (schema, row)
    }

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn held(outcome: Held) -> Row {
        match outcome {
            Held::Now(row) => row,
            other => panic!("not held: {other:?}"),
        }
    }

    #[test]
    fn a_hold_is_taken_once_and_settled_once() {
        let (schema, row) = product(5);
        let now = Timestamp(1_000);
        let row = held(hold(&schema, &row, &key("a"), 3, now));
        assert_eq!(stock(&schema, &row), 2);
        assert_eq!(hold(&schema, &row, &key("a"), 3, now), Held::Already);
        assert_eq!(hold(&schema, &row, &key("b"), 3, now), Held::Short(2));
        assert_eq!(
            stock(&schema, &held(hold(&schema, &row, &key("a"), 5, now))),
            0,
            "the own hold counts as free"
        );
        assert_eq!(held_before(&schema, &row, Timestamp(1_001)), [key("a")]);
        assert!(held_before(&schema, &row, now).is_empty());

        let settle = |row: &Row, settling| settle(&schema, row, &key("a"), settling, now);
        let sold = settle(&row, Settling::Commit).unwrap();
        assert_eq!(stock(&schema, &sold), 2);
        assert_eq!(settle(&sold, Settling::Release), None);
        let mut back = settle(&row, Settling::Release).unwrap();
        assert_eq!((stock(&schema, &back), crate::holds::held(&schema, &back)), (5, 0));
        assert_eq!(settle(&back, Settling::Release), None);
        schema.set(&mut back, counted::FIELD, Value::Null);
        assert_eq!(back, product(5).1, "nothing is left of it but what it remembers");
    }

    #[test]
    fn the_list_of_holds_is_bounded() {
        let (schema, mut row) = product(1_000_000);
        let all: Map<String, Tree> = (0..HOLDS_MAX).map(|n| (format!("o{n}"), json!([1, n]))).collect();
        row = with(&schema, &row, 10, all, Counted::default());
        assert_eq!(hold(&schema, &row, &key("one-more"), 1, Timestamp(0)), Held::Crowded);
        let Some(Value::Json(json)) = schema.internal_index_of("holds").and_then(|at| row.0.get(at)) else {
            panic!()
        };
        assert!(json.as_str().len() + HOLDS_MAX * Key::PLAIN_MAX < HOLDS_BYTES_MAX);
    }
}
