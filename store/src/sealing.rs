//! Encrypted fields at rest: a value is sealed as its JSON, bound to its table, key and field.

use model::{
    key::Key,
    schema::{Field, Kind},
    seal::Sealer,
    value::{Json, Value},
};

use super::StoreError;

/// The sealed text of a value; none for null, which is not hidden.
pub fn seal(sealer: &dyn Sealer, table: &str, key: &Key, field: &Field, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let mut plain = String::new();
    value.write_json(&mut plain);
    Some(sealer.seal(plain.as_bytes(), &context(table, key, field)))
}

/// The value of a sealed text.
///
/// # Errors
/// `Corrupt` where it cannot be opened or is not of the field's kind.
pub fn open(
    sealer: &dyn Sealer,
    table: &str,
    key: &Key,
    field: &Field,
    sealed: &str,
) -> Result<Value, StoreError> {
    let wrong = |why: &str| StoreError::Corrupt(format!("{} of {table} {key}: {why}", field.name));
    let plain =
        sealer.open(sealed, &context(table, key, field)).map_err(|error| wrong(&error.to_string()))?;
    let text = std::str::from_utf8(&plain).map_err(|_| wrong("not text"))?;
    parse(&field.kind, text).ok_or_else(|| wrong("not of the field's kind"))
}

fn context(table: &str, key: &Key, field: &Field) -> String {
    format!("{table}/{key}/{}", field.name)
}

/// The value of a kind from the JSON that it was written as.
pub fn parse(kind: &Kind, json: &str) -> Option<Value> {
    let text = || serde_json::from_str::<String>(json).ok();
    Some(match kind {
        Kind::Text { .. } | Kind::Choice(_) => Value::Text(text()?),
        Kind::Int { .. } => Value::whole(bare(json))?,
        Kind::Decimal { .. } => Value::exact(bare(json))?,
        Kind::Bool => Value::Bool(json.parse().ok()?),
        Kind::Time => Value::Time(text()?.parse().ok()?),
        Kind::Json { .. } => Value::Json(Json::parse(json).ok()?),
    })
}

/// A number, whether it was written as one or as text.
fn bare(json: &str) -> &str {
    json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json)
}
