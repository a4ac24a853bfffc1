//! Events of price and stock from outside: what `POST /events` takes. The newest of a product wins: by the
//! time that it has from its sender, else by the order of the log (see `counted`).

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    counted::{Counted, Mark, PRICED_BY, Place},
    fault::FieldFault,
    ids,
    json::{BodyError, parse_create},
    key::Key,
    schema::{Field, Kind, Schema},
    value::{Row, Timestamp, Value},
};

/// The latest time that an event may have, from now: clocks differ a little, but an event of next year would
/// win until then. Beside changes that do not have their time from a sender it counts as made when it was
/// accepted, so a clock that is ahead holds up nobody else.
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
    /// How many pieces there were then, with those that orders held.
    pub stock: i64,
    /// When it happened, in milliseconds since 1970.
    pub at: i64,
    /// When it was accepted; 0 where an earlier release accepted it.
    #[serde(default)]
    pub accepted: i64,
    /// Whether its sender gave no time, so that the order of the log decides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undated: bool,
    /// Where it stands in the log: known once it was read from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
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
        let [Value::Text(product_id), Value::Decimal(price), Value::Int(stock), at] =
            draft.values.0.as_slice()
        else {
            return Err(fault("product_id", "is missing"));
        };
        let undated = !matches!(at, Value::Time(_));
        let at = match at {
            Value::Time(at) if at.0 > now.0.saturating_add(AHEAD_MAX_MS) => {
                return Err(fault("at", "is more than 5 minutes ahead of this server's clock"));
            }
            Value::Time(at) => at.0,
            _ => now.0,
        };
        Ok(Self {
            id: ids::next(),
            product_id: product_id.clone(),
            price: *price,
            stock: *stock,
            at,
            accepted: now.0,
            undated,
            place: None,
        })
    }

    /// The product's key.
    ///
    /// # Errors
    /// It is no key.
    pub fn key(&self) -> Result<Key, String> {
        self.product_id.parse()
    }

    /// Which change it is, among all of its product.
    pub fn mark(&self) -> Mark {
        let accepted = if self.accepted == 0 { self.at } else { self.accepted };
        Mark {
            moment: self.at.min(accepted),
            at: (!self.undated).then_some(self.at),
            place: self.place.clone(),
            event: Some(self.id),
        }
    }

    /// The time and the id as text that sorts.
    fn text_mark(&self) -> String {
        // all times in order as text, those before 1970 too
        format!("{:016x}-{}", (self.at as u64) ^ (1 << 63), self.id)
    }

    /// A product's values with this event in them, as far as nothing newer is there; none where all is. What
    /// somebody else changed, who remembers nothing, was changed at `changed`.
    pub fn applied(&self, schema: &Schema, values: &Row, changed: Timestamp) -> Option<Row> {
        let (mark, mut memory) = (self.mark(), Counted::of(schema, values, changed));
        let priced = memory.price(&mark);
        let stock = memory.count(&mark, self.stock);
        if !priced && stock.is_none() {
            return None;
        }
        let mut values = values.clone();
        if priced {
            schema.set(&mut values, "price", Value::Decimal(self.price));
            schema.set(&mut values, PRICED_BY, Value::Text(self.text_mark()));
        }
        if let Some(stock) = stock {
            schema.set(&mut values, "stock", Value::Int(stock));
        }
        memory.write(schema, &mut values);
        Some(values)
    }

    /// The product that this event makes, where there was none: it has its key for a name.
    pub fn product(&self, schema: &Schema) -> Row {
        let mut row = schema
            .row_of([("name", Value::Text(self.product_id.clone())), ("price", Value::Decimal(self.price))]);
        Counted::default().write(schema, &mut row);
        // nothing is known of it, so this is the newest
        self.applied(schema, &row, Timestamp(i64::MIN)).unwrap_or(row)
    }

    /// Whether it wins over another of the same product.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.mark().is_newer_than(&other.mark())
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
    use crate::{counted, entities::product};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn parse(body: &str) -> Result<PriceEvent, BodyError> {
        PriceEvent::parse(&schema(), body.as_bytes(), NOW)
    }

    #[test]
    fn bodies_are_strict() {
        let event = parse(r#"{"product_id":"lamp","price":"19.90","stock":3}"#).unwrap();
        assert_eq!((event.product_id.as_str(), event.stock, event.at), ("lamp", 3, NOW.0));
        assert!(event.undated && event.mark().at.is_none());
        let dated =
            parse(r#"{"product_id":"lamp","price":1,"stock":0,"at":"2020-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!((dated.at, dated.undated), (1_577_836_800_000, false));
        let ahead =
            parse(r#"{"product_id":"lamp","price":1,"stock":0,"at":"2023-11-14T22:15:00Z"}"#).unwrap();
        assert_eq!((ahead.at - NOW.0, ahead.mark().moment), (100_000, NOW.0), "as of when it was accepted");
        let earlier =
            r#"{"id":"0192f0c5-0000-7000-8000-000000000000","product_id":"a","price":"1","stock":1,"at":7}"#;
        let earlier: PriceEvent = serde_json::from_str(earlier).unwrap();
        assert_eq!(
            (earlier.mark().moment, earlier.mark().at),
            (7, Some(7)),
            "one that an earlier release accepted"
        );
        assert_eq!(counted::parse_mark(&earlier.text_mark()), Some(earlier.mark()));
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
                undated: false,
                ..parse(r#"{"product_id":"a","price":1,"stock":1}"#).unwrap()
            })
            .collect();
        // of two at the same time the later accepted
        let newest = events[3].clone();
        for _ in 0..events.len() {
            events.rotate_left(1);
            let mut row = start.clone();
            for event in events.iter().chain(&events) {
                row = event.applied(&schema, &row, Timestamp(i64::MIN)).unwrap_or(row);
            }
            assert_eq!(row.0[schema.index_of("stock").unwrap()], Value::Int(newest.stock));
            assert_eq!(newest.applied(&schema, &row, Timestamp(i64::MIN)), None);
        }
        assert!(newest.is_newer_than(&events[0]) || newest == events[0]);
    }
}
