//! Records as documents: `_id`, the version, times, the fields by their names, and beside them what the store keeps:
//! `_deleted_at` marks a tombstone, `_pending` holds events that are not yet published.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use mongodb::Collection as Handle;

use super::{
    super::{apply::State, sealing},
    StoreError,
    values::{from_bson, int_of, time_to_bson, to_bson},
};
use crate::domain::{
    change::Collection,
    record::{Key, Record, Row, Version},
    schema::Field,
    seal::Sealer,
    value::{Timestamp, Value},
};

/// When a record was deleted: its document is a tombstone.
pub const DELETED_AT: &str = "_deleted_at";
/// The events that are not yet published.
pub const PENDING: &str = "_pending";
/// The time of the oldest of them, or an older one.
pub const PENDING_AT: &str = "_pending_at";
/// The outbox shard of the record.
pub const SHARD: &str = "_shard";

/// A collection as MongoDB has it.
pub struct Documents {
    /// The collection.
    pub collection: Collection,
    /// Its documents.
    pub handle: Handle<Document>,
    /// What its `_id` are.
    pub key: KeyForm,
    /// The field of the version.
    pub version: String,
    /// Why it cannot be written.
    pub read_only: Option<String>,
    /// Opens and seals encrypted fields.
    pub sealer: Arc<dyn Sealer>,
}

/// What the `_id` of a collection are. Declared ones may have other than text: then all must be of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Text.
    Text,
    /// ObjectIds, shown as 24 hexadecimal digits.
    ObjectId,
    /// Whole numbers.
    Int,
}

impl Documents {
    /// The `_id` of a key; none where no document of this collection can have it.
    pub fn id(&self, key: &str) -> Option<Bson> {
        match self.key {
            KeyForm::Text => Some(Bson::String(key.to_owned())),
            KeyForm::ObjectId => ObjectId::parse_str(key).ok().filter(|id| id.to_hex() == key).map(Bson::ObjectId),
            KeyForm::Int => key.parse::<i64>().ok().filter(|number| number.to_string() == key).map(Bson::Int64),
        }
    }

    /// The `_id` of a key that is to be written.
    pub fn id_of(&self, key: &Key) -> Result<Bson, StoreError> {
        self.id(key.as_str())
            .ok_or_else(|| StoreError::Unsupported(format!("the keys of {} are of another type", self.collection.name)))
    }

    /// What a document says of its key.
    pub fn state(&self, document: &Document) -> Result<(Key, State), StoreError> {
        let key = self.key_of(document)?;
        let version = self.version_of(document, &key)?;
        if document.contains_key(DELETED_AT) {
            return Ok((key, State::Absent(version)));
        }
        let time = |name: &str| match document.get(name) {
            Some(Bson::DateTime(time)) => Timestamp(time.timestamp_millis()),
            _ => Timestamp(0),
        };
        let fields = self.collection.schema.fields.iter();
        let values = fields.map(|field| self.value(document, &key, field)).collect::<Result<_, StoreError>>()?;
        let (created_at, updated_at) = (time("created_at"), time("updated_at"));
        Ok((key.clone(), State::Present(Record { key, version, created_at, updated_at, values: Row(values) })))
    }

    fn key_of(&self, document: &Document) -> Result<Key, StoreError> {
        let text = match document.get("_id") {
            Some(Bson::String(text)) if self.key == KeyForm::Text => Some(text.clone()),
            Some(Bson::ObjectId(id)) if self.key == KeyForm::ObjectId => Some(id.to_hex()),
            Some(bson) if self.key == KeyForm::Int => int_of(bson).map(|number| number.to_string()),
            _ => None,
        };
        let name = &self.collection.name;
        let text = text.ok_or_else(|| StoreError::Corrupt(format!("{name} has _ids of several types")))?;
        text.parse().map_err(|why| StoreError::Corrupt(format!("the _id {text:?} of {name} {why}")))
    }

    /// Documents that other programs wrote may have no version yet: theirs is 1.
    fn version_of(&self, document: &Document, key: &Key) -> Result<Version, StoreError> {
        let version = match (&self.collection.version_column, document.get(&self.version)) {
            (None, _) => match document.get("updated_at") {
                Some(Bson::DateTime(time)) => Some(time.timestamp_millis().saturating_mul(1000)),
                _ => Some(1),
            },
            (Some(_), None | Some(Bson::Null)) => Some(1),
            (Some(_), Some(bson)) => int_of(bson),
        };
        let version = version.and_then(|version| u64::try_from(version).ok());
        version.map(Version).ok_or_else(|| {
            StoreError::Corrupt(format!("the version of {key} in {} is no whole number", self.collection.name))
        })
    }

    fn value(&self, document: &Document, key: &Key, field: &Field) -> Result<Value, StoreError> {
        let (name, bson) = (&self.collection.name, document.get(&field.name));
        if let (true, Some(Bson::String(sealed))) = (field.encrypted, bson) {
            return sealing::open(self.sealer.as_ref(), name, key, field, sealed);
        }
        let value = match (field.encrypted, bson) {
            (true, None | Some(Bson::Null)) => Ok(Value::Null),
            (true, Some(_)) => Err("it is not encrypted".to_owned()),
            (false, bson) => from_bson(&field.kind, bson),
        };
        value.map_err(|why| StoreError::Corrupt(format!("{} of {key} in {name}: {why}", field.name)))
    }

    /// The parts of an update that makes a document this record: what is set and what is taken away.
    pub fn parts(&self, record: &Record) -> (Document, Document) {
        let mut set = doc! {
            &self.version: record.version.0 as i64,
            "created_at": time_to_bson(record.created_at),
            "updated_at": time_to_bson(record.updated_at),
        };
        let mut unset = doc! { DELETED_AT: "" };
        for (field, value) in self.collection.schema.fields.iter().zip(&record.values.0) {
            let bson = match field.encrypted {
                true => sealing::seal(self.sealer.as_ref(), &self.collection.name, &record.key, field, value)
                    .map(Bson::String),
                false => to_bson(value),
            };
            match bson {
                Some(bson) => _ = set.insert(&field.name, bson),
                None => _ = unset.insert(&field.name, ""),
            }
        }
        (set, unset)
    }

    /// The parts of an update that makes a document the tombstone of a version.
    pub fn tombstone(&self, version: Version, at: Timestamp) -> (Document, Document) {
        let set = doc! { &self.version: version.0 as i64, DELETED_AT: DateTime::from_millis(at.0) };
        let mut unset = doc! { "created_at": "", "updated_at": "" };
        for field in &self.collection.schema.fields {
            unset.insert(&field.name, "");
        }
        (set, unset)
    }

    /// What a taken index means: the key is there, or the value of a field.
    pub fn taken(&self, index: &str) -> StoreError {
        if index == "_id_" {
            return StoreError::Exists;
        }
        let of_field = |field: &&Field| index == unique_index(field) || index == format!("{}_1", field.name);
        let field = self.collection.schema.fields.iter().find(of_field);
        StoreError::Duplicate { field: field.map_or(index, |field| &field.name).to_owned() }
    }
}

/// The name of the index that makes a field unique.
pub fn unique_index(field: &Field) -> String {
    format!("{}_unique", field.name)
}
