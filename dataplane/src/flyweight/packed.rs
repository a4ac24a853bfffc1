//! The compact form of whole records, for caches outside the process. Encrypted fields are sealed in it.

use crate::domain::{
    record::{Key, Record},
    schema::{Field, Schema},
    seal::Sealer,
    value::Value,
};

use super::codec::{CodecError, decode, value};

/// The record as compact bytes, encrypted values sealed under the context `collection/key/field`.
///
/// # Errors
/// A value is not of its field's kind.
pub fn pack(schema: &Schema, record: &Record, sealer: &dyn Sealer) -> Result<Vec<u8>, CodecError> {
    let mut sealed = record.clone();
    for (field, value) in schema.fields.iter().zip(&mut sealed.values.0).filter(|(field, _)| field.encrypted) {
        if !value.is_null() {
            let mut plain = String::new();
            value.write_json(&mut plain);
            let text = sealer.seal(plain.as_bytes(), &context(schema, &record.key, field));
            *value = Value::Text(text);
        }
    }
    Ok(sealed.to_json(schema).into_bytes())
}

/// The record that packed bytes speak of.
///
/// # Errors
/// The bytes are not of this schema (it was changed since: take it as a miss), or an encrypted value cannot be opened.
pub fn unpack(schema: &Schema, key: &Key, bytes: &[u8], sealer: &dyn Sealer) -> Result<Record, CodecError> {
    let mut plain = schema.clone();
    for field in plain.fields.iter_mut().filter(|field| field.encrypted) {
        field.kind = crate::domain::schema::Kind::Text { max: usize::MAX, form: crate::domain::schema::Form::Any };
    }
    let mut record = decode(&plain, bytes)?;
    for (field, slot) in schema.fields.iter().zip(&mut record.values.0).filter(|(field, _)| field.encrypted) {
        if let Some(text) = slot.as_text() {
            let json = sealer.open(text, &context(schema, key, field))?;
            let json = std::str::from_utf8(&json).unwrap_or_default();
            *slot = value(&field.kind, json).ok_or_else(|| CodecError::Mismatch(field.name.clone()))?;
        }
    }
    Ok(record)
}

fn context(schema: &Schema, key: &Key, field: &Field) -> String {
    format!("{}/{key}/{}", schema.collection, field.name)
}
