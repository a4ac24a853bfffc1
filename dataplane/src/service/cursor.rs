//! Opaque cursors: a place in the order of one list, with a check that it belongs to that list and was not
//! altered.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use model::{
    field::value_of,
    key::Key,
    query::{Direction, Filter, Position},
    schema::{Field, FieldRef, Kind, Schema},
    value::Value,
};

/// The longest cursor: a key and values of text fields.
const TEXT_MAX: usize = 16 << 10;

/// Where the next page starts, and what the first page said of the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The last record of the page before.
    pub position: Position,
    /// How many records come before.
    pub offset: u64,
    /// How many there were in all when the first page was read.
    pub total: u64,
}

/// The list that a cursor belongs to.
pub struct Scope<'a> {
    /// The schema of its records.
    pub schema: &'a Schema,
    /// Which records it has.
    pub filter: &'a Filter,
    /// Its order.
    pub order: &'a [(FieldRef, Direction)],
}

#[derive(Serialize, Deserialize)]
struct Payload<'a>(String, u64, u64, #[serde(borrow)] Vec<&'a RawValue>);

impl Cursor {
    /// The cursor as clients see it.
    pub fn encode(&self, scope: &Scope<'_>) -> String {
        let mut values: Vec<Box<RawValue>> = self.position.values.iter().filter_map(raw).collect();
        if self.position.skip > 0 {
            values.extend(RawValue::from_string(self.position.skip.to_string()));
        }
        let payload = Payload(
            self.position.key.to_string(),
            self.offset,
            self.total,
            values.iter().map(AsRef::as_ref).collect(),
        );
        let mut bytes = serde_json::to_vec(&payload).unwrap_or_default();
        let check = scope.check(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of this list; none for what is not one.
    pub fn decode(text: &str, scope: &Scope<'_>) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (payload, check) = bytes.split_last_chunk::<8>()?;
        if scope.check(payload) != u64::from_le_bytes(*check) {
            return None;
        }
        let Payload(key, offset, total, raw_values) = serde_json::from_slice(payload).ok()?;
        let skip = match raw_values.get(scope.order.len()) {
            Some(skip) if raw_values.len() == scope.order.len() + 1 => skip.get().parse().ok()?,
            None if raw_values.len() == scope.order.len() => 0,
            _ => return None,
        };
        let values: Option<Vec<Value>> = scope
            .order
            .iter()
            .zip(raw_values)
            .map(|((field, _), raw)| scope.value(*field, raw.get()))
            .collect();
        Some(Self {
            position: Position { values: values?, key: Key::try_from(key).ok()?, skip },
            offset,
            total,
        })
    }
}

/// A place in a list of keys, as clients see it.
pub fn place_among(keys: &[Key], place: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{place} {:016x}", check_of(keys)))
}

/// Reads a place in this list of keys; none for what is not one.
pub fn place_of(text: &str, keys: &[Key]) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (place, check) = text.split_once(' ')?;
    let is_of_these = check == format!("{:016x}", check_of(keys));
    place.parse().ok().filter(|place| is_of_these && *place < keys.len())
}

fn check_of(keys: &[Key]) -> u64 {
    xxh3_64(keys.iter().map(Key::as_str).collect::<Vec<_>>().join("\0").as_bytes())
}

impl Scope<'_> {
    fn check(&self, payload: &[u8]) -> u64 {
        let mut text =
            format!("{}\0{:?}\0{:?}\0", self.schema.collection, self.filter, self.order).into_bytes();
        text.extend_from_slice(payload);
        xxh3_64(&text)
    }

    fn value(&self, field: FieldRef, raw: &str) -> Option<Value> {
        let text = || serde_json::from_str::<String>(raw).ok();
        let kind = match field {
            FieldRef::Key => return text().map(Value::Text),
            FieldRef::Version => &Kind::Int { min: 0, max: i64::MAX },
            FieldRef::CreatedAt | FieldRef::UpdatedAt => &Kind::Time,
            FieldRef::Field(index) => &self.schema.fields.get(index)?.kind,
        };
        // what is stored may be beyond what may be sent
        match kind {
            _ if raw == "null" => Some(Value::Null),
            Kind::Text { .. } | Kind::Choice(_) => text().map(Value::Text),
            Kind::Int { .. } => Value::whole(raw),
            Kind::Decimal { .. } => Value::exact(raw),
            Kind::Time => text()?.parse().ok().map(Value::Time),
            Kind::Bool | Kind::Json { .. } => value_of(&Field::new("cursor", kind.clone()), raw).ok(),
        }
    }
}

fn raw(value: &Value) -> Option<Box<RawValue>> {
    let mut text = String::new();
    value.write_json(&mut text);
    RawValue::from_string(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::entities::product;

    #[test]
    fn a_cursor_comes_back_and_fits_only_its_list() {
        let schema = product::schema();
        let price = FieldRef::Field(schema.index_of("price").unwrap());
        let order = [(price, Direction::Descending), (FieldRef::UpdatedAt, Direction::Ascending)];
        let scope = Scope { schema: &schema, filter: &Filter::All, order: &order };
        let cursor = Cursor {
            position: Position {
                values: vec![
                    Value::Decimal("19.9".parse().unwrap()),
                    Value::Time("2026-01-31T12:00:00.123Z".parse().unwrap()),
                ],
                key: "p-1, \"Zürich\"".parse().unwrap(),
                skip: 3,
            },
            offset: 50,
            total: 1_000,
        };
        let text = cursor.encode(&scope);
        assert_eq!(Cursor::decode(&text, &scope), Some(cursor));

        let other_filter = Filter::IsNull(price);
        let other_schema = model::entities::user::schema();
        assert_eq!(Cursor::decode(&text, &Scope { filter: &other_filter, ..scope }), None);
        assert_eq!(Cursor::decode(&text, &Scope { order: &order[..1], ..scope }), None);
        assert_eq!(Cursor::decode(&text, &Scope { schema: &other_schema, ..scope }), None);
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(Cursor::decode(&String::from_utf8(altered).unwrap(), &scope), None, "{index}");
        }
        for bad in ["", "A", "!", "AAAAAAAAAAAAAAAA", &"A".repeat(TEXT_MAX + 1)] {
            assert_eq!(Cursor::decode(bad, &scope), None);
        }
    }
    #[test]
    fn a_place_fits_only_its_keys() {
        let keys: Vec<Key> = ["a", "b", "c"].map(|key| key.parse().unwrap()).to_vec();
        let place = place_among(&keys, 2);
        assert_eq!(place_of(&place, &keys), Some(2));
        assert_eq!(
            (place_of(&place, &keys[..2]), place_of("", &keys), place_of("Mg", &keys)),
            (None, None, None)
        );
        assert_eq!(place_of(&place_among(&keys, 3), &keys), None, "there is nothing behind the last");
    }
}
