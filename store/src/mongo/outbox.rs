//! The outbox of documents: events wait in the documents that they are about, and who relays a shard holds
//! its lease.
//!
//! Leases are judged by the server's clock, as `hello` tells it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use mongodb::{Collection as Handle, Database};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    super::leases::Leases,
    NAME, StoreError, call_deadline,
    commit::envelope_of,
    document::{Documents, PENDING, PENDING_AT, SHARD},
    fault::{Fault, read},
    ledger::Ledger,
};
use model::{
    event::{Backlog, Claimed, Envelope, Outbox, OutboxError},
    failpoint,
};

/// The collection of leases.
const LEASES: &str = "flyweight_leases";
/// The most ids in one command.
const IDS_MAX: usize = 1000;

/// The outbox of a MongoDB database.
pub struct MongoOutbox {
    database: Database,
    ledger: Ledger,
    collections: RwLock<Vec<Handle<Document>>>,
    leases: Leases,
    /// Where the claimed events are: the name of the collection and the `_id`.
    places: Mutex<HashMap<Uuid, (String, Bson)>>,
}

/// How many claimed events' places are known: without its place an event is confirmed too, but slower.
const PLACES_MAX: usize = 100_000;

/// A document with its events.
struct Waiting {
    at: i64,
    events: Vec<(Envelope, String, Bson)>,
}

impl MongoOutbox {
    /// The outbox of this database, of no collections yet.
    pub fn new(database: Database) -> Self {
        let ledger = Ledger::new(database.clone());
        Self {
            database,
            ledger,
            collections: RwLock::default(),
            leases: Leases::default(),
            places: Mutex::default(),
        }
    }

    /// From now on the outbox of these collections.
    pub fn serve(&self, collections: impl Iterator<Item = Arc<Documents>>) {
        let writable = collections.filter(|documents| documents.read_only.is_none());
        *self.collections.write() = writable.map(|documents| documents.handle.clone()).collect();
    }

    fn handles(&self) -> Vec<Handle<Document>> {
        self.collections.read().clone()
    }

    async fn claimed(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, Fault> {
        let deadline = call_deadline();
        let pending = self.pending_shards(deadline).await?;
        let unsure = self.leases.unsure(owner, lease, &pending);
        if !unsure.is_empty() {
            let until = Instant::now() + lease;
            let got = self.take(owner, lease, &unsure, deadline).await?;
            self.leases.note(owner, &unsure, got, until);
        }
        let held = self.leases.held(owner, &pending, Instant::now());
        let blocked = held.len() < pending.len();
        if held.is_empty() {
            return Ok(Claimed { blocked, ..Claimed::default() });
        }
        let ends_at = self.leases.end(owner, &held).map(Instant::into_std);
        let mut waiting = Vec::new();
        for handle in self.handles() {
            waiting.extend(oldest(&handle, &held, limit, deadline).await?);
        }
        waiting.sort_by_key(|waiting| waiting.at);
        let events = waiting.into_iter().flat_map(|waiting| waiting.events).take(limit);
        let mut places = self.places.lock();
        // those that another owner confirmed meanwhile are never asked for again
        if places.len() > PLACES_MAX {
            places.clear();
        }
        let claim = |(event, collection, id): (Envelope, String, Bson)| {
            places.insert(event.id, (collection, id));
            event
        };
        Ok(Claimed { events: events.map(claim).collect(), blocked, until: ends_at })
    }

    async fn pending_shards(&self, deadline: Instant) -> Result<Vec<i64>, Fault> {
        let mut shards = Vec::new();
        for handle in self.handles() {
            let waiting = doc! { PENDING_AT: { "$exists": true } };
            for shard in read(deadline, handle.distinct(SHARD, waiting)).await? {
                shards.extend(super::values::int_of(&shard));
            }
        }
        shards.sort_unstable();
        shards.dedup();
        Ok(shards)
    }

    /// Takes those leases that are free, run out, or the owner's own.
    async fn take(
        &self,
        owner: &str,
        lease: Duration,
        shards: &[i64],
        deadline: Instant,
    ) -> Result<Vec<i64>, Fault> {
        let leases = self.database.collection::<Document>(LEASES);
        let now = self.ledger.ask_time(deadline).await?.0;
        let until = now.saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX));
        let mut got = Vec::new();
        for shard in shards {
            let free = doc! { "_id": shard, "$or": [
                { "owner": owner },
                { "until": { "$lte": DateTime::from_millis(now) } },
            ] };
            let mine = doc! { "$set": { "owner": owner, "until": DateTime::from_millis(until) } };
            match read(deadline, leases.update_one(free, mine).upsert(true)).await {
                Ok(_) => got.push(*shard),
                // it is there, and another's
                Err(Fault::Taken(_)) => (),
                Err(fault) => return Err(fault),
            }
        }
        Ok(got)
    }

    async fn confirmed(&self, ids: &[Uuid]) -> Result<(), Fault> {
        for part in ids.chunks(IDS_MAX) {
            let mut places: BTreeMap<String, Vec<Bson>> = BTreeMap::new();
            let mut strangers = false;
            for id in part {
                match self.places.lock().get(id).cloned() {
                    Some((collection, key)) => places.entry(collection).or_default().push(key),
                    None => strangers = true,
                }
            }
            for handle in self.handles() {
                if let Some(keys) = places.remove(handle.name()) {
                    pull(&handle, &self.ledger, doc! { "_id": { "$in": keys } }, part).await?;
                }
                if strangers {
                    pull(&handle, &self.ledger, doc! { PENDING_AT: { "$exists": true } }, part).await?;
                }
            }
            let mut known = self.places.lock();
            part.iter().for_each(|id| _ = known.remove(id));
        }
        Ok(())
    }

    async fn released(&self, owner: &str) -> Result<(), Fault> {
        self.leases.forget(owner);
        self.places.lock().clear();
        let leases = self.database.collection::<Document>(LEASES);
        read(call_deadline(), leases.delete_many(doc! { "owner": owner })).await.map(|_| ())
    }

    async fn counted(&self) -> Result<Backlog, Fault> {
        let deadline = call_deadline();
        let (mut backlog, now) = (Backlog::default(), self.ledger.now(deadline).await?);
        for handle in self.handles() {
            let pipeline = [
                doc! { "$match": { PENDING_AT: { "$exists": true } } },
                doc! { "$group": {
                    "_id": Bson::Null,
                    "events": { "$sum": { "$size": format!("${PENDING}") } },
                    "oldest": { "$min": format!("${PENDING_AT}") },
                } },
            ];
            let cursor = read(deadline, handle.aggregate(pipeline)).await?;
            for group in read(deadline, cursor.try_collect::<Vec<Document>>()).await? {
                let events = group.get("events").and_then(super::values::int_of).unwrap_or_default();
                let oldest = group.get_datetime("oldest").map_or(i64::MAX, |time| time.timestamp_millis());
                let age = now.0.saturating_sub(oldest).max(0);
                backlog.events += events as u64;
                backlog.oldest_ms = backlog.oldest_ms.max(age as u64);
            }
        }
        Ok(backlog)
    }
}

#[async_trait]
impl Outbox for MongoOutbox {
    /// A repeated claim of one owner gives the same events again until they are confirmed, and renews its
    /// leases. Owners must have different names in different processes.
    async fn claim(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, OutboxError> {
        self.claimed(owner, lease, limit).await.map_err(failed)
    }

    async fn confirm(&self, _owner: &str, ids: &[Uuid]) -> Result<(), OutboxError> {
        self.confirmed(ids).await.map_err(failed)
    }

    async fn release(&self, owner: &str) -> Result<(), OutboxError> {
        self.released(owner).await.map_err(failed)
    }

    async fn backlog(&self) -> Result<Backlog, OutboxError> {
        self.counted().await.map_err(failed)
    }
}

fn failed(fault: Fault) -> OutboxError {
    OutboxError(StoreError::from(fault).to_string())
}

/// The documents of some shards whose events wait for longest.
async fn oldest(
    handle: &Handle<Document>,
    shards: &[i64],
    limit: usize,
    deadline: Instant,
) -> Result<Vec<Waiting>, Fault> {
    let waiting = doc! { PENDING_AT: { "$exists": true }, SHARD: { "$in": shards } };
    let find = handle
        .find(waiting)
        .sort(doc! { PENDING_AT: 1 })
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .projection(doc! { PENDING: 1, PENDING_AT: 1 });
    let mut cursor = read(deadline, find).await?;
    let (mut all, mut bare, mut count) = (Vec::new(), Vec::new(), 0);
    // no more than is asked for: a document that is changed often while the bus is away has many events
    while count < limit
        && let Some(document) = read(deadline, cursor.try_next()).await?
    {
        let id = document.get("_id").cloned().unwrap_or(Bson::Null);
        let at = document.get_datetime(PENDING_AT).map_or(0, |time| time.timestamp_millis());
        let mut events = Vec::new();
        for pending in document.get_array(PENDING).map(Vec::as_slice).unwrap_or_default() {
            let text = envelope_of(pending).unwrap_or_default();
            let event = serde_json::from_str(text)
                .map_err(|error| StoreError::Corrupt(format!("an event in {}: {error}", handle.name())))?;
            events.push((event, handle.name().to_owned(), id.clone()));
        }
        count += events.len();
        match events.is_empty() {
            true => bare.push(id),
            false => all.push(Waiting { at, events }),
        }
    }
    if !bare.is_empty() {
        // who took their events out died before the marks: they would be found again for ever, before all
        // that came later
        unmark(handle, doc! { "_id": { "$in": bare } }, deadline).await?;
    }
    Ok(all)
}

/// Takes events out of documents, once what rides with them is filed, and the mark of those that have none
/// left. An event that comes between the two keeps its mark.
async fn pull(handle: &Handle<Document>, ledger: &Ledger, of: Document, ids: &[Uuid]) -> Result<(), Fault> {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let deadline = call_deadline();
    ledger.file(handle, &of, &ids, deadline).await?;
    failpoint::reach(NAME, "outbox.filed");
    let events = doc! { "$pull": { PENDING: { "id": { "$in": ids } } } };
    read(deadline, handle.update_many(of.clone(), events)).await?;
    failpoint::reach(NAME, "outbox.pulled");
    unmark(handle, of, deadline).await
}

/// Takes the marks off documents in which no event waits.
async fn unmark(handle: &Handle<Document>, mut of: Document, deadline: Instant) -> Result<(), Fault> {
    of.insert(PENDING, doc! { "$size": 0 });
    let marks = doc! { "$unset": { PENDING: "", PENDING_AT: "", SHARD: "" } };
    read(deadline, handle.update_many(of, marks)).await.map(|_| ())
}
