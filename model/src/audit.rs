//! The audit: who changed what and when, with the record before and after. Entries are only ever added.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    event::Envelope,
    query::{HELD_PER_BYTE, PAGE_BYTES_MAX},
    value::Timestamp,
};
use crate::budget::Allowance;

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
    /// How much memory they may take; they end early where there is no more.
    pub allowance: Allowance,
}

/// The entries that a query finds, oldest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFound {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Whether there are further ones after the last of them.
    pub more: bool,
}

/// Takes entries in their order, as many as a query may have.
pub struct AuditPart<'a> {
    query: &'a AuditQuery,
    found: AuditFound,
    bytes: usize,
}

impl<'a> AuditPart<'a> {
    /// No entry yet.
    pub fn new(query: &'a AuditQuery) -> Self {
        Self { query, found: AuditFound::default(), bytes: 0 }
    }

    /// Takes the next entry, if it is among the first `limit` ones and there is room. Says whether to go on.
    pub fn push(&mut self, entry: AuditEntry) -> bool {
        let (AuditFound { entries, more }, bytes) = (&mut self.found, entry.bytes());
        let is_full = entries.len() >= self.query.limit as usize
            || (!entries.is_empty() && self.bytes + bytes > PAGE_BYTES_MAX)
            || !self.query.allowance.take(HELD_PER_BYTE * bytes);
        *more |= is_full;
        if !*more {
            self.bytes += bytes;
            entries.push(entry);
        }
        !*more
    }

    /// What was taken; none where there was no room for the first one.
    pub fn found(self) -> Option<AuditFound> {
        let is_refused = self.found.more && self.found.entries.is_empty();
        (!is_refused).then_some(self.found)
    }
}

impl AuditEntry {
    /// The bytes that it has in an answer, about.
    pub fn bytes(&self) -> usize {
        let json =
            [&self.before, &self.after].into_iter().flatten().map(|json| json.get().len()).sum::<usize>();
        256 + json + self.actor.len() + self.key.len()
    }

    /// The entry of a change: what its event says, by whom it was made, and the record before as masked JSON.
    pub fn of_event(event: Envelope, actor: String, before: Option<String>) -> Self {
        let Envelope { id, kind, entity, key, version, cursor: _, at, owner: _, data } = event;
        let action = kind.rsplit_once('_').map_or(kind.as_str(), |(_, action)| action).to_owned();
        let before = before.and_then(|json| RawValue::from_string(json).ok());
        Self { id, at, actor, entity, key, action, version, before, after: data }
    }
}
