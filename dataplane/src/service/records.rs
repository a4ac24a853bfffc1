//! The read and write policy of one pool.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::time::{sleep, timeout};

use super::{error::ServiceError, precondition::Precondition};
use crate::{
    cache::{
        Cached, Entry,
        tiered::{Loader, Tiered},
    },
    domain::{
        change::{Action, Change, Collection, Guard, UnitOfWork, Written},
        json::{Draft, Echo, Patch, Replacement},
        query::{Page, Query},
        record::{Key, Lookup, Record, Row, Version},
        schema::Schema,
    },
    store::{RecordStore, StoreError},
};

/// How often a change is tried again when others change the record at the same time.
const ATTEMPTS_MAX: u32 = 12;

/// Called after each commit, so that the relay need not wait for its next look.
pub type Wake = Arc<dyn Fn() + Send + Sync>;
/// Completes the values of a create or a change from elsewhere, before rules and computed fields.
pub type Completion = Arc<dyn Fn(Row) -> BoxFuture<'static, Result<Row, ServiceError>> + Send + Sync>;

/// What a pool's behaviour says to changes from outside.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Whether a record may get these values.
    fn check(&self, current: &Record, next: &Row) -> Result<(), ServiceError>;

    /// Ends what goes on with a record before it is deleted.
    async fn before_delete(&self, key: &Key) -> Result<(), ServiceError>;
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
    /// The records of a collection, read through tiers. `deadline` bounds each call of the store; `wake` is called after each commit.
    pub fn new(
        collection: Arc<Collection>,
        store: Arc<dyn RecordStore>,
        tiered: Arc<Tiered>,
        deadline: Duration,
        wake: Wake,
    ) -> Self {
        let load = loader(&collection, &store);
        Self { collection, store, tiered, load, deadline, wake, completion: None, keeper: OnceLock::new() }
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

    /// The collection.
    pub fn collection(&self) -> &Arc<Collection> {
        &self.collection
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

    /// The records of several keys, in the order of the keys, without those that are not there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Entry>, ServiceError> {
        let mut entries = Vec::with_capacity(keys.len());
        for answer in self.tiered.get_many(keys, &self.load).await {
            if let Cached::Present(entry) = answer?.cached {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// What the store knows of several keys, in their order.
    ///
    /// # Errors
    /// What the store says.
    pub async fn look_up_all(&self, keys: &[Key]) -> Result<Vec<Lookup>, ServiceError> {
        self.in_time(self.store.read(&self.collection, keys)).await
    }

    /// A page of records.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find(&self, query: &Query) -> Result<Page, ServiceError> {
        self.in_time(self.store.find(&self.collection, query)).await
    }

    /// Creates a record.
    ///
    /// # Errors
    /// `Exists`, `Duplicate`, `Invalid`, or what the store says.
    pub async fn create(&self, draft: Draft, actor: &str) -> Result<Record, ServiceError> {
        let Draft { key, values } = draft;
        let fresh_key = key.is_none();
        let values = self.settle(values).await?;
        let key = key.unwrap_or_else(Key::generate);
        record_of(self.commit(key, Action::Create { values, fresh_key }, actor).await?)
    }

    /// Replaces a record's values; read-only fields stay.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Invalid`, `Duplicate`, `Contended`, or what the store says.
    pub async fn replace(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        actor: &str,
    ) -> Result<Record, ServiceError> {
        let Replacement { echo, values } = body;
        self.check_key(&echo, key)?;
        let values = self.settle(values).await?;
        if let (Some(guard), false) = (self.blind_guard(precondition, &echo), self.schema().has_read_only()) {
            return record_of(self.commit(key.clone(), Action::Replace { guard, values }, actor).await?);
        }
        self.update(key, precondition, &echo, actor, |current| Ok(self.with_read_only(values.clone(), current))).await
    }

    /// Merges a patch into a record.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Invalid`, `Duplicate`, `Contended`, or what the store says.
    pub async fn patch(
        &self,
        key: &Key,
        precondition: &Precondition,
        patch: &Patch,
        actor: &str,
    ) -> Result<Record, ServiceError> {
        self.check_key(&patch.echo, key)?;
        let merged = |current: &Record| Ok(patch.apply(self.schema(), &current.values)?);
        self.update(key, precondition, &patch.echo, actor, merged).await
    }

    /// Replaces a record's values, or creates it. Says whether it was created.
    ///
    /// # Errors
    /// `Stale`, `Invalid`, `Duplicate`, or what the store says.
    pub async fn upsert(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        actor: &str,
    ) -> Result<(Record, bool), ServiceError> {
        self.check_key(&body.echo, key)?;
        let of_any = matches!(precondition, Precondition::None | Precondition::Absent);
        if !of_any || body.echo.version.is_some() || !body.echo.values.is_empty() {
            return match self.replace(key, precondition, body, actor).await {
                Err(ServiceError::NotFound) => Err(ServiceError::Stale { current: Version(0) }),
                replaced => Ok((replaced?, false)),
            };
        }
        let values = self.settle(body.values).await?;
        let action = match precondition {
            Precondition::Absent => Action::Create { values, fresh_key: false },
            _ => Action::Upsert { guard: Guard::Any, values },
        };
        let written = match self.commit(key.clone(), action, actor).await {
            Err(ServiceError::Exists) if *precondition == Precondition::Absent => {
                return Err(ServiceError::Stale { current: self.current(key).await?.version });
            }
            done => done?,
        };
        let created = written.created;
        Ok((record_of(written)?, created))
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Contended`, or what the store says.
    pub async fn delete(&self, key: &Key, precondition: &Precondition, actor: &str) -> Result<(), ServiceError> {
        if let Some(keeper) = self.keeper.get() {
            precondition.check(self.current(key).await?.version)?;
            keeper.before_delete(key).await?;
            self.commit(key.clone(), Action::Delete { guard: Guard::Any }, actor).await?;
            return Ok(());
        }
        if let Some(guard) = precondition.guard() {
            self.commit(key.clone(), Action::Delete { guard }, actor).await?;
            return Ok(());
        }
        for attempt in 0..ATTEMPTS_MAX {
            let version = self.current(key).await?.version;
            precondition.check(version)?;
            match self.commit(key.clone(), Action::Delete { guard: Guard::Exactly(version) }, actor).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return done.map(|_| ()),
            }
        }
        Err(ServiceError::Contended)
    }

    /// The record as the store has it; none where it is not there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_one(&self, key: &Key) -> Result<Option<Record>, ServiceError> {
        match self.look_up(key).await? {
            Lookup::Found(record) => Ok(Some(record)),
            Lookup::Deleted(_) | Lookup::Missing => Ok(None),
        }
    }

    /// Creates or replaces a record with values that the server itself made.
    ///
    /// # Errors
    /// `Duplicate`, or what the store says.
    pub async fn put(&self, key: &Key, values: Row, actor: &str) -> Result<Record, ServiceError> {
        record_of(self.commit(key.clone(), Action::Upsert { guard: Guard::Any, values }, actor).await?)
    }

    /// Creates a record with values that the server itself made.
    ///
    /// # Errors
    /// `Exists`, `Duplicate`, or what the store says.
    pub async fn insert(&self, key: &Key, values: Row, actor: &str) -> Result<Record, ServiceError> {
        record_of(self.commit(key.clone(), Action::Create { values, fresh_key: false }, actor).await?)
    }

    /// Changes a record by a function of its current state that the server itself does: no rule is asked. None from the function leaves
    /// the record as it is, and none is answered.
    ///
    /// # Errors
    /// What the function says, and `NotFound`, `Duplicate`, `Contended`, or what the store says.
    pub async fn adjust(
        &self,
        key: &Key,
        actor: &str,
        change: impl Fn(&Record) -> Result<Option<Row>, ServiceError>,
    ) -> Result<Option<Record>, ServiceError> {
        for attempt in 0..ATTEMPTS_MAX {
            let current = self.current(key).await?;
            let Some(values) = change(&current)? else { return Ok(None) };
            let action = Action::Replace { guard: Guard::Exactly(current.version), values };
            match self.commit(key.clone(), action, actor).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return record_of(done?).map(Some),
            }
        }
        Err(ServiceError::Contended)
    }

    /// Changes a record by a function of its current state, read from the store; tried again when others were faster.
    ///
    /// # Errors
    /// What the function says, and `NotFound`, `Stale`, `Duplicate`, `Contended`, or what the store says.
    pub async fn update(
        &self,
        key: &Key,
        precondition: &Precondition,
        echo: &Echo,
        actor: &str,
        change: impl Fn(&Record) -> Result<Row, ServiceError>,
    ) -> Result<Record, ServiceError> {
        for attempt in 0..ATTEMPTS_MAX {
            let current = self.current(key).await?;
            precondition.check(current.version)?;
            if echo.version.is_some_and(|seen| seen != current.version) {
                return Err(ServiceError::Stale { current: current.version });
            }
            echo.check(self.schema(), &current).map_err(ServiceError::Invalid)?;
            let values = self.settle(change(&current)?).await?;
            if let Some(keeper) = self.keeper.get() {
                keeper.check(&current, &values)?;
            }
            let action = Action::Replace { guard: Guard::Exactly(current.version), values };
            match self.commit(key.clone(), action, actor).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return record_of(done?),
            }
        }
        Err(ServiceError::Contended)
    }

    fn check_key(&self, echo: &Echo, key: &Key) -> Result<(), ServiceError> {
        echo.check_key(self.schema(), key).map_err(|fault| ServiceError::Invalid(vec![fault]))
    }

    /// The guard of a change that needs no look at the record first.
    fn blind_guard(&self, precondition: &Precondition, echo: &Echo) -> Option<Guard> {
        if !echo.values.is_empty() {
            return None;
        }
        match (precondition.guard()?, echo.version) {
            (guard, None) => Some(guard),
            (Guard::Any, Some(version)) => Some(Guard::Exactly(version)),
            (guard @ Guard::Exactly(asked), Some(version)) => (asked == version).then_some(guard),
        }
    }

    /// Completes values from elsewhere, checks the whole, and computes what the server computes.
    async fn settle(&self, values: Row) -> Result<Row, ServiceError> {
        let mut values = match &self.completion {
            None => values,
            Some(complete) => {
                let values = complete(values).await?;
                let faults = self.schema().faults_of(&values);
                if !faults.is_empty() {
                    return Err(ServiceError::Invalid(faults));
                }
                values
            }
        };
        (self.schema().derive)(self.schema(), &mut values);
        Ok(values)
    }

    fn with_read_only(&self, mut values: Row, current: &Record) -> Row {
        let slots = self.schema().fields.iter().zip(&mut values.0).zip(&current.values.0);
        for ((_, slot), kept) in slots.filter(|((field, _), _)| field.read_only) {
            slot.clone_from(kept);
        }
        values
    }

    /// The record as the store has it.
    async fn current(&self, key: &Key) -> Result<Record, ServiceError> {
        match self.look_up(key).await? {
            Lookup::Found(record) => Ok(record),
            Lookup::Deleted(_) | Lookup::Missing => Err(ServiceError::NotFound),
        }
    }

    async fn look_up(&self, key: &Key) -> Result<Lookup, ServiceError> {
        let found = self.look_up_all(std::slice::from_ref(key)).await?;
        found.into_iter().next().ok_or_else(|| ServiceError::Internal("the store answered for no key".to_owned()))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, ServiceError> {
        Ok(timeout(self.deadline, call).await.map_err(|_| ServiceError::Timeout)??)
    }

    /// Commits one change. It runs on when the caller goes away, so that a committed change always reaches tiers and relay.
    async fn commit(&self, key: Key, action: Action, actor: &str) -> Result<Written, ServiceError> {
        let change = Change { collection: Arc::clone(&self.collection), key, action };
        let work = UnitOfWork { changes: vec![change], actor: actor.to_owned() };
        let (store, tiered, wake) = (Arc::clone(&self.store), Arc::clone(&self.tiered), Arc::clone(&self.wake));
        let task = tokio::spawn(async move {
            let written = store.commit(work).await?;
            wake();
            for written in &written {
                tiered.after_commit(&written.key, &state_of(written)).await;
            }
            Ok::<_, StoreError>(written)
        });
        let late = || ServiceError::Unknown("the store did not answer in time".to_owned());
        let done = timeout(self.deadline, task).await.map_err(|_| late())?;
        let written = done.map_err(|error| ServiceError::Internal(error.to_string()))??;
        written.into_iter().next().ok_or_else(|| ServiceError::Internal("the store answered for no change".to_owned()))
    }
}

/// What reads the records of a collection from its store.
fn loader(collection: &Arc<Collection>, store: &Arc<dyn RecordStore>) -> Loader {
    let (collection, store) = (Arc::clone(collection), Arc::clone(store));
    Arc::new(move |keys| {
        let (collection, store) = (Arc::clone(&collection), Arc::clone(&store));
        Box::pin(async move { store.read(&collection, &keys).await.map_err(|error| Arc::new(error) as _) })
    })
}

/// What the store knows of a key after a change.
fn state_of(written: &Written) -> Lookup {
    match &written.record {
        Some(record) => Lookup::Found(record.clone()),
        None => Lookup::Deleted(written.version),
    }
}

fn record_of(written: Written) -> Result<Record, ServiceError> {
    written.record.ok_or_else(|| ServiceError::Internal("the store answered without the record".to_owned()))
}

/// A short pause of random length, longer with each attempt, so that writers of one key get out of each other's way.
async fn back_off(attempt: u32) {
    let ms_max = 2u64 << attempt.min(6);
    sleep(Duration::from_millis(rand::random_range(0..ms_max))).await;
}
