//! What a unit of work was answered, as text that is kept under its idempotency key; sealed where a record
//! has encrypted fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{StoreError, sealing};
use model::{
    change::{Collection, Idempotency, Written},
    key::{Key, Version},
    record::Record,
    schema::{Field, Schema},
    seal::Sealer,
    value::{Row, Timestamp, Value},
};

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    version: u64,
    created: bool,
    record: Option<Box<RawValue>>,
}

/// The text of an answer, which has one entry for each of the collections.
pub fn encode<'a>(
    written: &[Written],
    collections: impl Iterator<Item = &'a Collection> + Clone,
    idempotency: &Idempotency,
    sealer: &dyn Sealer,
) -> Result<String, StoreError> {
    let unfit = |error: serde_json::Error| StoreError::Unsupported(error.to_string());
    let mut kept = Vec::with_capacity(written.len());
    for (one, collection) in written.iter().zip(collections.clone()) {
        let json =
            one.record.as_ref().map(|record| RawValue::from_string(record.to_json(&collection.schema)));
        let record = json.transpose().map_err(unfit)?;
        kept.push(Kept { key: one.key.to_string(), version: one.version.0, created: one.created, record });
    }
    let text = serde_json::to_string(&kept).map_err(unfit)?;
    Ok(if sealed(collections) { sealer.seal(text.as_bytes(), &context(idempotency)) } else { text })
}

/// The answer of a text.
///
/// # Errors
/// `Corrupt` where it is none of these collections.
pub fn decode<'a>(
    text: &str,
    collections: impl Iterator<Item = &'a Collection>,
    idempotency: &Idempotency,
    sealer: &dyn Sealer,
) -> Result<Vec<Written>, StoreError> {
    // a plain answer is a list
    let opened = match text.starts_with('[') {
        false => {
            let plain = sealer
                .open(text, &context(idempotency))
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            Some(String::from_utf8(plain).map_err(|_| unreadable())?)
        }
        true => None,
    };
    let kept: Vec<Kept> =
        serde_json::from_str(opened.as_deref().unwrap_or(text)).map_err(|_| unreadable())?;
    let mut written = Vec::with_capacity(kept.len());
    for (Kept { key, version, created, record }, collection) in kept.into_iter().zip(collections) {
        let record = record
            .map(|json| record_of(&collection.schema, json.get()).ok_or_else(unreadable))
            .transpose()?;
        let key = key.parse().map_err(|_| unreadable())?;
        written.push(Written { key, version: Version(version), record, created, repeated: true });
    }
    Ok(written)
}

fn sealed<'a>(mut collections: impl Iterator<Item = &'a Collection>) -> bool {
    collections.any(|collection| collection.schema.fields.iter().any(|field| field.encrypted))
}

fn context(idempotency: &Idempotency) -> String {
    format!("idempotency/{}", idempotency.key)
}

fn unreadable() -> StoreError {
    StoreError::Corrupt("an answer kept under an idempotency key cannot be read".to_owned())
}

fn record_of(schema: &Schema, json: &str) -> Option<Record> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).ok()?;
    let text = |name: &str| serde_json::from_str::<String>(members.get(name)?.get()).ok();
    let time = |name: &str| text(name)?.parse::<Timestamp>().ok();
    // internal fields are shown nowhere, and so not kept either
    let value = |field: &Field| match members.get(&field.name).map(|raw| raw.get()) {
        None if field.internal => Some(Value::Null),
        Some("null") => Some(Value::Null),
        raw => sealing::parse(&field.kind, raw?),
    };
    Some(Record {
        key: text(&schema.key)?.parse::<Key>().ok()?,
        version: Version(members.get("version")?.get().parse().ok()?),
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
        values: Row(schema.fields.iter().map(value).collect::<Option<_>>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{entities::product, seal::SealError, value::Json};
    use std::sync::Arc;

    struct Turned;

    impl Sealer for Turned {
        fn seal(&self, plain: &[u8], _: &str) -> String {
            String::from_utf8_lossy(plain).chars().rev().collect()
        }

        fn open(&self, sealed: &str, _: &str) -> Result<Vec<u8>, SealError> {
            Ok(sealed.chars().rev().collect::<String>().into_bytes())
        }
    }

    #[test]
    fn an_answer_comes_back_as_it_was() {
        for encrypted in [false, true] {
            let mut schema = product::schema();
            schema.fields[1].encrypted = encrypted;
            let width = schema.fields.len();
            let mut values = vec![Value::Null; width];
            values[0] = Value::Text("T\"ea".into());
            values[1] = Value::Text("hidden".into());
            values[2] = Value::Decimal("19.9".parse().unwrap());
            let attributes = schema.fields.iter().position(|field| field.name == "attributes").unwrap();
            values[attributes] = Value::Json(Json::parse(r#"{"a":[1,null]}"#).unwrap());
            let collection = Collection {
                pool: "products".into(),
                schema: Arc::new(schema),
                name: "products".into(),
                key_column: "id".into(),
                version_column: None,
                declared: false,
            };
            let record = Record {
                key: "p".parse().unwrap(),
                version: Version(3),
                created_at: Timestamp(5),
                updated_at: Timestamp(1_769_860_800_123),
                values: Row(values),
            };
            let key: Key = "p".parse().unwrap();
            let one = |record, created| Written {
                key: key.clone(),
                version: Version(3),
                record,
                created,
                repeated: true,
            };
            let written = [one(Some(record), true), one(None, false)];
            let idempotency = Idempotency { key: "k".into(), request: "r".into() };
            let both = [&collection, &collection].into_iter();
            let text = encode(&written, both.clone(), &idempotency, &Turned).unwrap();
            assert_eq!(text.contains("hidden"), !encrypted);
            assert_eq!(decode(&text, both, &idempotency, &Turned).unwrap(), written);
        }
    }
}
