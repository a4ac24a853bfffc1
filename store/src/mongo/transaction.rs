//! Changes of several records as one transaction, where the server has them: a replica set or mongos.
//!
//! Each change is written in its order, so that a unique value that one record gives up is free for the next.
//! Where the server says that a transaction may pass, it is tried again from the start; where the outcome of
//! a commit is not known, the commit is asked for again.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::IntoFuture,
    sync::Arc,
    time::Duration,
};

use bson::{Bson, Document, doc};
use futures::future::BoxFuture;
use mongodb::{
    Client, ClientSession,
    error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    CALL_TIME, KEYS_MAX, MongoStore, NAME, StoreError,
    commit::{Update, check_room, repeated, update},
    document::{Documents, PENDING, PENDING_AT},
    fault::{Fault, of_driver},
    ledger::{Known, Ledger, rider},
    values::int_of,
};
use crate::{
    ONE_RECORD, answer,
    apply::{Applied, State, apply},
    limits::Limits,
};
use model::{
    change::{Change, UnitOfWork, Written},
    failpoint,
    key::{Key, Version},
    value::Timestamp,
};

/// How often a transaction is tried.
const ATTEMPTS_MAX: u32 = 32;

/// Whether a server has transactions, by its answer to `hello`.
pub fn are_had(hello: &Document) -> bool {
    let has_sessions = hello.get("logicalSessionTimeoutMinutes").and_then(int_of).is_some();
    has_sessions && (hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"))
}

/// Commits a unit of several records: all its changes or none.
///
/// # Errors
/// `Unsupported` where the server has no transactions; what a change is refused for, with its place;
/// `Unavailable`; `Unknown` where the outcome of the commit is not known in time.
pub async fn commit(
    store: &MongoStore,
    work: UnitOfWork,
    deadline: Instant,
) -> Result<Vec<Written>, StoreError> {
    if !has_transactions(store, deadline).await? {
        return Err(StoreError::Unsupported(ONE_RECORD.to_owned()));
    }
    let mut documents = Vec::with_capacity(work.changes.len());
    for change in &work.changes {
        documents.push(store.documents(&change.collection, deadline).await?);
    }
    let (client, ledger) = (store.database.client().clone(), store.ledger.clone());
    failpoint::reach(NAME, "commit.before");
    let written = Transaction { client, ledger, work, documents, deadline }.commit().await?;
    failpoint::reach(NAME, "commit.after");
    Ok(written)
}

/// Whether the server has transactions: found by the first call that has to know.
async fn has_transactions(store: &MongoStore, deadline: Instant) -> Result<bool, StoreError> {
    if let Some(known) = store.transactions.get() {
        return Ok(*known);
    }
    let found = are_had(&store.ledger.hello(deadline).await?);
    Ok(*store.transactions.get_or_init(|| found))
}

/// What a unit of several records is committed with.
struct Transaction {
    client: Client,
    ledger: Ledger,
    work: UnitOfWork,
    /// The collection of each change.
    documents: Vec<Arc<Documents>>,
    /// By when all attempts must have ended.
    deadline: Instant,
}

/// Why a try came to nothing. The transaction is not committed.
enum Trouble {
    /// It may pass.
    Again(String),
    /// It will not.
    Store(StoreError),
}

/// A record while the transaction goes on.
struct Slot {
    /// The `_id` and the version field that its document has; none where there is no document.
    guard: Option<(Bson, Bson)>,
    state: State,
}

type Slots = HashMap<(String, String), Slot>;

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.into())
    }
}

impl Transaction {
    async fn commit(self) -> Result<Vec<Written>, StoreError> {
        if let Some(why) = self.documents.iter().find_map(|documents| documents.read_only.clone()) {
            return Err(StoreError::ReadOnly(why));
        }
        for attempt in 1..=ATTEMPTS_MAX {
            if let Some(known) = self.known().await? {
                return Ok(known);
            }
            let mut session = self.call(boxed(self.client.start_session())).await.map_err(Trouble::told)?;
            self.call(boxed(session.start_transaction().with_options(options())))
                .await
                .map_err(Trouble::told)?;
            let trouble = match self.write(&mut session).await {
                Ok(written) => match self.end(&mut session).await {
                    Ok(()) => return Ok(written),
                    Err(trouble) => trouble,
                },
                Err(trouble) => {
                    // a transaction that is not ended ends by itself; its locks are held until then
                    _ = timeout_at(self.deadline, boxed(session.abort_transaction())).await;
                    trouble
                }
            };
            match trouble {
                Trouble::Again(_) => {
                    sleep(Duration::from_millis(rand::random_range(0..=u64::from(attempt) * 2))).await
                }
                // the same request may have been done while this one was tried
                Trouble::Store(error) => return self.known().await?.ok_or(error),
            }
        }
        Err(StoreError::Unavailable("too many changes of these records at once".to_owned()))
    }

    /// The answer of an earlier unit with the same idempotency key.
    async fn known(&self) -> Result<Option<Vec<Written>>, StoreError> {
        let Some(key) = &self.work.idempotency else { return Ok(None) };
        match (self.ledger.known(key, self.deadline).await?, self.documents.first()) {
            (Some(Known::Done(answer)), Some(first)) => repeated(first, &self.work, &answer).map(Some),
            _ => Ok(None),
        }
    }

    /// Everything but the commit.
    async fn write(&self, session: &mut ClientSession) -> Result<Vec<Written>, Trouble> {
        let mut slots = self.load(session).await?;
        let now = self.ledger.now(self.deadline).await?;
        let mut written = Vec::with_capacity(self.work.changes.len());
        for (place, (change, documents)) in self.work.changes.iter().zip(&self.documents).enumerate() {
            let slot = match slots.entry(name_of(change)) {
                Entry::Occupied(slot) => slot.into_mut(),
                Entry::Vacant(free) => free.insert(Slot { guard: None, state: State::Absent(Version(0)) }),
            };
            let done = self.change(session, documents, change, slot, now).await;
            written.push(done.map_err(|trouble| trouble.of_change(place))?);
        }
        self.keep_answer(session, &written, now).await?;
        Ok(written)
    }

    /// What is stored under each key, in one round trip for each collection.
    async fn load(&self, session: &mut ClientSession) -> Result<Slots, Trouble> {
        let mut slots = Slots::new();
        let mut of_collection: HashMap<String, (Arc<Documents>, Vec<Bson>)> = HashMap::new();
        for (change, documents) in self.work.changes.iter().zip(&self.documents) {
            let entry = of_collection
                .entry(documents.collection.name.clone())
                .or_insert((documents.clone(), Vec::new()));
            for id in documents.ids(change.key.as_str()) {
                if !entry.1.contains(&id) {
                    entry.1.push(id);
                }
            }
        }
        for (name, (documents, ids)) in of_collection {
            for part in ids.chunks(KEYS_MAX) {
                let find = documents.handle.find(doc! { "_id": { "$in": part } });
                let mut cursor = self.call(boxed(find.session(&mut *session))).await?;
                while self.call(boxed(cursor.advance(&mut *session))).await? {
                    let stored: Document =
                        cursor.deserialize_current().map_err(|error| Trouble::of(&error))?;
                    let (key, state) = readable(&documents, &stored)?;
                    check_room(&stored, &key)?;
                    let id = stored.get("_id").cloned().unwrap_or(Bson::Null);
                    let guard = (id, stored.get(&documents.version).cloned().unwrap_or(Bson::Null));
                    slots.insert((name.clone(), key.to_string()), Slot { guard: Some(guard), state });
                }
            }
        }
        Ok(slots)
    }

    async fn change(
        &self,
        session: &mut ClientSession,
        documents: &Documents,
        change: &Change,
        slot: &mut Slot,
        now: Timestamp,
    ) -> Result<Written, Trouble> {
        let Applied { state, written, event, before } = apply(&slot.state, change, now, &Limits::default())?;
        let rider = rider(&event, &self.work.actor, before.as_deref())?;
        let Update { set, unset, pending, at } = update(documents, change, &state, vec![rider], now);
        if let State::Present(record) = &state {
            documents.check_numbers(record)?;
        }
        let version = set.get(&documents.version).cloned().unwrap_or(Bson::Null);
        let id = match &slot.guard {
            Some((id, _)) => id.clone(),
            None => documents.id_of(&change.key)?,
        };
        let next = Some((id.clone(), version));
        let done = match slot.guard.take() {
            None => {
                let mut document = doc! { "_id": id };
                document.extend(set);
                document.insert(PENDING, pending);
                document.insert(PENDING_AT, at);
                self.call(boxed(documents.handle.insert_one(document).session(&mut *session)))
                    .await
                    .map(|_| true)
            }
            Some((_, version)) => {
                let guard = doc! { "_id": id, &documents.version: version };
                let changes = doc! {
                    "$set": set, "$unset": unset, "$push": { PENDING: { "$each": pending } }, "$min": { PENDING_AT: at },
                };
                let update = documents.handle.update_one(guard, changes).session(&mut *session);
                self.call(boxed(update)).await.map(|done| done.matched_count == 1)
            }
        };
        (slot.guard, slot.state) = (next, state);
        match done {
            Ok(true) => Ok(written),
            Ok(false) => Err(Trouble::Again(format!("{} changed meanwhile", change.key))),
            Err(Failed::Taken(index)) => match documents.taken(&index) {
                StoreError::Exists => Err(Trouble::Again(format!("{} was created meanwhile", change.key))),
                duplicate => Err(duplicate.into()),
            },
            Err(Failed::Trouble(trouble)) => Err(trouble),
        }
    }

    /// Filed with the changes: who comes second with a key fails here, and then finds the answer.
    async fn keep_answer(
        &self,
        session: &mut ClientSession,
        written: &[Written],
        now: Timestamp,
    ) -> Result<(), Trouble> {
        let (Some(key), Some(first)) = (&self.work.idempotency, self.documents.first()) else {
            return Ok(());
        };
        let collections = self.work.changes.iter().map(|change| change.collection.as_ref());
        let answer = answer::encode(written, collections, key, first.sealer.as_ref())?;
        let (keys, document) = self.ledger.answered(key, answer, now);
        match self.call(boxed(keys.insert_one(document).session(&mut *session))).await {
            Err(Failed::Taken(_)) => {
                Err(Trouble::Again("the same request is done at the same time".to_owned()))
            }
            Err(Failed::Trouble(trouble)) => Err(trouble),
            Ok(_) => Ok(()),
        }
    }

    /// Commits, as often as it takes to know the outcome.
    async fn end(&self, session: &mut ClientSession) -> Result<(), Trouble> {
        loop {
            let unknown = |why: &str| Trouble::Store(StoreError::Unknown(why.to_owned()));
            match timeout_at(self.deadline, boxed(session.commit_transaction())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                    if Instant::now() >= self.deadline {
                        return Err(unknown("MongoDB did not confirm the transaction in time"));
                    }
                    sleep(Duration::from_millis(rand::random_range(1..=20))).await;
                }
                Ok(Err(error)) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
                    return Err(Trouble::of(&error));
                }
                Ok(Err(error)) => return Err(Trouble::Store(of_driver(&error, true).into())),
                Err(_) => return Err(unknown("MongoDB did not confirm the transaction in time")),
            }
        }
    }

    /// Waits for a command before the commit: whatever becomes of it, nothing is changed yet.
    async fn call<T>(&self, command: BoxFuture<'_, Result<T, Error>>) -> Result<T, Failed> {
        match timeout_at(self.deadline, command).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
                Err(Trouble::of(&error).into())
            }
            Ok(Err(error)) => match of_driver(&error, false) {
                Fault::Taken(index) => Err(Failed::Taken(index)),
                Fault::Store(error) => Err(Trouble::Store(error).into()),
            },
            Err(_) => {
                Err(Trouble::Store(StoreError::Unavailable("MongoDB did not answer in time".to_owned()))
                    .into())
            }
        }
    }
}

/// Why a command failed.
enum Failed {
    /// A unique index has the value already: the index.
    Taken(String),
    Trouble(Trouble),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Taken(index) => Self::Store(StoreError::Duplicate { field: index }),
            Failed::Trouble(trouble) => trouble,
        }
    }
}

impl Trouble {
    fn of(error: &Error) -> Self {
        match error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            true => Self::Again("MongoDB gave the transaction up".to_owned()),
            false => Self::Store(of_driver(error, false).into()),
        }
    }

    fn of_change(self, place: usize) -> Self {
        match self {
            Self::Store(error) => Self::Store(error.of_change(place)),
            again @ Self::Again(_) => again,
        }
    }

    fn told(failed: Failed) -> StoreError {
        match Self::from(failed) {
            Self::Again(why) => StoreError::Unavailable(why),
            Self::Store(error) => error,
        }
    }
}

/// What a document says of its key. One that cannot be read, or whose `_id` is of another type than the
/// others', is changed by itself only.
fn readable(documents: &Documents, stored: &Document) -> Result<(Key, State), StoreError> {
    let name = &documents.collection.name;
    let alone =
        || StoreError::Unsupported(format!("a document of {name} cannot be read whole: change it by itself"));
    match documents.state(stored) {
        Ok((_, State::Unreadable(_))) | Err(_) => Err(alone()),
        Ok(_) if !stored.get("_id").is_some_and(|id| documents.key.has(id)) => Err(alone()),
        Ok(known) => Ok(known),
    }
}

fn name_of(change: &Change) -> (String, String) {
    (change.collection.name.clone(), change.key.to_string())
}

/// A command under one type: the driver's own are not seen to be `Send` where they borrow a session.
fn boxed<'a, T>(command: impl IntoFuture<Output = T, IntoFuture: Send + 'a>) -> BoxFuture<'a, T> {
    Box::pin(command.into_future())
}

/// What a transaction reads stays true, and what it wrote is in the journal of most members once it is
/// answered.
fn options() -> TransactionOptions {
    let write =
        WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(CALL_TIME).build();
    TransactionOptions::builder()
        .read_concern(ReadConcern::majority())
        .write_concern(write)
        .max_commit_time(CALL_TIME)
        .build()
}

#[cfg(test)]
mod tests;
