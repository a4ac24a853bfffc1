//! Events of changed records: the envelope that Kafka, WebSockets and outboxes share, and the outbox as
//! relays see it.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ids,
    key::{Key, Version},
    value::Timestamp,
};

/// The version of the form that events have, and records in them: another one breaks who reads them.
pub const SCHEMA_VERSION: u32 = 1;

/// Names the schema of a type of event: the path at which it is served.
pub fn schema_id(kind: &str) -> String {
    format!("/schemas/{kind}/{SCHEMA_VERSION}")
}

/// One event. Versions order the events of one key; the cursor is the place in the whole feed, known once it
/// is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Identifies the event; a repeated delivery has the same.
    pub id: Uuid,
    /// What happened: `product_created`, `product_updated`, `product_deleted`, `health_check`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The entity: `product`.
    pub entity: String,
    /// The record's key; the replica for `health_check`.
    pub key: String,
    /// The version of the record that the change made; 0 for `health_check`.
    pub version: u64,
    /// The place in the feed; none until it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// When it was committed: RFC 3339 with milliseconds.
    pub at: String,
    /// The key of the user whose the record is, or was before it was deleted; none where it is nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The record as the API shows it, encrypted fields masked; null for a delete.
    pub data: Option<Box<RawValue>>,
}

/// What the change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The record came to be.
    Created,
    /// It has new values.
    Updated,
    /// It is gone.
    Deleted,
}

/// A store's committed events that are not yet published. Rows of one key are claimed by one owner at a time,
/// in the order of their versions.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims up to `limit` events for `owner`, oldest first. A claim lasts for `lease`, or until it is
    /// confirmed.
    async fn claim(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, OutboxError>;

    /// Removes published events. Unknown ids are ignored.
    async fn confirm(&self, owner: &str, ids: &[Uuid]) -> Result<(), OutboxError>;

    /// Gives up the owner's claims at once, so that another may go on.
    async fn release(&self, owner: &str) -> Result<(), OutboxError>;

    /// How many committed events are not yet published, and the age of the oldest.
    async fn backlog(&self) -> Result<Backlog, OutboxError>;
}

/// What a claim got.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The owner's events, oldest first.
    pub events: Vec<Envelope>,
    /// Whether more wait that another owner holds: it may give them up at any moment.
    pub blocked: bool,
    /// Until when the claim surely lasts, by the clock of this process that no correction moves; none where
    /// nothing was claimed.
    pub until: Option<Instant>,
}

/// What an outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// The age of the oldest, in milliseconds.
    pub oldest_ms: u64,
}

/// The store of an outbox cannot be reached or refused.
#[derive(Debug, thiserror::Error)]
#[error("outbox: {0}")]
pub struct OutboxError(pub String);

impl Envelope {
    /// The event of a committed change of a record that is nobody's. `data` is the record's JSON, masked;
    /// none for a delete.
    pub fn of_change(
        entity: &str,
        happening: Happening,
        key: &Key,
        version: Version,
        at: Timestamp,
        data: Option<String>,
    ) -> Self {
        let suffix = match happening {
            Happening::Created => "created",
            Happening::Updated => "updated",
            Happening::Deleted => "deleted",
        };
        Self {
            id: ids::next(),
            kind: format!("{entity}_{suffix}"),
            entity: entity.to_owned(),
            key: key.to_string(),
            version: version.0,
            cursor: None,
            at: at.to_string(),
            owner: None,
            data: data.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}
