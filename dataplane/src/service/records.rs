//! The read and write policy of one pool.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::{
    error::ServiceError,
    oddities::Oddities,
    pages::{KeptPage, Pages},
};
use engine::{
    Cached, Entry,
    tiered::{LoadError, Loader, ReadError, Tiered},
};
use inexact::Inexact;
use model::{
    audit::{AuditFound, AuditQuery},
    budget::Allowance,
    change::{Collection, Origin},
    key::{Key, Version},
    query::{Filter, HELD_PER_BYTE, PAGE_BYTES_MAX, Page, Query, Start},
    record::{Lookup, Named, Record, Unreadable},
    schema::{Schema, Wrote},
    value::{Row, Timestamp},
};
use store::{RecordStore, StoreError, clock::ServerClock};

mod commits;
mod inexact;
pub mod own;
pub mod writes;

/// Keys that are read at first where many are asked for: their records say how many more fit.
const KEYS_FIRST: usize = 16;

/// Called after each commit, so that the relay need not wait for its next look.
pub type Wake = Arc<dyn Fn() + Send + Sync>;
/// Completes the values of a create or a change from elsewhere, before rules and computed fields.
pub type Completion = Arc<dyn Fn(Wish) -> BoxFuture<'static, Result<Row, ServiceError>> + Send + Sync>;

/// What somebody wants a record to be.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its values.
    pub values: Row,
    /// Its values by now; none for a create.
    pub current: Option<Row>,
    /// Who wants it.
    pub origin: Origin,
}

/// What a pool's behaviour says to changes from outside.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Whether a record may get these values.
    async fn check(&self, current: &Record, next: &Row) -> Result<(), ServiceError>;

    /// Whether a record may be deleted as it is.
    async fn check_delete(&self, _current: &Record) -> Result<(), ServiceError> {
        Ok(())
    }

    /// Whether something goes on with a record that has to end before it is deleted, so that no unit of work
    /// can hold both.
    fn is_under_way(&self, _current: &Record) -> bool {
        false
    }

    /// Ends what goes on with a record before an actor deletes it. Says whether that may have changed the
    /// record.
    async fn before_delete(&self, _key: &Key, _actor: &str) -> Result<bool, ServiceError> {
        Ok(false)
    }
}

/// The records of one pool: every read and write goes through here.
pub struct Records {
    collection: Arc<Collection>,
    store: Arc<dyn RecordStore>,
    tiered: Arc<Tiered>,
    load: Loader,
    deadline: Duration,
    wake: Wake,
    completion: Option<Completion>,
    keeper: OnceLock<Arc<dyn Keeper>>,
    pages: Pages,
    inexact: Arc<Inexact>,
    oddities: Arc<Oddities>,
    clock: Arc<ServerClock>,
}

/// What was found of several keys.
#[derive(Clone, Debug, Default)]
pub struct Many {
    /// The records, in the order of their keys, without those that are not there.
    pub entries: Vec<Entry>,
    /// Those that cannot be read.
    pub unreadable: Vec<Named>,
    /// How many keys that is: what follows did not fit.
    pub keys: usize,
    /// The versions of all that can be, those of deletes too.
    pub versions: Vec<(Key, Version)>,
}

/// A record that a read found, ready to be sent.
#[derive(Clone, Debug)]
pub struct Served {
    /// The record.
    pub entry: Entry,
    /// Where it was found: the tier's name, or `store`.
    pub tier: Arc<str>,
    /// How long ago the tier was filled.
    pub age: Duration,
    /// Whether it is served beyond its time to live: while a fresh one is loaded, or because the store fails.
    pub stale: bool,
}

impl Records {
    /// The records of a collection, read through tiers. `deadline` bounds each read of the store, and all
    /// attempts of each change; `wake` is called after each commit.
    pub fn new(
        collection: Arc<Collection>,
        store: Arc<dyn RecordStore>,
        tiered: Arc<Tiered>,
        deadline: Duration,
        wake: Wake,
    ) -> Self {
        let (inexact, oddities) = (Arc::new(Inexact::of(&collection)), Arc::<Oddities>::default());
        let load = loader(&collection, &store, &inexact, &oddities);
        Self {
            collection,
            store,
            tiered,
            load,
            deadline,
            wake,
            completion: None,
            keeper: OnceLock::new(),
            pages: Pages::default(),
            inexact,
            oddities,
            clock: Arc::default(),
        }
    }

    /// The same, with values completed before each create and change.
    #[must_use]
    pub fn completed_by(self, completion: Completion) -> Self {
        Self { completion: Some(completion), ..self }
    }

    /// Lets a keeper judge changes from outside from now on. The first one stays.
    pub fn keep(&self, keeper: Arc<dyn Keeper>) {
        _ = self.keeper.set(keeper);
    }

    /// What the records look like.
    pub fn schema(&self) -> &Schema {
        &self.collection.schema
    }

    /// Now, by the clock of the store's server, as far as it is known: what several processes stamp is
    /// compared.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Notes in internal fields what a change from outside writes.
    pub fn note(&self, before: Option<&Row>, after: &mut Row, wrote: Wrote<'_>) {
        (self.schema().on_write)(self.schema(), before, after, wrote, self.now());
    }

    /// The collection.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    /// Which records are known to be unreadable.
    pub fn oddities(&self) -> &Oddities {
        &self.oddities
    }

    /// The clock of the store's server, as last asked: what several processes stamp and compare goes by it.
    pub fn clock(&self) -> &Arc<ServerClock> {
        &self.clock
    }

    /// Asks the store's server what time it is, so that `clock` goes right.
    ///
    /// # Errors
    /// What the store says.
    pub async fn set_clock(&self) -> Result<(), ServiceError> {
        let asked_at = Instant::now();
        self.clock.note(asked_at, self.store.now().await?);
        Ok(())
    }

    /// The tiers that reads go through.
    pub fn tiered(&self) -> &Arc<Tiered> {
        &self.tiered
    }

    /// The record of a key, at `at_least` this version: from the first tier that has it, else from the store.
    ///
    /// # Errors
    /// `NotFound`, `NotYet`, or what the store says.
    pub async fn get(&self, key: &Key, at_least: Version) -> Result<Served, ServiceError> {
        let served = self.tiered.get_or_load(key, at_least, &self.load).await?;
        match served.cached {
            Cached::Present(entry) => {
                let age = Duration::from_millis(served.age_ms);
                Ok(Served { entry, tier: served.tier, age, stale: served.stale })
            }
            Cached::Absent(_) => Err(ServiceError::NotFound),
        }
    }

    /// The records of several keys, from the first one on, as many as fit into a page and its memory.
    ///
    /// # Errors
    /// What the store says, or `Overloaded`: there is no memory for the first one.
    pub async fn get_many(&self, keys: &[Key], allowance: &Allowance) -> Result<Many, ServiceError> {
        let (mut many, mut bytes, mut portion) = (Many::default(), 0, KEYS_FIRST);
        while let Some(rest) = keys.get(many.keys..).filter(|rest| !rest.is_empty()) {
            let part = rest.get(..portion).unwrap_or(rest);
            for (key, answer) in part.iter().zip(self.tiered.get_many(part, &self.load).await) {
                let answer = answer.map(|served| served.cached);
                let version = answer.as_ref().ok().map(Cached::version);
                match answer {
                    Ok(Cached::Present(entry)) => {
                        let more = entry.body_len();
                        let is_first = many.entries.is_empty();
                        let is_over = !is_first && bytes + more > PAGE_BYTES_MAX;
                        if is_over || !allowance.take(HELD_PER_BYTE * more) {
                            return if many.keys > 0 { Ok(many) } else { Err(ServiceError::Overloaded) };
                        }
                        bytes += more;
                        many.entries.push(entry);
                    }
                    Ok(Cached::Absent(_)) => (),
                    Err(ReadError::Unreadable(unreadable)) => many.unreadable.push(unreadable.named()),
                    Err(error) => return Err(error.into()),
                }
                many.versions.extend(version.map(|version| (key.clone(), version)));
                many.keys += 1;
            }
            // as many as are likely to fit
            let each = (bytes / many.keys).max(1);
            portion = (PAGE_BYTES_MAX.saturating_sub(bytes) / each).max(1);
        }
        Ok(many)
    }

    /// What the store knows of several keys, in their order.
    ///
    /// # Errors
    /// What the store says.
    pub async fn look_up_all(&self, keys: &[Key]) -> Result<Vec<Lookup>, ServiceError> {
        let found = self.in_time(self.store.read(&self.collection, keys)).await?;
        self.oddities.note_all(keys, &found);
        Ok(found)
    }

    /// How many records a filter takes.
    ///
    /// # Errors
    /// What the store says.
    pub async fn count(&self, filter: Filter) -> Result<u64, ServiceError> {
        let query = Query {
            filter,
            order: Vec::new(),
            start: Start::Offset(0),
            limit: 1,
            count: true,
            allowance: Allowance::default(),
        };
        Ok(self.find(&query).await?.total.unwrap_or_default())
    }

    /// Whether records and pages are kept in tiers.
    pub fn is_cached(&self) -> bool {
        !self.tiered.is_empty()
    }

    /// A page that was read before, if nothing changed since; a pool without tiers keeps none.
    pub fn kept_page(&self, query: &str) -> Option<KeptPage> {
        self.pages.get(query, self.tiered.generation()).filter(|_| self.is_cached())
    }

    /// The generation in which a page is read: to be asked for before the reading begins.
    pub fn generation(&self) -> u64 {
        self.tiered.generation()
    }

    /// Keeps a page whose reading began in a generation.
    pub fn keep_page(&self, query: String, generation: u64, page: &KeptPage) {
        if self.is_cached() {
            self.pages.put(query, generation, page);
        }
    }

    /// Whether these records are in the same store as others.
    pub fn shares_store(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.store, &other.store)
    }

    /// The audit entries that a query finds in the store of these records.
    ///
    /// # Errors
    /// What the store says.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, ServiceError> {
        self.in_time(self.store.audit(query)).await
    }

    /// A page of records.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, query: &Query) -> Result<Page, ServiceError> {
        let page = self.in_time(self.store.find(&self.collection, query)).await?;
        page.records.iter().for_each(|record| self.inexact.look(&self.collection, record));
        self.oddities.note_page(&page);
        Ok(page)
    }

    /// The columns whose stored numbers are beyond what many readers of JSON tell apart, as far as any was
    /// read.
    pub fn inexact_columns(&self) -> Vec<&str> {
        self.inexact.columns()
    }

    /// The record as the store has it, for a change of this origin.
    async fn current(&self, key: &Key, origin: &Origin) -> Result<Record, ServiceError> {
        match self.seen(key, origin).await? {
            Seen::Whole(record) => Ok(record),
            Seen::Unreadable(unreadable) => Err(ServiceError::Unreadable(Arc::from(unreadable))),
        }
    }

    /// The record as the store has it, as far as it can be read, for what replaces or deletes it.
    async fn seen(&self, key: &Key, origin: &Origin) -> Result<Seen, ServiceError> {
        let found = self.look_up_for(origin, std::slice::from_ref(key)).await?;
        match found.into_iter().next().ok_or_else(no_answer)? {
            Lookup::Found(record) => Ok(Seen::Whole(record)),
            Lookup::Unreadable(unreadable) => Ok(Seen::Unreadable(unreadable)),
            Lookup::Deleted(_) | Lookup::Missing => Err(ServiceError::NotFound),
        }
    }

    async fn look_up(&self, key: &Key) -> Result<Lookup, ServiceError> {
        let found = self.look_up_all(std::slice::from_ref(key)).await?;
        found.into_iter().next().ok_or_else(no_answer)
    }

    /// What the store knows of several keys, for a change of this origin.
    ///
    /// # Errors
    /// What the store says, or `Timeout`.
    pub async fn look_up_for(&self, origin: &Origin, keys: &[Key]) -> Result<Vec<Lookup>, ServiceError> {
        let found = self.in_time_of(origin, self.store.read(&self.collection, keys)).await?;
        self.oddities.note_all(keys, &found);
        Ok(found)
    }

    /// How long a change of this origin may still take.
    fn time_left(&self, origin: &Origin) -> Duration {
        origin.deadline.map_or(self.deadline, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    async fn in_time_of<T>(
        &self,
        origin: &Origin,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ServiceError> {
        Ok(timeout(self.time_left(origin), call).await.map_err(|_| ServiceError::Timeout)??)
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, ServiceError> {
        Ok(timeout(self.deadline, call).await.map_err(|_| ServiceError::Timeout)??)
    }
}

fn no_answer() -> ServiceError {
    ServiceError::Internal("the store answered for no key".to_owned())
}

/// A record that is there.
enum Seen {
    Whole(Record),
    Unreadable(Box<Unreadable>),
}

/// What reads the records of a collection from its store.
fn loader(
    collection: &Arc<Collection>,
    store: &Arc<dyn RecordStore>,
    inexact: &Arc<Inexact>,
    oddities: &Arc<Oddities>,
) -> Loader {
    let (collection, store) = (Arc::clone(collection), Arc::clone(store));
    let (inexact, oddities) = (Arc::clone(inexact), Arc::clone(oddities));
    Arc::new(move |keys| {
        let (collection, store) = (Arc::clone(&collection), Arc::clone(&store));
        let (inexact, oddities) = (Arc::clone(&inexact), Arc::clone(&oddities));
        Box::pin(async move {
            let found = store.read(&collection, &keys).await.map_err(|error| Arc::new(error) as LoadError)?;
            for lookup in &found {
                if let Lookup::Found(record) = lookup {
                    inexact.look(&collection, record);
                }
            }
            oddities.note_all(&keys, &found);
            Ok(found)
        })
    })
}
