//! A unit of work is a value: changes that a store commits all or none, each with its event in the same
//! transaction.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    key::{Key, Version},
    record::Record,
    schema::Schema,
    value::Row,
};

/// A collection as stores know it: a schema and the table or collection that holds its records.
#[derive(Clone, Debug)]
pub struct Collection {
    /// The pool that serves it.
    pub pool: String,
    /// What its records look like.
    pub schema: Arc<Schema>,
    /// The table or collection.
    pub name: String,
    /// The column of the key; `_id` in documents whatever is said here.
    pub key_column: String,
    /// The column of the version; none makes the collection read-only.
    pub version_column: Option<String>,
    /// Whether the table was declared by the user, and so is neither created nor altered, and has no columns
    /// beside the declared ones (`created_at` and `updated_at` are used where they exist).
    pub declared: bool,
}

/// Changes that are committed together.
#[derive(Clone, Debug)]
pub struct UnitOfWork {
    /// The changes, in order. Several may touch one key.
    pub changes: Vec<Change>,
    /// Who does it: the token's subject, or `anonymous`.
    pub actor: String,
    /// What tells a repeat of the same request; none where the caller gave no key.
    pub idempotency: Option<Idempotency>,
    /// By when it is to be done: then no attempt is begun any more. None leaves a store the time of one call.
    pub deadline: Option<Instant>,
}

/// Who asks for changes, how a repeat of the same request is told, and how long whoever asks will wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The token's subject, or `anonymous`.
    pub actor: String,
    /// What tells a repeat; none where the caller gave no key.
    pub idempotency: Option<Idempotency>,
    /// By when all attempts must have ended; none where only the time of one change bounds them.
    pub deadline: Option<Instant>,
    /// The token's roles; none for the service itself and for callers without a token.
    pub roles: Arc<[String]>,
}

/// What tells a repeat of a request: the same key with the same request is done once, with another request it
/// is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Stands for the caller and the caller's key: 64 hexadecimal digits.
    pub key: String,
    /// Stands for the request: 64 hexadecimal digits.
    pub request: String,
}

/// One change of one record.
#[derive(Clone, Debug)]
pub struct Change {
    /// The collection of the record.
    pub collection: Arc<Collection>,
    /// The key of the record.
    pub key: Key,
    /// What happens to it.
    pub action: Action,
}

/// What happens to a record.
#[derive(Clone, Debug)]
pub enum Action {
    /// It comes to be: version 1, or one more than its tombstone's. Fails with `Exists` where it is there.
    Create {
        /// Its values.
        values: Row,
        /// Whether the key was made just now, so that there cannot be a tombstone.
        fresh_key: bool,
    },
    /// It gets new values. Fails with `NotFound` or `Stale`.
    Replace {
        /// The version that it must have.
        guard: Guard,
        /// Its new values.
        values: Row,
    },
    /// It gets new values, or comes to be. Fails with `Stale`.
    Upsert {
        /// The version that it must have.
        guard: Guard,
        /// Its new values.
        values: Row,
    },
    /// It goes, and leaves a tombstone. Fails with `NotFound` or `Stale`.
    Delete {
        /// The version that it must have.
        guard: Guard,
    },
    /// It becomes just this, as a write-behind log decided. Fails with `Stale` where it has this version or a
    /// later one.
    Settle {
        /// The version that it gets.
        version: Version,
        /// The record, of this version; none for a delete.
        record: Option<Record>,
    },
}

/// The version that a record must have for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Whichever it has.
    Any,
    /// Just this one.
    Exactly(Version),
}

/// What a committed change left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record's key.
    pub key: Key,
    /// The version of the change: of the record, or of its tombstone.
    pub version: Version,
    /// The record as it is now; none after a delete.
    pub record: Option<Record>,
    /// Whether the record was not there before.
    pub created: bool,
    /// Whether an earlier unit with the same idempotency key did this: it is that unit's answer, and may be
    /// older than the record.
    pub repeated: bool,
}

impl UnitOfWork {
    /// Changes of one origin.
    pub fn new(changes: Vec<Change>, origin: &Origin) -> Self {
        let Origin { actor, idempotency, deadline, roles: _ } = origin.clone();
        Self { changes, actor, idempotency, deadline }
    }
}

impl Origin {
    /// The most characters of an actor's name; the rest is cut off.
    pub const ACTOR_MAX: usize = 128;

    /// An origin whose requests are not told from each other.
    pub fn of(actor: &str) -> Self {
        Self {
            actor: actor.chars().take(Self::ACTOR_MAX).collect(),
            idempotency: None,
            deadline: None,
            roles: Arc::default(),
        }
    }

    /// The same, with `time` from now at most.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        let latest = Instant::now() + time;
        Self { deadline: Some(self.deadline.map_or(latest, |deadline| deadline.min(latest))), ..self.clone() }
    }
}
