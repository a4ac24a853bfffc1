//! Keys, versions and records.

use std::fmt;

use super::{
    key::{Key, Version},
    schema::{FieldRef, Schema},
    value::{Row, Timestamp, Value, write_json_text},
};

/// One stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Its values.
    pub values: Row,
}

/// What a store knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is there.
    Found(Record),
    /// It was deleted; the version is the delete's.
    Deleted(Version),
    /// It was never there, as far as the store remembers.
    Missing,
    /// It is there, but something in it has no exact meaning.
    Unreadable(Box<Unreadable>),
}

/// A stored record that cannot be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The record as far as it can be read: null stands for each value that cannot, 0 for a version and 1970
    /// for a time.
    pub rest: Record,
    /// What cannot be read, at least one.
    pub oddities: Vec<Oddity>,
}

/// A stored value that has no exact meaning for its field. The value itself is in no answer and no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// Which field.
    pub at: FieldRef,
    /// The field's name.
    pub field: String,
    /// What is stored there: a type, as the store calls it.
    pub kind: String,
    /// How many bytes it has.
    pub length: u64,
}

/// Names a record of a list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its key; none where the key itself is not text.
    pub key: Option<String>,
    /// The first field that cannot be read.
    pub field: String,
}

impl Unreadable {
    /// The first of what cannot be read.
    pub fn first(&self) -> Oddity {
        let unknown = || Oddity { at: FieldRef::Key, field: String::new(), kind: String::new(), length: 0 };
        self.oddities.first().cloned().unwrap_or_else(unknown)
    }

    /// Whether its version can be read.
    pub fn has_version(&self) -> bool {
        self.oddities.iter().all(|oddity| oddity.at != FieldRef::Version)
    }

    /// The name of the record.
    pub fn named(&self) -> Named {
        Named { key: Some(self.rest.key.to_string()), field: self.first().field }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Oddity { field, kind, length, .. } = self.first();
        write!(
            f,
            "{field} of {:?} holds {kind} of {length} bytes, which has no exact meaning there",
            self.rest.key
        )
    }
}

impl Record {
    /// The record as a JSON object: key, version, times, then the fields in the schema's order.
    pub fn to_json(&self, schema: &Schema) -> String {
        self.write_whole(schema, false)
    }

    /// The record as a JSON object, with `"***"` for the values of encrypted fields: for events, audit rows
    /// and logs.
    pub fn to_masked_json(&self, schema: &Schema) -> String {
        self.write_whole(schema, true)
    }

    /// The bytes that it has in a statement or message, about: twice those of text, which may be sealed.
    pub fn bytes(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Text(text) => 2 * text.len(),
            Value::Json(json) => 2 * json.as_str().len(),
            _ => 40,
        };
        256 + self.values.0.iter().map(of).sum::<usize>()
    }

    /// The bytes that it has in an answer, about.
    pub fn answer_bytes(&self) -> usize {
        let of = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Json(json) => json.as_str().len(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Decimal(_)
            | Value::Wide(_)
            | Value::Time(_) => 24,
        };
        128 + self.values.0.iter().map(of).sum::<usize>()
    }

    fn write_whole(&self, schema: &Schema, mask: bool) -> String {
        let mut out = String::with_capacity(256);
        self.write_head(schema, &mut out);
        for (field, value) in schema.fields.iter().zip(&self.values.0).filter(|(field, _)| !field.internal) {
            out.push(',');
            write_json_text(&field.name, &mut out);
            out.push(':');
            if mask && field.encrypted && !value.is_null() {
                out.push_str("\"***\"");
            } else {
                field.write_json(value, &mut out);
            }
        }
        out.push('}');
        out
    }

    /// Appends `{"id":…,"version":…,"created_at":…,"updated_at":…`, without the closing brace.
    pub fn write_head(&self, schema: &Schema, out: &mut String) {
        use fmt::Write;
        out.push('{');
        write_json_text(&schema.key, out);
        out.push(':');
        write_json_text(self.key.as_str(), out);
        _ = write!(
            out,
            ",\"version\":{},\"created_at\":\"{}\",\"updated_at\":\"{}\"",
            self.version, self.created_at, self.updated_at
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_any_text_of_255_bytes() {
        for good in [
            "",
            " ",
            "k050 b",
            "Zürich",
            "AB/12",
            "_under",
            "a,b",
            "100%",
            "\"",
            "a\nb",
            "a ",
            &"a".repeat(255),
        ] {
            assert!(good.parse::<Key>().is_ok(), "{good}");
        }
        for bad in ["a\0", &"a".repeat(256), &"é".repeat(128)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_keys_are_safe_in_paths_topics_and_redis() {
        for good in ["1", "sku-42", "a.b_c~d:e@f", Key::generate().as_str()] {
            assert_eq!(Key::plain_fault(good), None, "{good}");
        }
        for bad in ["", " ", "-a", "a b", "a/b", "a\0", "é", "{x}", &"a".repeat(129)] {
            assert!(Key::plain_fault(bad).is_some(), "{bad}");
        }
    }
}
