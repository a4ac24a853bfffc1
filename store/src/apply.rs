//! What a change does to a record: the rules of versions and guards, the same for every store, without I/O.

use super::{StoreError, limits::Limits};
use model::{
    change::{Action, Change, Guard, Written},
    event::{Envelope, Happening},
    key::Version,
    ownership::Ownership,
    record::{Lookup, Record, Unreadable},
    value::{Row, Timestamp, Value},
};

/// What is known of a key while a unit of work is done.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The record.
    Present(Record),
    /// There is none: the version of its tombstone, or 0.
    Absent(Version),
    /// It is there, but cannot be read whole: what replaces or deletes it mends it.
    Unreadable(Box<Unreadable>),
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
/// `Exists`, `NotFound` or `Stale`, as the action says; `Unsupported` where the row is not one of the schema;
/// `Invalid` where the collection cannot hold it.
pub fn apply(state: &State, change: &Change, now: Timestamp, limits: &Limits) -> Result<Applied, StoreError> {
    let before = state.record().map(|record| record.to_masked_json(&change.collection.schema));
    // whatever the clock says: of one record no change is before another
    let now = state.record().map_or(now, |record| now.max(record.updated_at).max(record.created_at));
    let is_there = before.is_some();
    let (values, created) = match &change.action {
        Action::Create { .. } if is_there => return Err(StoreError::Exists),
        Action::Create { values, .. } => (Some(values), true),
        Action::Replace { .. } | Action::Delete { .. } if !is_there => return Err(StoreError::NotFound),
        Action::Replace { guard, values } | Action::Upsert { guard, values } if is_there => {
            check(*guard, state)?;
            (Some(values), false)
        }
        Action::Replace { values, guard } | Action::Upsert { guard, values } => match guard {
            Guard::Any => (Some(values), true),
            Guard::Exactly(_) => return Err(StoreError::Stale { current: state.version() }),
        },
        Action::Delete { guard } => {
            check(*guard, state)?;
            (None, false)
        }
        Action::Settle { version, .. } if state.version() >= *version => {
            return Err(StoreError::Stale { current: state.version() });
        }
        Action::Settle { version, record } => {
            let created = !is_there;
            return Ok(Applied { before, ..outcome(state, change, *version, record.clone(), created, now) });
        }
    };
    let version = state.version().next();
    let record = match values {
        Some(values) => {
            let mut record = next_record(state, change, version, values, now)?;
            limits.fit(&change.collection.schema, &mut record)?;
            Some(record)
        }
        None => None,
    };
    Ok(Applied { before, ..outcome(state, change, version, record, created, now) })
}

/// A version that cannot be read is none that a guard asks for.
fn check(guard: Guard, state: &State) -> Result<(), StoreError> {
    let current = state.version();
    let is_known = !matches!(state, State::Unreadable(unreadable) if !unreadable.has_version());
    match guard {
        Guard::Exactly(_) if !is_known => Err(StoreError::Stale { current }),
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
        return Err(StoreError::Unsupported(format!(
            "a row of {} values for {fields} fields",
            values.0.len()
        )));
    }
    let (created_at, updated_at) = match state.record() {
        Some(before) => (before.created_at, now.max(before.updated_at)),
        None => (now, now),
    };
    let values = Row(values.0.iter().cloned().map(normalised).collect());
    Ok(Record { key: change.key.clone(), version, created_at, updated_at, values })
}

fn outcome(
    former: &State,
    change: &Change,
    version: Version,
    record: Option<Record>,
    created: bool,
    now: Timestamp,
) -> Applied {
    let schema = &change.collection.schema;
    let happening = match (&record, created) {
        (None, _) => Happening::Deleted,
        (Some(_), true) => Happening::Created,
        (Some(_), false) => Happening::Updated,
    };
    let at = record.as_ref().map_or(now, |record| record.updated_at);
    let data = record.as_ref().map(|record| record.to_masked_json(schema));
    // what is deleted says no more whose it was
    let owner = record.as_ref().or(former.record()).and_then(|record| Ownership::of(schema).owner(record));
    let event =
        Envelope { owner, ..Envelope::of_change(&schema.entity, happening, &change.key, version, at, data) };
    let state = record.clone().map_or(State::Absent(version), State::Present);
    let written = Written { key: change.key.clone(), version, record, created, repeated: false };
    Applied { state, written, event, before: None }
}

/// Decimals without trailing zeros: stores keep them at scales of their own, and all must give back the same
/// text.
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
            Self::Unreadable(unreadable) => unreadable.rest.version,
        }
    }

    /// The record, or what can be read of it.
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Present(record) => Some(record),
            Self::Unreadable(unreadable) => Some(&unreadable.rest),
            Self::Absent(_) => None,
        }
    }
}

impl From<State> for Lookup {
    fn from(state: State) -> Self {
        match state {
            State::Present(record) => Self::Found(record),
            State::Absent(Version(0)) => Self::Missing,
            State::Absent(version) => Self::Deleted(version),
            State::Unreadable(unreadable) => Self::Unreadable(unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use model::{change::Collection, entities::order, key::Key};

    #[test]
    fn the_event_of_a_delete_says_whose_the_record_was() {
        let schema = order::schema();
        let values = schema.row_of([("user_id", Value::Text("ann".to_owned()))]);
        let (key, at): (Key, _) = ("o1".parse().unwrap(), Timestamp(1_700_000_000_000));
        let record = Record { key: key.clone(), version: Version(3), created_at: at, updated_at: at, values };
        let collection = Arc::new(Collection {
            pool: "orders".to_owned(),
            name: "orders".to_owned(),
            key_column: "id".to_owned(),
            version_column: Some("version".to_owned()),
            declared: false,
            schema: Arc::new(schema),
        });
        let delete = |action| Change { collection: collection.clone(), key: key.clone(), action };
        let settled = Action::Settle { version: Version(4), record: None };
        for action in [Action::Delete { guard: Guard::Any }, settled] {
            let state = State::Present(record.clone());
            let Applied { event, .. } = apply(&state, &delete(action), at, &Limits::default()).unwrap();
            assert_eq!((event.kind.as_str(), event.owner.as_deref()), ("order_deleted", Some("ann")));
        }
    }
}
