//! Records to JSON bodies in two parts, own and shared, and back.

use std::collections::HashMap;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use crate::Entry;
use model::{
    key::{Key, Version},
    record::Record,
    schema::{Field, Kind, Role, Schema},
    value::{Json, Row, Timestamp, Value, write_json_text},
};

/// Which fields of a schema are shared, by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Split(u128);

/// Why a record cannot be written, or bytes cannot be read as a record of a schema.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value is not of its field's kind, or there are more or fewer values than fields.
    #[error("the value of {0} is not of its kind")]
    Mismatch(String),
    /// The bytes are not a record of this schema.
    #[error("not a record of this schema: {0}")]
    Malformed(String),
    /// An encrypted value cannot be opened.
    #[error(transparent)]
    Seal(#[from] model::seal::SealError),
}

impl Split {
    /// The most fields that a schema may have; those after them are never shared.
    pub const FIELDS_MAX: usize = 128;

    /// Nothing is shared.
    pub const NONE: Self = Self(0);

    /// The fields that the schema declares as intrinsic. Encrypted fields are never shared.
    pub fn declared(schema: &Schema) -> Self {
        let intrinsic = |index: &usize| schema.fields[*index].role == Role::Intrinsic;
        (0..schema.fields.len()).filter(intrinsic).fold(Self::NONE, |split, index| split.with(schema, index))
    }

    /// The split with one more field, unless that field may not be shared: it is encrypted, or internal and
    /// so in no entry at all.
    #[must_use]
    pub fn with(self, schema: &Schema, index: usize) -> Self {
        let may = index < Self::FIELDS_MAX
            && schema.fields.get(index).is_some_and(|field| !field.encrypted && !field.internal);
        if may { Self(self.0 | 1 << index) } else { self }
    }

    /// The split without a field.
    #[must_use]
    pub fn without(self, index: usize) -> Self {
        if index < Self::FIELDS_MAX { Self(self.0 & !(1 << index)) } else { self }
    }

    /// Whether a field is shared.
    pub fn shares(self, index: usize) -> bool {
        index < Self::FIELDS_MAX && self.0 & 1 << index != 0
    }

    /// Whether nothing is shared.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The record as an entry: head and own fields in `own`, shared fields in `shared`, each in the schema's
/// order.
pub fn encode(schema: &Schema, record: &Record, split: Split) -> Entry {
    let (mut own, mut shared) = (String::with_capacity(256), String::new());
    record.write_head(schema, &mut own);
    let shown =
        schema.fields.iter().zip(&record.values.0).enumerate().filter(|(_, (field, _))| !field.internal);
    for (index, (field, value)) in shown {
        let out = if split.shares(index) { &mut shared } else { &mut own };
        write_member(field, value, out);
    }
    Entry { version: record.version, own: Bytes::from(own), shared: Bytes::from(shared) }
}

/// Appends `,"name":value`.
pub fn write_member(field: &Field, value: &Value, out: &mut String) {
    out.push(',');
    write_json_text(&field.name, out);
    out.push(':');
    field.write_json(value, out);
}

/// The record that a body speaks of, whatever the order of its fields. A field that is missing is null.
///
/// # Errors
/// The body is not a JSON object with the key, version and times, or has a member that is not of the schema.
pub fn decode(schema: &Schema, body: &[u8]) -> Result<Record, CodecError> {
    let malformed = |what: String| CodecError::Malformed(what);
    let mut members: HashMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    let mut take = |name: &str| members.remove(name).map(RawValue::get);
    let missing = |name: &str| malformed(format!("{name} is missing"));
    let key = take(&schema.key).and_then(text).ok_or_else(|| missing(&schema.key))?;
    let version = take("version").and_then(|raw| raw.parse().ok()).ok_or_else(|| missing("version"))?;
    let created_at = take("created_at").and_then(time).ok_or_else(|| missing("created_at"))?;
    let updated_at = take("updated_at").and_then(time).ok_or_else(|| missing("updated_at"))?;
    let mut values = Vec::with_capacity(schema.fields.len());
    for field in &schema.fields {
        let raw = take(&field.name).unwrap_or("null");
        values.push(value(&field.kind, raw).ok_or_else(|| CodecError::Mismatch(field.name.clone()))?);
    }
    if let Some(name) = members.keys().next() {
        return Err(malformed(format!("{name} is not a field")));
    }
    let key = key.parse::<Key>().map_err(malformed)?;
    Ok(Record { key, version: Version(version), created_at, updated_at, values: Row(values) })
}

/// The value of a kind that a piece of JSON text is, if it is.
pub fn value(kind: &Kind, raw: &str) -> Option<Value> {
    if raw == "null" {
        return Some(Value::Null);
    }
    match kind {
        Kind::Text { .. } | Kind::Choice(_) => text(raw).map(Value::Text),
        Kind::Int { .. } => Value::whole(bare(raw)),
        Kind::Decimal { .. } => {
            let text = bare(raw);
            Decimal::from_str_exact(text).ok().map(Value::Decimal).or_else(|| Value::exact(text))
        }
        Kind::Bool => raw.parse().ok().map(Value::Bool),
        Kind::Json { .. } => Json::parse(raw).ok().map(Value::Json),
        Kind::Time => time(raw).map(Value::Time),
    }
}

/// A number, whether it goes out as one or as text.
fn bare(raw: &str) -> &str {
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)
}

fn text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

fn time(raw: &str) -> Option<Timestamp> {
    text(raw)?.parse().ok()
}
