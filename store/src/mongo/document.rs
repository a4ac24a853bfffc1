//! Records as documents: `_id`, the version, times, the fields by their names, and beside them what the store
//! keeps: `_deleted_at` marks a tombstone, `_pending` holds events that are not yet published.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc, oid::ObjectId};
use mongodb::Collection as Handle;

use super::{
    super::{
        apply::State,
        odd::{Odd, Reading},
        sealing,
    },
    StoreError,
    values::{from_bson, int_of, is_held, odd, time_to_bson, to_bson},
};
use model::{
    change::Collection,
    key::{Key, Version},
    record::{Named, Oddity, Record},
    schema::{Field, FieldRef},
    seal::Sealer,
    value::{Row, Timestamp, Value},
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

impl KeyForm {
    /// The `_id` of this form that a key stands for.
    fn id(self, key: &str) -> Option<Bson> {
        match self {
            Self::Text => Some(Bson::String(key.to_owned())),
            Self::ObjectId => {
                ObjectId::parse_str(key).ok().filter(|id| id.to_hex() == key).map(Bson::ObjectId)
            }
            Self::Int => key.parse::<i64>().ok().filter(|number| number.to_string() == key).map(Bson::Int64),
        }
    }

    /// Whether an `_id` is of this form.
    pub fn has(self, id: &Bson) -> bool {
        match self {
            Self::Text => matches!(id, Bson::String(_)),
            Self::ObjectId => matches!(id, Bson::ObjectId(_)),
            Self::Int => int_of(id).is_some(),
        }
    }
}

/// The text that a key is shown and asked for by.
fn key_text(id: &Bson) -> Option<String> {
    match id {
        Bson::String(text) => Some(text.clone()),
        Bson::ObjectId(id) => Some(id.to_hex()),
        other => int_of(other).map(|number| number.to_string()),
    }
}

impl Documents {
    /// Its documents by their bytes.
    pub fn raw(&self) -> Handle<RawDocumentBuf> {
        self.handle.clone_with_type()
    }

    /// The `_id` of a key; none where no document of this collection can have it.
    pub fn id(&self, key: &str) -> Option<Bson> {
        self.key.id(key)
    }

    /// The `_id` of a key that is to be written.
    pub fn id_of(&self, key: &Key) -> Result<Bson, StoreError> {
        self.id(key.as_str()).ok_or_else(|| {
            StoreError::Unsupported(format!("the keys of {} are of another type", self.collection.name))
        })
    }

    /// The `_id`s that a key may stand for: that of the collection's form first, then those that other
    /// programs may have mixed in.
    pub fn ids(&self, key: &str) -> Vec<Bson> {
        let own = self.id(key);
        let others =
            [KeyForm::Text, KeyForm::ObjectId, KeyForm::Int].into_iter().filter(|form| *form != self.key);
        own.into_iter().chain(others.filter_map(|form| form.id(key))).collect()
    }

    /// What a document says of its key.
    ///
    /// # Errors
    /// It has no key that anybody could ask for it by.
    pub fn state(&self, document: &Document) -> Result<(Key, State), Named> {
        let id = document.get("_id").unwrap_or(&Bson::Null);
        let nameless = |key: Option<String>| Named { key, field: self.collection.schema.key.clone() };
        let text = key_text(id).ok_or_else(|| nameless(None))?;
        let key: Key =
            text.clone().try_into().map_err(|_| nameless(Some(text.chars().take(Key::MAX).collect())))?;
        let mut oddities = Vec::new();
        let mut note = |at: FieldRef, field: &str, Odd { kind, length }: Odd| {
            oddities.push(Oddity { at, field: field.to_owned(), kind, length });
        };
        if !self.key.has(id) {
            note(FieldRef::Key, &self.collection.schema.key, odd(id));
        }
        let version = self.version_of(document).unwrap_or_else(|what| {
            note(FieldRef::Version, "version", what);
            Version(0)
        });
        if document.contains_key(DELETED_AT) {
            return Ok((key, State::Absent(version)));
        }
        let mut time = |name: &str, at: FieldRef| match document.get(name) {
            Some(bson @ Bson::DateTime(time)) => {
                Timestamp::checked(time.timestamp_millis()).unwrap_or_else(|| {
                    note(at, name, odd(bson));
                    Timestamp(0)
                })
            }
            _ => Timestamp(0),
        };
        let created_at = time("created_at", FieldRef::CreatedAt);
        let updated_at = time("updated_at", FieldRef::UpdatedAt);
        let mut values = Vec::with_capacity(self.collection.schema.fields.len());
        for (index, field) in self.collection.schema.fields.iter().enumerate() {
            values.push(self.value(document, &key, field).unwrap_or_else(|what| {
                note(FieldRef::Field(index), &field.name, what);
                Value::Null
            }));
        }
        let record = Record { key: key.clone(), version, created_at, updated_at, values: Row(values) };
        Ok((
            key,
            match Reading::of(record, oddities) {
                Reading::Whole(record) => State::Present(record),
                Reading::Unreadable(unreadable) => State::Unreadable(unreadable),
                Reading::Keyless(named) => return Err(named),
            },
        ))
    }

    /// A document as a list takes it; none for a tombstone.
    pub fn reading(&self, document: &Document) -> Option<Reading> {
        match self.state(document) {
            Ok((_, State::Present(record))) => Some(Reading::Whole(record)),
            Ok((_, State::Unreadable(unreadable))) => Some(Reading::Unreadable(unreadable)),
            Ok((_, State::Absent(_))) => None,
            Err(named) => Some(Reading::Keyless(named)),
        }
    }

    /// Documents that other programs wrote may have no version yet: theirs is 1.
    fn version_of(&self, document: &Document) -> Result<Version, Odd> {
        let (bson, version) = match (&self.collection.version_column, document.get(&self.version)) {
            (None, _) => match document.get("updated_at") {
                Some(bson @ Bson::DateTime(time)) => {
                    (bson, Some(time.timestamp_millis().saturating_mul(1000)))
                }
                _ => return Ok(Version(1)),
            },
            (Some(_), None | Some(Bson::Null)) => return Ok(Version(1)),
            (Some(_), Some(bson)) => (bson, int_of(bson)),
        };
        let version = version.and_then(|version| u64::try_from(version).ok());
        version.map(Version).ok_or_else(|| odd(bson))
    }

    fn value(&self, document: &Document, key: &Key, field: &Field) -> Result<Value, Odd> {
        let (name, bson) = (&self.collection.name, document.get(&field.name));
        match (field.encrypted, bson) {
            (true, Some(Bson::String(sealed))) => {
                sealing::open(self.sealer.as_ref(), name, key, field, sealed)
                    .map_err(|_| Odd::new("a sealed text that cannot be opened", sealed.len() as u64))
            }
            (true, None | Some(Bson::Null)) => Ok(Value::Null),
            (true, Some(bson)) => Err(odd(bson)),
            (false, bson) => from_bson(&field.kind, bson),
        }
    }

    /// Refuses a number that a document would not hold exactly.
    ///
    /// # Errors
    /// `Unsupported`, naming the field.
    pub fn check_numbers(&self, record: &Record) -> Result<(), StoreError> {
        let fields = self.collection.schema.fields.iter().zip(&record.values.0);
        match fields.clone().find(|(field, value)| !field.encrypted && !is_held(value)) {
            Some((field, _)) => Err(StoreError::Unsupported(format!(
                "{} has more than 34 digits, the most that MongoDB holds",
                field.name
            ))),
            None => Ok(()),
        }
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
