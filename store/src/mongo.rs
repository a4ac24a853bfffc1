//! Records in MongoDB: one document each, which also holds its events until they are published. No
//! transactions are used.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::{
    Database,
    options::{Acknowledgment, ClientOptions, ReadConcernLevel},
};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::{
    RecordStore, StoreError, answer,
    check::check_query,
    confined::{PoolFault, PoolReason},
    identity::Identity,
    odd::{Pager, Part},
};
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Collection, Idempotency, UnitOfWork, Written},
    durability::{self, Setting},
    event::Outbox,
    failpoint,
    key::Key,
    log::EventLog,
    query::{Page, Query, Start},
    record::Lookup,
    seal::Sealer,
    value::Timestamp,
};

use document::{DELETED_AT, Documents, KeyForm, PENDING, PENDING_AT};
use fault::{Fault, read};
use indexes::{indexes, key_form};
use ledger::{Known, Ledger, answer_in};
use log::MongoLog;
use options::MongoOptions;
use outbox::MongoOutbox;
use values::{document_of, time_to_bson};

mod audit;
mod commit;
mod document;
mod entries;
mod fault;
mod filter;
mod folds;
mod indexes;
mod ledger;
mod log;
mod meta;
pub mod options;
mod outbox;
mod pair;
mod transaction;
mod values;

/// What failpoints call this kind of store.
const NAME: &str = "mongodb";
/// The most time of one call.
const CALL_TIME: Duration = Duration::from_secs(5);
/// The most time for making indexes.
const PREPARE_TIME: Duration = Duration::from_secs(60);
/// Documents that a server sends at once: each may be large.
const ROWS_AHEAD: u32 = 100;
/// The most keys in one command.
const KEYS_MAX: usize = 1000;
/// How long a tombstone is kept: longer than any tier's time to live.
const TOMBSTONE_DAYS: i64 = 7;
/// The most tombstones that one call removes.
const PRUNE_BATCH: i64 = 1000;

/// Records in a MongoDB database.
pub struct MongoStore {
    database: Database,
    sealer: Arc<dyn Sealer>,
    outbox: Arc<MongoOutbox>,
    ledger: Ledger,
    collections: RwLock<HashMap<String, Arc<Documents>>>,
    /// The pools whose folded fields were filled in: once is enough, and it looks at many documents.
    filled: Mutex<HashSet<String>>,
    /// Whether the outbox is of all collections that are known.
    prepared: AtomicBool,
    /// Whether the server has transactions: found by the first call that has to know.
    transactions: std::sync::OnceLock<bool>,
}

impl MongoStore {
    /// A store in a server, which need not be up yet: every call tries, and fails in bounded time.
    ///
    /// # Errors
    /// `Unsupported` where the options are wrong.
    pub async fn connect(options: MongoOptions, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        let told = options.client_options().await?;
        Self::with(&options, told, sealer)
    }

    fn with(
        options: &MongoOptions,
        told: ClientOptions,
        sealer: Arc<dyn Sealer>,
    ) -> Result<Self, StoreError> {
        let database = options.client(told)?.database(&options.database);
        let outbox = Arc::new(MongoOutbox::new(database.clone()));
        let ledger = Ledger::new(database.clone());
        Ok(Self {
            database,
            sealer,
            outbox,
            ledger,
            collections: RwLock::default(),
            filled: Mutex::default(),
            prepared: AtomicBool::default(),
            transactions: std::sync::OnceLock::new(),
        })
    }

    fn log(&self) -> MongoLog {
        MongoLog::new(self.database.clone(), self.ledger.clone())
    }

    /// What is known of a collection: from `prepare`, or looked up now where the collection changed since.
    async fn documents(
        &self,
        collection: &Collection,
        deadline: Instant,
    ) -> Result<Arc<Documents>, StoreError> {
        let known = self.collections.read().get(&collection.pool).cloned();
        if let Some(documents) =
            known.filter(|known| Arc::ptr_eq(&known.collection.schema, &collection.schema))
        {
            return Ok(documents);
        }
        let documents = self.looked_up(collection, deadline).await?;
        let mut collections = self.collections.write();
        collections.insert(collection.pool.clone(), documents.clone());
        if self.prepared.load(Ordering::Relaxed) {
            // another group's, which is changed from here: its events go on from here too
            self.outbox.serve(collections.values().cloned());
        }
        Ok(documents)
    }

    /// A collection as it is now.
    async fn looked_up(
        &self,
        collection: &Collection,
        deadline: Instant,
    ) -> Result<Arc<Documents>, StoreError> {
        let handle = self.database.collection::<Document>(&collection.name);
        let key = match collection.declared {
            true => key_form(read(deadline, handle.find_one(doc! {}).projection(doc! { "_id": 1 })).await?)?,
            false => KeyForm::Text,
        };
        let version = collection.version_column.clone();
        let read_only = version
            .is_none()
            .then(|| format!("{} has no version field, so it can only be read", collection.name));
        Ok(Arc::new(Documents {
            collection: collection.clone(),
            handle,
            key,
            version: version.unwrap_or_else(|| "version".to_owned()),
            read_only,
            sealer: self.sealer.clone(),
        }))
    }

    /// A collection with its indexes.
    async fn indexed(
        &self,
        collection: &Collection,
        deadline: Instant,
    ) -> Result<Arc<Documents>, StoreError> {
        if let Some(field) = collection.schema.fields.iter().find(|field| field.encrypted && field.unique) {
            let why = format!("{} of {} is unique, so it cannot be encrypted", field.name, collection.name);
            return Err(StoreError::Unprepared(PoolFault::new(PoolReason::ColumnUnfit, why)));
        }
        // what is known stays: the type of its keys is that of the first look
        let known = self.collections.read().get(&collection.pool).cloned();
        let documents = match known.filter(|known| Arc::ptr_eq(&known.collection.schema, &collection.schema))
        {
            Some(known) => known,
            None => self.looked_up(collection, deadline).await?,
        };
        meta::check_keys(&self.database, collection, self.sealer.as_ref(), deadline).await?;
        if documents.read_only.is_none() {
            read(deadline, documents.handle.create_indexes(indexes(collection))).await?;
            if !self.filled.lock().contains(&collection.pool) {
                folds::fill(&documents, deadline).await?;
                self.filled.lock().insert(collection.pool.clone());
            }
        }
        Ok(documents)
    }
}

#[async_trait]
impl RecordStore for MongoStore {
    async fn prepare(&self, collections: &[Arc<Collection>]) -> Result<(), StoreError> {
        match self.prepare_each(collections).await?.into_values().next() {
            Some(fault) => Err(StoreError::Unprepared(fault)),
            None => Ok(()),
        }
    }

    async fn prepare_each(
        &self,
        collections: &[Arc<Collection>],
    ) -> Result<BTreeMap<String, PoolFault>, StoreError> {
        let deadline = Instant::now() + PREPARE_TIME;
        // before the store's own collections: they tell a database that is new from one that was in use
        if let Err(error) = meta::identity(&self.database, deadline).await {
            tracing::warn!(%error, "the database has no identity yet");
        }
        let (mut faults, mut ready) = (BTreeMap::new(), Vec::with_capacity(collections.len()));
        for collection in collections {
            match self.indexed(collection, deadline).await {
                Ok(documents) => ready.push(documents),
                Err(error) => _ = faults.insert(collection.pool.clone(), own_fault(collection, error)?),
            }
        }
        self.ledger.prepare(deadline).await?;
        self.log().prepare(deadline).await?;
        let mut known = self.collections.write();
        known.retain(|pool, _| !faults.contains_key(pool));
        known.extend(ready.into_iter().map(|documents| (documents.collection.pool.clone(), documents)));
        self.prepared.store(true, Ordering::Relaxed);
        self.outbox.serve(known.values().cloned());
        Ok(faults)
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        let deadline = call_deadline();
        let documents = self.documents(collection, deadline).await?;
        let (raw, mut found) = (documents.raw(), HashMap::<Key, Lookup>::with_capacity(keys.len()));
        for part in keys.chunks(KEYS_MAX) {
            let ids: Vec<Bson> = part.iter().flat_map(|key| documents.ids(key.as_str())).collect();
            let find = raw.find(doc! { "_id": { "$in": ids } }).projection(doc! { PENDING: 0 });
            for document in collect_raw(find, deadline).await? {
                let Ok((key, state)) = documents.state(&document) else { continue };
                // where several stand for one key, it is that of the collection's form
                if document.get("_id").is_some_and(|id| documents.key.has(id)) || !found.contains_key(&key) {
                    found.insert(key, state.into());
                }
            }
        }
        Ok(keys.iter().map(|key| found.get(key).cloned().unwrap_or(Lookup::Missing)).collect())
    }

    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        check_query(&collection.schema, query)?;
        let deadline = call_deadline();
        let documents = self.documents(collection, deadline).await?;
        let (mut pager, raw) = (Pager::new(query), documents.raw());
        loop {
            let find = raw
                .find(filter::condition(&documents, query))
                .sort(filter::order(&documents, &query.order))
                .projection(doc! { PENDING: 0 })
                // one more than asked for tells whether there is a next page
                .limit(i64::from(query.limit) + 1)
                .batch_size(ROWS_AHEAD)
                .skip(pager.offset().min(i64::MAX as u64));
            let (mut found, mut part) = (read(deadline, find).await?, Part::new(query));
            while let Some(raw) = read(deadline, found.try_next()).await? {
                if documents.reading(&document_of(&raw)).is_some_and(|reading| !part.push(reading)) {
                    break;
                }
            }
            if pager.take(part)? {
                break;
            }
        }
        let total = match query.count {
            true => {
                let all = Query { start: Start::Offset(0), ..query.clone() };
                Some(
                    read(deadline, documents.handle.count_documents(filter::condition(&documents, &all)))
                        .await?,
                )
            }
            false => None,
        };
        Ok(pager.page(total))
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        let Some(first) = work.changes.first() else { return Ok(Vec::new()) };
        let deadline = super::due(work.deadline, CALL_TIME)?;
        let documents = self.documents(&first.collection, deadline).await?;
        if !super::is_of_one_record(&work) {
            return transaction::commit(self, work, deadline).await;
        }
        failpoint::reach(NAME, "commit.before");
        let written = commit::commit(&documents, &self.ledger, &work, deadline).await?;
        failpoint::reach(NAME, "commit.after");
        Ok(written)
    }

    async fn recall(
        &self,
        collection: &Collection,
        idempotency: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        let deadline = call_deadline();
        let documents = self.documents(collection, deadline).await?;
        let answer = match self.ledger.known(idempotency, deadline).await? {
            None => None,
            Some(Known::Done(answer)) => Some(answer),
            Some(Known::Reserved(record)) => {
                let id = documents.id_of(&record)?;
                let stored = collect_raw(documents.raw().find(doc! { "_id": id }), deadline).await?.pop();
                match stored.and_then(|stored| answer_in(&stored, &idempotency.key).map(str::to_owned)) {
                    Some(answer) => Some(answer),
                    // a relay may have filed it in between
                    None => match self.ledger.known(idempotency, deadline).await? {
                        Some(Known::Done(answer)) => Some(answer),
                        _ => None,
                    },
                }
            }
        };
        let all = std::iter::repeat(collection);
        answer.map(|text| answer::decode(&text, all, idempotency, self.sealer.as_ref())).transpose()
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        let collections: Vec<Arc<Documents>> = self.collections.read().values().cloned().collect();
        audit::find(&self.ledger, &collections, query, call_deadline()).await
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        meta::identity(&self.database, call_deadline()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        read(call_deadline(), self.database.run_command(doc! { "ping": 1 })).await?;
        Ok(())
    }

    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        let hello = self.ledger.hello(call_deadline()).await?;
        let deployment = match (hello.get_str("setName"), hello.get_str("msg")) {
            (Ok(name), _) => {
                let members = hello.get_array("hosts").map_or(1, Vec::len);
                format!("replica set {name} of {members}")
            }
            (_, Ok("isdbgrid")) => "sharded cluster".to_owned(),
            _ => "one server".to_owned(),
        };
        let write = self.database.write_concern();
        let majority = write.is_some_and(|write| write.w == Some(Acknowledgment::Majority));
        let journal = write.is_some_and(|write| write.journal == Some(true));
        let read = self.database.read_concern();
        let reads_majority = read.is_some_and(|read| read.level == ReadConcernLevel::Majority);
        Ok(durability::mongodb(majority, journal, reads_majority, deployment))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.ledger.now(call_deadline()).await?)
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        let before = Timestamp(self.ledger.now(call_deadline()).await?.0 - TOMBSTONE_DAYS * 24 * 3_600_000);
        let old = doc! { DELETED_AT: { "$lt": time_to_bson(before) }, PENDING_AT: { "$exists": false } };
        let all: Vec<Arc<Documents>> = self.collections.read().values().cloned().collect();
        let mut removed = self.ledger.prune(call_deadline()).await?;
        for documents in all.iter().filter(|documents| documents.read_only.is_none()) {
            let find = documents.handle.find(old.clone()).projection(doc! { "_id": 1 }).limit(PRUNE_BATCH);
            let ids: Vec<Bson> = collect(find, call_deadline())
                .await?
                .into_iter()
                .filter_map(|mut one| one.remove("_id"))
                .collect();
            let mut these = old.clone();
            these.insert("_id", doc! { "$in": ids });
            removed += read(call_deadline(), documents.handle.delete_many(these)).await?.deleted_count;
        }
        Ok(removed)
    }

    async fn prune_audit(&self, retention: Duration) -> Result<u64, StoreError> {
        Ok(self.ledger.prune_audit(retention, call_deadline()).await?)
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.outbox.clone()
    }

    fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.log())
    }
}

/// What an error says of one collection alone.
///
/// # Errors
/// The same error where it has nothing to do with the collection.
fn own_fault(collection: &Collection, error: StoreError) -> Result<PoolFault, StoreError> {
    let of_own =
        |why: &str| PoolFault::new(PoolReason::PoolUnavailable, format!("{}: {why}", collection.name));
    match error {
        StoreError::Unprepared(fault) => Ok(fault.of(collection)),
        StoreError::Unsupported(why) | StoreError::Corrupt(why) => Ok(of_own(&why)),
        StoreError::Duplicate { field } => {
            Ok(of_own(&format!("documents have the same value, against the index {field}")))
        }
        other => Err(other),
    }
}

/// The time by which a call that starts now must be done.
fn call_deadline() -> Instant {
    Instant::now() + CALL_TIME
}

/// The documents of a search by their bytes, since other programs may have written what is no document of
/// ours.
async fn collect_raw(
    find: mongodb::action::Find<'_, RawDocumentBuf>,
    deadline: Instant,
) -> Result<Vec<Document>, Fault> {
    let cursor = read(deadline, find).await?;
    let found: Vec<RawDocumentBuf> = read(deadline, cursor.try_collect()).await?;
    Ok(found.iter().map(|raw| document_of(raw)).collect())
}

async fn collect(
    find: mongodb::action::Find<'_, Document>,
    deadline: Instant,
) -> Result<Vec<Document>, Fault> {
    let cursor = read(deadline, find).await?;
    read(deadline, cursor.try_collect()).await
}

#[cfg(test)]
pub mod tests;
