//! Where records live: one trait, kept by SQL (MySQL, MariaDB, SQLite) and documents (MongoDB), each to one
//! conformance suite.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use self::{identity::Identity, limits::Limits};
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Change, Collection, Idempotency, UnitOfWork, Written},
    durability::Setting,
    event::Outbox,
    fault::FieldFault,
    key::{Key, Version},
    log::{EventLog, LogError, NoLog},
    query::{Page, Query},
    record::Lookup,
    value::Timestamp,
};

pub mod confined;
pub mod encryption;
pub mod guarded;
pub mod identity;
#[cfg(feature = "mongodb")]
pub mod mongo;
pub mod room;
pub mod rotating;
pub mod sql;

mod answer;
pub mod apply;
mod check;
pub mod clock;
#[cfg(test)]
mod conformance;
mod leases;
pub mod limits;
mod odd;
mod pattern;
mod sealing;

use confined::PoolFault;

/// A system of record. A commit puts the event of each change into the outbox in the same transaction.
#[async_trait]
pub trait RecordStore: Send + Sync {
    /// Makes the store ready for these collections: creates or migrates its own tables, checks declared ones.
    /// Safe to call at once from several processes.
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError>;

    /// The same for each collection by itself: answers which of them cannot be used and why, by their pools;
    /// the others are ready. Cheap where nothing changed.
    ///
    /// # Errors
    /// What has nothing to do with a single collection: the store cannot be reached, or its own tables cannot
    /// be made.
    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        self.prepare(collections).await.map(|()| BTreeMap::new())
    }

    /// What the store knows of each key, in the order of the keys, in one round trip.
    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError>;

    /// What the collection holds exactly: known before a write is acknowledged that is stored later.
    async fn limits(&self, _: &Collection) -> Result<Arc<Limits>, StoreError> {
        Ok(Arc::default())
    }

    /// A page of the records that a query finds: at most its limit, and
    /// [`PAGE_BYTES_MAX`](model::query::PAGE_BYTES_MAX) bytes.
    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError>;

    /// Commits all changes or none, with their audit entries. The answer has one entry for each change, in
    /// order, and is given once the commit is durable. A unit whose idempotency key is known changes nothing
    /// and gives the first answer.
    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError>;

    /// What a unit on this collection with this idempotency key was answered; none where there was none that
    /// succeeded.
    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError>;

    /// The audit entries that a query finds, oldest first, as many as fit into a page. In MongoDB an entry is
    /// found once the event of its change is published.
    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError>;

    /// What identifies the database: a text that is made in it at the first call.
    async fn identity(&self) -> Result<Identity, StoreError> {
        Err(StoreError::Unsupported("this store has no identity".to_owned()))
    }

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The settings by which it commits, as they are now.
    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes some of what is older than its retention: the versions of deleted records, the answers under
    /// idempotency keys. Says how many; bounded, so that it is called again while it removes any.
    async fn prune(&self) -> Result<u64, StoreError>;

    /// Removes some entries of the audit that are older than this, by the clock that their times are from.
    /// Says how many, as `prune` does.
    async fn prune_audit(&self, _retention: Duration) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// The time by the clock of the server, which is one for all processes. The embedded one has that of the
    /// process.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::now())
    }

    /// The committed events that are not yet published.
    fn outbox(&self) -> Arc<dyn Outbox>;

    /// The logs in this store. They are there once it is prepared.
    fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::new(NoLog)
    }
}

/// By when a unit must be done: its own deadline, or `call` from now.
///
/// # Errors
/// `Unavailable` where that is over already: nothing was begun.
fn due(deadline: Option<std::time::Instant>, call: Duration) -> Result<Instant, StoreError> {
    let (now, deadline) = (Instant::now(), deadline.map(Instant::from_std));
    match deadline.is_some_and(|deadline| deadline <= now) {
        true => {
            Err(StoreError::Unavailable("the time for this change was over before it was begun".to_owned()))
        }
        false => Ok(deadline.map_or(now + call, |deadline| deadline.min(now + call))),
    }
}

/// What a store of documents says to changes of several records, an embedded one too.
const ONE_RECORD: &str = "this is MongoDB without transactions (no replica set, no mongos), where changes of several records \
                          are not atomic: leave `atomic` out, or send them one by one";

/// Whether all changes of a unit are of one record.
fn is_of_one_record(work: &UnitOfWork) -> bool {
    let same =
        |pair: &[Change]| matches!(pair, [a, b] if a.key == b.key && a.collection.name == b.collection.name);
    work.changes.windows(2).all(same)
}

impl StoreError {
    /// The reason itself, without the change that it is of.
    pub fn cause(&self) -> &Self {
        match self {
            Self::At { error, .. } => error.cause(),
            error => error,
        }
    }

    /// Whether the store said no, for good and with nothing changed.
    fn is_refusal(&self) -> bool {
        match self.cause() {
            Self::NotFound
            | Self::Stale { .. }
            | Self::Exists
            | Self::Duplicate { .. }
            | Self::ReadOnly(_)
            | Self::Unsupported(_)
            | Self::Invalid(_) => true,
            Self::KeyReused
            | Self::Overloaded
            | Self::Unprepared(_)
            | Self::Setup(_)
            | Self::Unavailable(_)
            | Self::Full(_)
            | Self::Unknown(_)
            | Self::Corrupt(_)
            | Self::At { .. } => false,
        }
    }

    /// The same, of one of several changes, where it is a refusal.
    fn of_change(self, index: usize) -> Self {
        match self.is_refusal() && !matches!(self, Self::At { .. }) {
            true => Self::At { index, error: Box::new(self) },
            false => self,
        }
    }
}

/// What an error of the store means to who uses its logs.
fn of_log(error: StoreError) -> LogError {
    match error {
        StoreError::Full(why) => LogError::Full(why),
        other => LogError::Unavailable(other.to_string()),
    }
}

fn told(faults: &[FieldFault]) -> String {
    let each = faults.iter().map(|FieldFault { field, message }| format!("{field} {message}"));
    each.collect::<Vec<_>>().join("; ")
}

/// Why a store did not do what it was asked. Nothing was changed, but for `Unknown`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The record is not there.
    #[error("there is no such record")]
    NotFound,
    /// The record has another version than the change was made for.
    #[error("the record has version {current}")]
    Stale {
        /// The version that it has.
        current: Version,
    },
    /// A record with this key is there already.
    #[error("a record with this key exists")]
    Exists,
    /// Another record has the same value in a unique field.
    #[error("another record has the same {field}")]
    Duplicate {
        /// The field.
        field: String,
    },
    /// The idempotency key came with another request before.
    #[error("the idempotency key came with another request before")]
    KeyReused,
    /// The collection cannot be written.
    #[error("{0}")]
    ReadOnly(String),
    /// The store cannot do what is asked, whatever its state: an atomic unit over several documents.
    #[error("{0}")]
    Unsupported(String),
    /// The collection cannot be used as it is: its owner has to mend it. Others of the store can be.
    #[error("{}", .0.message)]
    Unprepared(PoolFault),
    /// The store cannot hold these values exactly, or refuses them. One entry for each field.
    #[error("{}", told(.0))]
    Invalid(Vec<FieldFault>),
    /// The store is not set up for what is asked: a table, column, right or setting is missing. The words are
    /// our own: a client is shown them.
    #[error("{0}")]
    Setup(String),
    /// The store cannot be reached, is overloaded, or gave up (a deadlock, a lost connection): the same call
    /// may succeed later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The process has no memory for what is asked for: the same call may succeed later.
    #[error("there is no memory for this answer now")]
    Overloaded,
    /// The store has no room left: nothing was changed. Reads go on.
    #[error("the store has no room left: {0}")]
    Full(String),
    /// The connection was lost during the commit: it may or may not have happened.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(String),
    /// What is stored cannot be read as the schema says.
    #[error("stored data is not as declared: {0}")]
    Corrupt(String),
    /// One of several changes was refused, so none was made.
    #[error("change {index}: {error}")]
    At {
        /// Its place in the unit, from 0.
        index: usize,
        /// Why.
        error: Box<StoreError>,
    },
}
