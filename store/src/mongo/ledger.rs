//! The audit, and the answers under idempotency keys. Both ride in the record's document, with the pending
//! event of their change, and are filed into collections of their own before that event is taken out: what a
//! crash repeats is filed once.
//!
//! An idempotency key is first reserved for a record. So a repeat knows in which document to look for an
//! answer that is not filed yet.

use std::{sync::Arc, time::Duration};

use bson::{Bson, DateTime, Document, doc};
use futures::{TryStreamExt, future::try_join_all};
use mongodb::{
    Collection as Handle, Database, IndexModel,
    error::{Error, ErrorKind},
};
use tokio::time::Instant;

use super::{
    NAME, StoreError,
    document::PENDING,
    entries::{document_of, entry_of},
    fault::{Fault, read},
    values::int_of,
};
use crate::clock::ServerClock;
use model::{change::Idempotency, event::Envelope, failpoint, key::Key, value::Timestamp};

/// Who changed what and when.
const AUDIT: &str = "flyweight_audit";
/// Reserved idempotency keys, and what was answered.
const IDEMPOTENCY: &str = "flyweight_idempotency";
/// The tries of a key's request that were not refused: without any, and without an answer, the key is free
/// for another.
const CLAIMS: &str = "claims";
/// How long a key is kept.
const ANSWER_HOURS: i64 = 24;
/// How many answers are filed at once.
const ANSWERS_AT_ONCE: usize = 32;
/// A value is there already.
const DUPLICATE: i32 = 11000;

/// The collections of the audit and of idempotency keys.
#[derive(Clone)]
pub struct Ledger {
    database: Database,
    clock: Arc<ServerClock>,
}

/// What is known of an idempotency key.
pub enum Known {
    /// It came with this request before, for this record; whether it was done, the record's document says.
    Reserved(Key),
    /// It was done: the answer.
    Done(String),
}

impl Ledger {
    /// The ledger of a database.
    pub fn new(database: Database) -> Self {
        Self { database, clock: Arc::default() }
    }

    /// The time by the clock of the server: what is stamped by it is pruned by it.
    pub async fn now(&self, deadline: Instant) -> Result<Timestamp, Fault> {
        if let Some(now) = self.clock.recent() {
            return Ok(now);
        }
        let asked_at = std::time::Instant::now();
        let now = self.ask_time(deadline).await?;
        self.clock.note(asked_at, now);
        Ok(now)
    }

    /// Asks the server what time it is.
    pub async fn ask_time(&self, deadline: Instant) -> Result<Timestamp, Fault> {
        self.hello(deadline)
            .await?
            .get_datetime("localTime")
            .map(|time| Timestamp(time.timestamp_millis()))
            .map_err(|_| StoreError::Unsupported("the server does not tell its time".to_owned()).into())
    }

    /// What the server says of itself.
    pub async fn hello(&self, deadline: Instant) -> Result<Document, Fault> {
        match read(deadline, self.database.run_command(doc! { "hello": 1 })).await {
            Err(Fault::Store(StoreError::Unsupported(_))) => {
                // its name before MongoDB 5
                read(deadline, self.database.run_command(doc! { "isMaster": 1 })).await
            }
            hello => hello,
        }
    }

    /// Makes the indexes.
    pub async fn prepare(&self, deadline: Instant) -> Result<(), Fault> {
        let index = |keys: Document| IndexModel::builder().keys(keys).build();
        let audit = [doc! { "entity": 1, "key": 1, "at": 1 }, doc! { "actor": 1, "at": 1 }, doc! { "at": 1 }];
        read(deadline, self.audit().create_indexes(audit.map(index))).await?;
        read(deadline, self.keys().create_index(index(doc! { "at": 1 }))).await.map(|_| ())
    }

    /// Reserves a key for a record; none where it is new.
    pub async fn reserve(
        &self,
        idempotency: &Idempotency,
        record: &Key,
        deadline: Instant,
    ) -> Result<Option<Known>, StoreError> {
        let Idempotency { key, request } = idempotency;
        let now = DateTime::from_millis(self.now(deadline).await?.0);
        let reservation =
            doc! { "_id": key, "request": request, "record": record.as_str(), "at": now, CLAIMS: 1 };
        match read(deadline, self.keys().insert_one(reservation)).await {
            Ok(_) => Ok(None),
            Err(Fault::Taken(_)) => self.join(idempotency, record, deadline).await,
            Err(fault) => Err(fault.into()),
        }
    }

    /// Another try of the request that has the key, or the first of one that comes after a refused one.
    async fn join(
        &self,
        idempotency: &Idempotency,
        record: &Key,
        deadline: Instant,
    ) -> Result<Option<Known>, StoreError> {
        let Idempotency { key, request } = idempotency;
        let keys = self.keys();
        let free = doc! { "_id": key, "answer": { "$exists": false }, CLAIMS: { "$lte": 0 } };
        let taken = doc! { "$set": { "request": request, "record": record.as_str(), CLAIMS: 1 } };
        if read(deadline, keys.update_one(free, taken)).await?.matched_count == 1 {
            return Ok(None);
        }
        let mine = doc! { "_id": key, "request": request, "answer": { "$exists": false }, CLAIMS: { "$exists": true } };
        read(deadline, keys.update_one(mine, doc! { "$inc": { CLAIMS: 1 } })).await?;
        self.known(idempotency, deadline).await
    }

    /// Gives a try up that was refused. Once all are, another request may have the key; one that was answered
    /// keeps it.
    pub async fn release(&self, idempotency: &Idempotency, deadline: Instant) -> Result<(), StoreError> {
        let Idempotency { key, request } = idempotency;
        let mine = doc! { "_id": key, "request": request, "answer": { "$exists": false }, CLAIMS: { "$exists": true } };
        read(deadline, self.keys().update_one(mine, doc! { "$inc": { CLAIMS: -1 } })).await?;
        Ok(())
    }

    /// What keeps an answer that is filed with its changes, and where.
    pub fn answered(
        &self,
        idempotency: &Idempotency,
        answer: String,
        at: Timestamp,
    ) -> (Handle<Document>, Document) {
        let Idempotency { key, request } = idempotency;
        let at = DateTime::from_millis(at.0);
        (self.keys(), doc! { "_id": key, "request": request, "answer": answer, "at": at, CLAIMS: 1 })
    }

    /// What is known of a key.
    ///
    /// # Errors
    /// `KeyReused` where it came with another request.
    pub async fn known(
        &self,
        idempotency: &Idempotency,
        deadline: Instant,
    ) -> Result<Option<Known>, StoreError> {
        let found = read(deadline, self.keys().find_one(doc! { "_id": &idempotency.key })).await?;
        let Some(found) = found else { return Ok(None) };
        let is_free = !found.contains_key("answer")
            && found.get(CLAIMS).and_then(int_of).is_some_and(|claims| claims <= 0);
        if found.get_str("request").ok() != Some(idempotency.request.as_str()) {
            return if is_free { Ok(None) } else { Err(StoreError::KeyReused) };
        }
        if let Ok(answer) = found.get_str("answer") {
            return Ok(Some(Known::Done(answer.to_owned())));
        }
        let record = found.get_str("record").ok().and_then(|record| record.parse().ok());
        let corrupt = || StoreError::Corrupt("an idempotency key is reserved for no record".to_owned());
        Ok(Some(Known::Reserved(record.ok_or_else(corrupt)?)))
    }

    /// Files what rides with some events of some documents. Filed before, it stays as it is.
    pub async fn file(
        &self,
        handle: &Handle<Document>,
        of: &Document,
        ids: &[String],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let cursor = read(deadline, handle.find(of.clone()).projection(doc! { PENDING: 1 })).await?;
        let documents: Vec<Document> = read(deadline, cursor.try_collect()).await?;
        let Riders { entries, answers } = riders_of(&documents, ids);
        // several at once: the relay waits for this
        for part in answers.chunks(ANSWERS_AT_ONCE) {
            try_join_all(part.iter().map(|(key, answer)| self.file_answer(key, answer, deadline))).await?;
        }
        failpoint::reach(NAME, "outbox.answered");
        if entries.is_empty() {
            return Ok(());
        }
        let audit = self.audit();
        match read(deadline, async { Ok(audit.insert_many(entries).ordered(false).await) }).await? {
            Err(error) if !only_duplicates(&error) => Err(super::fault::of_driver(&error, false)),
            _ => Ok(()),
        }
    }

    async fn file_answer(&self, key: &str, answer: &str, deadline: Instant) -> Result<(), Fault> {
        let update = doc! { "$set": { "answer": answer } };
        read(deadline, self.keys().update_one(doc! { "_id": key }, update)).await.map(|_| ())
    }

    /// Removes keys that are older than their retention, and says how many.
    pub async fn prune(&self, deadline: Instant) -> Result<u64, Fault> {
        let before = DateTime::from_millis(self.now(deadline).await?.0 - ANSWER_HOURS * 3_600_000);
        let removed = read(deadline, self.keys().delete_many(doc! { "at": { "$lt": before } })).await?;
        Ok(removed.deleted_count)
    }

    /// Removes entries of the audit that are older than this, and says how many.
    pub async fn prune_audit(&self, retention: Duration, deadline: Instant) -> Result<u64, Fault> {
        let age_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before = DateTime::from_millis(self.now(deadline).await?.0.saturating_sub(age_ms));
        let removed = read(deadline, self.audit().delete_many(doc! { "at": { "$lt": before } })).await?;
        Ok(removed.deleted_count)
    }

    /// The collection of the audit.
    pub fn audit(&self) -> Handle<Document> {
        self.database.collection(AUDIT)
    }

    fn keys(&self) -> Handle<Document> {
        self.database.collection(IDEMPOTENCY)
    }
}

/// What rides with an event: who made the change and the record before it, and what the unit was answered.
pub fn rider(event: &Envelope, actor: &str, before: Option<&str>) -> Result<Document, StoreError> {
    let text = serde_json::to_string(event).map_err(|error| StoreError::Unsupported(error.to_string()))?;
    let mut rider = doc! { "id": event.id.to_string(), "envelope": text, "actor": actor };
    if let Some(before) = before {
        rider.insert("before", before);
    }
    Ok(rider)
}

/// The answer under a key that still waits in a document.
pub fn answer_in<'a>(document: &'a Document, key: &str) -> Option<&'a str> {
    let riders = document.get_array(PENDING).ok()?.iter().filter_map(Bson::as_document);
    let mut done = riders.filter_map(|rider| rider.get_document("done").ok());
    done.find(|done| done.get_str("key").ok() == Some(key))?.get_str("answer").ok()
}

/// What rides with some events.
struct Riders {
    /// Audit entries.
    entries: Vec<Document>,
    /// Keys with what was answered.
    answers: Vec<(String, String)>,
}

fn riders_of(documents: &[Document], ids: &[String]) -> Riders {
    let mut riders = Riders { entries: Vec::new(), answers: Vec::new() };
    for document in documents {
        for rider in document.get_array(PENDING).into_iter().flatten().filter_map(Bson::as_document) {
            if !rider.get_str("id").is_ok_and(|id| ids.iter().any(|wanted| wanted == id)) {
                continue;
            }
            riders.entries.extend(entry_of(rider).as_ref().and_then(document_of));
            if let Ok(done) = rider.get_document("done") {
                let text = |name: &str| done.get_str(name).unwrap_or_default().to_owned();
                riders.answers.push((text("key"), text("answer")));
            }
        }
    }
    riders
}

fn only_duplicates(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::InsertMany(errors) => {
            errors.write_concern_error.is_none()
                && errors.write_errors.iter().flatten().all(|error| error.code == DUPLICATE)
        }
        _ => false,
    }
}
