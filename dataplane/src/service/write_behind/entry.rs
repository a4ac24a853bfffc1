//! An entry of the log: the state of a key that follows a version of it. Readable after fields were added or
//! taken away.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use model::{
    change::Collection,
    event::{Envelope, Happening},
    field::value_of,
    key::{Key, Version},
    record::Record,
    seal::Sealer,
    value::{Row, Timestamp, Value, write_json_text},
};
use store::{StoreError, apply::State};

/// The state that a write gives a key.
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The version that it follows.
    pub base: Version,
    /// The state.
    pub state: State,
    /// Who did it.
    pub actor: String,
}

/// Entries to envelopes and back, for one pool.
pub struct Codec {
    collection: Arc<Collection>,
    sealer: Arc<dyn Sealer>,
    sealed: bool,
}

/// What an envelope holds.
#[derive(Serialize, Deserialize)]
struct Data {
    base: u64,
    actor: String,
    /// None for a delete.
    record: Option<Stored>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    created_at_ms: i64,
    updated_at_ms: i64,
    /// The fields as JSON or, where any is encrypted, all of them sealed.
    fields: Fields,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fields {
    Plain(Box<RawValue>),
    Sealed(String),
}

impl Codec {
    /// The codec of a pool.
    pub fn new(collection: Arc<Collection>, sealer: Arc<dyn Sealer>) -> Self {
        let sealed = collection.schema.fields.iter().any(|field| field.encrypted);
        Self { collection, sealer, sealed }
    }

    /// The entry as the log takes it.
    ///
    /// # Errors
    /// `Unsupported`: a defect.
    pub fn encode(&self, entry: &Entry) -> Result<Envelope, StoreError> {
        let Entry { key, base, state, actor } = entry;
        let defect = |error: serde_json::Error| StoreError::Unsupported(error.to_string());
        let record = match state {
            State::Absent(_) => None,
            State::Present(_) | State::Unreadable(_) => {
                let Some(record) = state.record() else { return Err(StoreError::NotFound) };
                let text = self.fields(record);
                let fields = match self.sealed {
                    true => Fields::Sealed(self.sealer.seal(text.as_bytes(), &self.context(key))),
                    false => Fields::Plain(RawValue::from_string(text).map_err(defect)?),
                };
                Some(Stored {
                    created_at_ms: record.created_at.0,
                    updated_at_ms: record.updated_at.0,
                    fields,
                })
            }
        };
        let happening = if record.is_some() { Happening::Updated } else { Happening::Deleted };
        let data =
            serde_json::to_string(&Data { base: base.0, actor: actor.clone(), record }).map_err(defect)?;
        let pool = &self.collection.pool;
        Ok(Envelope::of_change(pool, happening, key, state.version(), Timestamp::now(), Some(data)))
    }

    /// The entry in an envelope; none where it is of another pool.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn decode(&self, envelope: &Envelope) -> Result<Option<Entry>, String> {
        if envelope.entity != self.collection.pool {
            return Ok(None);
        }
        let key: Key = envelope.key.parse()?;
        let data = envelope.data.as_ref().ok_or("there is nothing in it")?;
        let Data { base, actor, record } =
            serde_json::from_str(data.get()).map_err(|error| error.to_string())?;
        let version = Version(envelope.version);
        let state = match record {
            None => State::Absent(version),
            Some(Stored { created_at_ms, updated_at_ms, fields }) => {
                let text = match fields {
                    Fields::Plain(raw) => raw.get().to_owned(),
                    Fields::Sealed(sealed) => {
                        let plain = self
                            .sealer
                            .open(&sealed, &self.context(&key))
                            .map_err(|error| error.to_string())?;
                        String::from_utf8(plain).map_err(|error| error.to_string())?
                    }
                };
                let (created_at, updated_at) = (Timestamp(created_at_ms), Timestamp(updated_at_ms));
                State::Present(Record {
                    key: key.clone(),
                    version,
                    created_at,
                    updated_at,
                    values: self.row(&text)?,
                })
            }
        };
        Ok(Some(Entry { key, base: Version(base), state, actor }))
    }

    fn fields(&self, record: &Record) -> String {
        let mut out = String::from("{");
        for (field, value) in
            self.collection.schema.fields.iter().zip(&record.values.0).filter(|(_, value)| !value.is_null())
        {
            if out.len() > 1 {
                out.push(',');
            }
            write_json_text(&field.name, &mut out);
            out.push(':');
            value.write_json(&mut out);
        }
        out.push('}');
        out
    }

    fn row(&self, text: &str) -> Result<Row, String> {
        let fields: HashMap<String, &RawValue> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let values = self.collection.schema.fields.iter().map(|field| match fields.get(&field.name) {
            None => Ok(Value::Null),
            Some(raw) => {
                value_of(field, raw.get()).map_err(|fault| format!("{} {}", fault.field, fault.message))
            }
        });
        Ok(Row(values.collect::<Result<_, _>>()?))
    }

    fn context(&self, key: &Key) -> String {
        format!("{}/{key}/write-behind", self.collection.name)
    }
}
