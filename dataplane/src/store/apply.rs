//! What a change does to a record: the rules of versions and guards, the same for every store, without I/O.

use super::StoreError;
use crate::domain::{
    change::{Action, Change, Guard, Written},
    event::{Envelope, Happening},
    record::{Lookup, Record, Row, Version},
    value::{Timestamp, Value},
};

/// What is known of a key while a unit of work is done.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The record.
    Present(Record),
    /// There is none: the version of its tombstone, or 0.
    Absent(Version),
}

/// What a change made of a state.
pub struct Applied {
    /// The state afterwards.
    pub state: State,
    /// The answer to the caller.
    pub written: Written,
    /// The event to publish.
    pub event: Envelope,
    /// The record before the change as JSON, masked, for the audit; none where there was none.
    pub before: Option<String>,
}

/// Applies a change to the state of its key.
///
/// An `Upsert` that is guarded by a version and finds no record is `Stale`: an absent record has no version.
///
/// # Errors
/// `Exists`, `NotFound` or `Stale`, as the action says; `Unsupported` where the row is not one of the schema.
pub fn apply(state: &State, change: &Change, now: Timestamp) -> Result<Applied, StoreError> {
    let before = match state {
        State::Present(record) => Some(record.to_masked_json(&change.collection.schema)),
        State::Absent(_) => None,
    };
    let (values, created) = match (&change.action, state) {
        (Action::Create { .. }, State::Present(_)) => return Err(StoreError::Exists),
        (Action::Create { values, .. }, State::Absent(_)) => (Some(values), true),
        (Action::Replace { .. } | Action::Delete { .. }, State::Absent(_)) => return Err(StoreError::NotFound),
        (Action::Replace { guard, values } | Action::Upsert { guard, values }, State::Present(record)) => {
            check(*guard, record.version)?;
            (Some(values), false)
        }
        (Action::Upsert { guard, values }, State::Absent(version)) => match guard {
            Guard::Any => (Some(values), true),
            Guard::Exactly(_) => return Err(StoreError::Stale { current: *version }),
        },
        (Action::Delete { guard }, State::Present(record)) => {
            check(*guard, record.version)?;
            (None, false)
        }
        (Action::Settle { version, .. }, state) if state.version() >= *version => {
            return Err(StoreError::Stale { current: state.version() });
        }
        (Action::Settle { version, record }, state) => {
            let created = matches!(state, State::Absent(_));
            return Ok(Applied { before, ..outcome(change, *version, record.clone(), created, now) });
        }
    };
    let version = state.version().next();
    let record = match values {
        Some(values) => Some(next_record(state, change, version, values, now)?),
        None => None,
    };
    Ok(Applied { before, ..outcome(change, version, record, created, now) })
}

fn check(guard: Guard, current: Version) -> Result<(), StoreError> {
    match guard {
        Guard::Exactly(version) if version != current => Err(StoreError::Stale { current }),
        Guard::Exactly(_) | Guard::Any => Ok(()),
    }
}

fn next_record(
    state: &State,
    change: &Change,
    version: Version,
    values: &Row,
    now: Timestamp,
) -> Result<Record, StoreError> {
    let fields = change.collection.schema.fields.len();
    if values.0.len() != fields {
        return Err(StoreError::Unsupported(format!("a row of {} values for {fields} fields", values.0.len())));
    }
    let (created_at, updated_at) = match state {
        State::Present(before) => (before.created_at, now.max(before.updated_at)),
        State::Absent(_) => (now, now),
    };
    let values = Row(values.0.iter().cloned().map(normalised).collect());
    Ok(Record { key: change.key.clone(), version, created_at, updated_at, values })
}

fn outcome(change: &Change, version: Version, record: Option<Record>, created: bool, now: Timestamp) -> Applied {
    let schema = &change.collection.schema;
    let happening = match (&record, created) {
        (None, _) => Happening::Deleted,
        (Some(_), true) => Happening::Created,
        (Some(_), false) => Happening::Updated,
    };
    let at = record.as_ref().map_or(now, |record| record.updated_at);
    let data = record.as_ref().map(|record| record.to_masked_json(schema));
    let event = Envelope::of_change(&schema.entity, happening, &change.key, version, at, data);
    let state = record.clone().map_or(State::Absent(version), State::Present);
    let written = Written { key: change.key.clone(), version, record, created, repeated: false };
    Applied { state, written, event, before: None }
}

/// Decimals without trailing zeros: stores keep them at scales of their own, and all must give back the same text.
pub fn normalised(value: Value) -> Value {
    match value {
        Value::Decimal(decimal) => Value::Decimal(decimal.normalize()),
        other => other,
    }
}

impl State {
    /// The version of the record or of its tombstone; 0 where there never was one.
    pub fn version(&self) -> Version {
        match self {
            Self::Present(record) => record.version,
            Self::Absent(version) => *version,
        }
    }
}

impl From<State> for Lookup {
    fn from(state: State) -> Self {
        match state {
            State::Present(record) => Self::Found(record),
            State::Absent(Version(0)) => Self::Missing,
            State::Absent(version) => Self::Deleted(version),
        }
    }
}
