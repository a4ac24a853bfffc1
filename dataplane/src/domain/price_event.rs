//! Events of price and stock from outside: what `POST /events` takes. The newest of a product wins, by its own time.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ids,
    json::{BodyError, parse_create},
    record::{Key, Row},
    schema::{Field, FieldFault, Kind, Schema},
    value::{Timestamp, Value},
};

/// The field of a product that says which event gave it its price and stock.
pub const MARK: &str = "priced_by";

/// The latest time that an event may have, from now: clocks differ a little, but an event of next year would win until then.
const AHEAD_MAX_MS: i64 = 5 * 60 * 1000;

/// One event, as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceEvent {
    /// Tells it from all others.
    pub id: Uuid,
    /// The product.
    pub product_id: String,
    /// Its price from then on.
    #[serde(with = "exact")]
    pub price: Decimal,
    /// What can be sold of it from then on.
    pub stock: i64,
    /// When it happened, in milliseconds since 1970.
    pub at: i64,
}

/// What the body of an event looks like.
pub fn schema() -> Schema {
    Schema::new(
        "price_event",
        "price_events",
        vec![
            Field::new("product_id", Kind::key()).required(),
            Field::new("price", Kind::money(0)).required(),
            Field::new("stock", Kind::Int { min: 0, max: 1_000_000_000_000 }).required(),
            Field::new("at", Kind::Time),
        ],
    )
}

impl PriceEvent {
    /// The event of a body. Without a time of its own it happened now.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn parse(schema: &Schema, body: &[u8], now: Timestamp) -> Result<Self, BodyError> {
        let draft = parse_create(schema, body)?;
        if draft.key.is_some() {
            return Err(fault("id", "is not a field of events: they are told apart by the server"));
        }
        let [Value::Text(product_id), Value::Decimal(price), Value::Int(stock), at] = draft.values.0.as_slice() else {
            return Err(fault("product_id", "is missing"));
        };
        let at = match at {
            Value::Time(at) if at.0 > now.0.saturating_add(AHEAD_MAX_MS) => {
                return Err(fault("at", "is more than 5 minutes ahead of this server's clock"));
            }
            Value::Time(at) => at.0,
            _ => now.0,
        };
        Ok(Self { id: ids::next(), product_id: product_id.clone(), price: *price, stock: *stock, at })
    }

    /// The product's key.
    ///
    /// # Errors
    /// It is no key.
    pub fn key(&self) -> Result<Key, String> {
        self.product_id.parse()
    }

    /// The event's place among those of its product, as text that sorts: by time, then by acceptance.
    pub fn mark(&self) -> String {
        // all times in order as text, those before 1970 too
        format!("{:016x}-{}", (self.at as u64) ^ (1 << 63), self.id)
    }

    /// A product's values with this event in them; none where they came from this event or a newer one.
    pub fn applied(&self, schema: &Schema, values: &Row) -> Option<Row> {
        let mark = self.mark();
        let of = |index: Option<usize>| index.filter(|index| *index < values.0.len());
        let at = of(schema.internal_index_of(MARK))?;
        if values.0[at].as_text().is_some_and(|last| last >= mark.as_str()) {
            return None;
        }
        let (price, stock) = (of(schema.index_of("price"))?, of(schema.index_of("stock"))?);
        let mut values = values.clone();
        values.0[price] = Value::Decimal(self.price);
        values.0[stock] = Value::Int(self.stock);
        values.0[at] = Value::Text(mark);
        Some(values)
    }

    /// Whether it wins over another of the same product.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.at, self.id).cmp(&(other.at, other.id)) == Ordering::Greater
    }
}

/// Decimals as text, exactly.
mod exact {
    use rust_decimal::Decimal;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn fault(field: &str, message: &str) -> BodyError {
    BodyError::Invalid(vec![FieldFault::new(field, message)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::product;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn parse(body: &str) -> Result<PriceEvent, BodyError> {
        PriceEvent::parse(&schema(), body.as_bytes(), NOW)
    }

    #[test]
    fn bodies_are_strict() {
        let event = parse(r#"{"product_id":"lamp","price":"19.90","stock":3}"#).unwrap();
        assert_eq!((event.product_id.as_str(), event.stock, event.at), ("lamp", 3, NOW.0));
        let dated = parse(r#"{"product_id":"lamp","price":1,"stock":0,"at":"2020-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(dated.at, 1_577_836_800_000);
        for (body, field) in [
            (r#"{"price":1,"stock":1}"#, "product_id"),
            (r#"{"product_id":"a/b","price":1,"stock":1}"#, "product_id"),
            (r#"{"product_id":"a","price":-1,"stock":1}"#, "price"),
            (r#"{"product_id":"a","price":1,"stock":-1}"#, "stock"),
            (r#"{"product_id":"a","price":1,"stock":1.5}"#, "stock"),
            (r#"{"product_id":"a","price":1,"stock":1,"colour":"red"}"#, "colour"),
            (r#"{"id":"x","product_id":"a","price":1,"stock":1}"#, "id"),
            (r#"{"product_id":"a","price":1,"stock":1,"at":"2999-01-01T00:00:00Z"}"#, "at"),
        ] {
            match parse(body) {
                Err(BodyError::Invalid(faults)) => assert_eq!(faults[0].field, field, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_newest_wins_in_any_order_and_a_repetition_does_nothing() {
        let schema = product::schema();
        let body = r#"{"name":"Lamp","price":"1","stock":1}"#;
        let start = parse_create(&schema, body.as_bytes()).unwrap().values;
        let mut events: Vec<_> = [5, -3, 9, 9, 2]
            .into_iter()
            .enumerate()
            .map(|(n, at)| PriceEvent {
                at,
                stock: n as i64,
                ..parse(r#"{"product_id":"a","price":1,"stock":1}"#).unwrap()
            })
            .collect();
        // of two at the same time the later accepted
        let newest = events[3].clone();
        for _ in 0..events.len() {
            events.rotate_left(1);
            let mut row = start.clone();
            for event in events.iter().chain(&events) {
                row = event.applied(&schema, &row).unwrap_or(row);
            }
            assert_eq!(row.0[schema.index_of("stock").unwrap()], Value::Int(newest.stock));
            assert_eq!(newest.applied(&schema, &row), None);
        }
        assert!(newest.is_newer_than(&events[0]) || newest == events[0]);
    }
}
