//! The audit: who changed what and when, with the record before and after. Entries are only ever added.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{event::Envelope, value::Timestamp};

/// One change of one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The id of the change's event.
    pub id: Uuid,
    /// When: RFC 3339 with milliseconds.
    pub at: String,
    /// Who: the token's subject, or `anonymous`.
    pub actor: String,
    /// The entity: `product`.
    pub entity: String,
    /// The record's key.
    pub key: String,
    /// What was done: `created`, `updated` or `deleted`.
    pub action: String,
    /// The version that the change made.
    pub version: u64,
    /// The record before, encrypted fields masked; null for a create.
    pub before: Option<Box<RawValue>>,
    /// The record after, encrypted fields masked; null for a delete.
    pub after: Option<Box<RawValue>>,
}

/// Which entries, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Of which entities.
    pub entities: Vec<String>,
    /// Of which record; none is all.
    pub key: Option<String>,
    /// By whom; none is everybody.
    pub actor: Option<String>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// After this place in the order: an entry's time and id.
    pub after: Option<(Timestamp, Uuid)>,
    /// The most entries.
    pub limit: u32,
}

impl AuditEntry {
    /// The entry of a change: what its event says, by whom it was made, and the record before as masked JSON.
    pub fn of_event(event: Envelope, actor: String, before: Option<String>) -> Self {
        let Envelope { id, kind, entity, key, version, cursor: _, at, data } = event;
        let action = kind.rsplit_once('_').map_or(kind.as_str(), |(_, action)| action).to_owned();
        let before = before.and_then(|json| RawValue::from_string(json).ok());
        Self { id, at, actor, entity, key, action, version, before, after: data }
    }
}
