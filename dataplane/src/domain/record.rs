//! Keys, versions and records.

use std::{fmt, str::FromStr};

use super::{
    schema::Schema,
    value::{Timestamp, Value, write_json_text},
};

/// Identifies a record in its collection: 1 to 128 letters, digits and `. _ ~ : @ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Counts the changes of one key from 1, and only grows, also across a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// The values of a record, in the order of its schema's fields.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Row(pub Vec<Value>);

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
}

impl Key {
    /// The longest key, in bytes.
    pub const MAX: usize = 128;

    /// A new key that sorts by its time of making: a UUIDv7.
    pub fn generate() -> Self {
        Self(super::ids::next().to_string())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(byte);
        let bytes = text.as_bytes();
        let sound =
            bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.len() <= Self::MAX && bytes.iter().all(inner);
        if sound {
            Ok(Self(text))
        } else {
            Err("must be 1 to 128 letters, digits and . _ ~ : @ -, the first a letter or digit".to_owned())
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Version {
    /// The version after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Record {
    /// The record as a JSON object: key, version, times, then the fields in the schema's order.
    pub fn to_json(&self, schema: &Schema) -> String {
        self.write_whole(schema, false)
    }

    /// The record as a JSON object, with `"***"` for the values of encrypted fields: for events, audit rows and logs.
    pub fn to_masked_json(&self, schema: &Schema) -> String {
        self.write_whole(schema, true)
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
    fn keys_are_safe_in_paths_topics_and_redis() {
        for good in ["1", "sku-42", "a.b_c~d:e@f", &Key::generate().to_string()] {
            assert!(good.parse::<Key>().is_ok(), "{good}");
        }
        for bad in ["", " ", "-a", "a b", "a/b", "a\0", "é", "{x}", &"a".repeat(129)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }
}
