//! Records in SQL: a MySQL or MariaDB server, or one SQLite file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use sea_query::Query as SqlQuery;
use tokio::time::Instant;

use super::{
    RecordStore, StoreError,
    check::check_query,
    clock::ServerClock,
    confined::{PoolFault, PoolReason},
    identity::Identity,
    limits::Limits,
};
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Collection, Idempotency, UnitOfWork, Written},
    clock::GuardedClock,
    durability::Setting,
    event::Outbox,
    key::Key,
    log::EventLog,
    query::{Page, Query},
    record::Lookup,
    seal::Sealer,
    value::Timestamp,
};

use commit::Unit;
use dialect::{Dialect, Sql};
use fault::Fault;
use group::Group;
use log::SqlLog;
use migrations::{AUDIT, IDEMPOTENCY, TOMBSTONES};
use outbox::SqlOutbox;
use pools::Pools;
use session::Session;
use stall::Stall;
use table::{KEYS_MAX, Table};

mod audit;
mod columns;
mod commit;
mod ddl;
mod declared;
mod dialect;
mod errors;
mod fault;
mod filter;
mod find;
mod folds;
mod group;
mod idempotency;
mod log;
#[cfg(feature = "mysql")]
mod losses;
mod meta;
mod migrations;
#[cfg(feature = "mysql")]
pub mod mysql;
mod outbox;
mod pools;
mod reading;
mod session;
mod settings;
mod stall;
mod table;

/// How long a tombstone is kept: longer than any tier's time to live.
const TOMBSTONE_DAYS: i64 = 7;
/// How long the answer to a request with an idempotency key is kept.
const ANSWER_HOURS: i64 = 24;
/// The most rows that one statement removes, so that no lock is held for long.
const PRUNE_BATCH: usize = 1000;
/// How often a read is tried when its connection is lost.
const READS_MAX: u32 = 3;

/// Records in a SQL database.
pub struct SqlStore {
    pools: Arc<Pools>,
    sealer: Arc<dyn Sealer>,
    outbox: Arc<SqlOutbox>,
    tables: RwLock<HashMap<String, Arc<Table>>>,
    /// The pools whose folded columns were filled in: once is enough, and it looks at all rows.
    filled: Mutex<HashSet<String>>,
    group: Arc<Group>,
    stall: Stall,
    /// Whether it stands in for a store of documents, where a unit is of one record.
    of_documents: bool,
    /// By what a file is pruned.
    file_clock: GuardedClock,
    /// The clock of the server, as last asked.
    clock: ServerClock,
}

impl SqlStore {
    /// A store in one SQLite file, which is made where it is not there. It is opened by the first call.
    ///
    /// # Errors
    /// `Unavailable` where the file's folder is not there, or the file cannot be made.
    pub fn sqlite(path: &Path, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(StoreError::Unavailable(format!("there is no folder for {}", path.display())));
        }
        // Made now: those who only read would not find it before the first write, and call the store lost.
        let made = std::fs::File::options().create(true).append(true).open(path);
        made.map_err(|error| {
            StoreError::Unavailable(format!("{} cannot be written: {error}", path.display()))
        })?;
        Ok(Self::new(Pools::sqlite(path), sealer))
    }

    /// The same as a stand-in for MongoDB: it refuses units of several records, too.
    #[must_use]
    pub fn of_documents(self) -> Self {
        Self { of_documents: true, ..self }
    }

    /// A store in a MySQL or MariaDB server, which need not be up yet: every call tries, and fails in bounded
    /// time.
    ///
    /// # Errors
    /// `Unsupported` where the URL is not one.
    #[cfg(feature = "mysql")]
    pub fn mysql(options: mysql::MysqlOptions, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        Ok(Self::new(Pools::Mysql(mysql::MysqlServer::new(&options)?), sealer))
    }

    fn new(pools: Pools, sealer: Arc<dyn Sealer>) -> Self {
        let pools = Arc::new(pools);
        let outbox = Arc::new(SqlOutbox::new(pools.clone()));
        let group = Arc::new(Group::new(pools.clone(), sealer.clone()));
        Self {
            pools,
            sealer,
            outbox,
            tables: RwLock::default(),
            filled: Mutex::default(),
            group,
            stall: Stall::default(),
            of_documents: false,
            file_clock: GuardedClock::default(),
            clock: ServerClock::default(),
        }
    }

    /// Removes rows that are older than so many hours, by the clock that stamps them: the server's. What a
    /// clock of this process that is ahead calls old stays.
    async fn prune_table(&self, table: &str, time: &str, hours: i64) -> Result<u64, StoreError> {
        let dialect = self.pools.dialect();
        let sql = match dialect {
            Dialect::Sqlite => {
                let before = Timestamp(self.file_clock.now().0 - hours * 3_600_000);
                let text = format!(
                    "DELETE FROM {table} WHERE rowid IN \
                     (SELECT rowid FROM {table} WHERE {time} < ? ORDER BY {time} LIMIT {PRUNE_BATCH})"
                );
                Sql::new(text, vec![dialect.time(before)])
            }
            Dialect::Mysql => Sql::text(format!(
                "DELETE FROM {table} WHERE {time} < UTC_TIMESTAMP(3) - INTERVAL {hours} HOUR \
                 ORDER BY {time} LIMIT {PRUNE_BATCH}"
            )),
        };
        Ok(self.pools.write().await?.execute(sql).await?)
    }

    /// Notes the newest stamp of the file before this process adds any.
    async fn begin_file_clock(&self) -> Result<(), StoreError> {
        if self.pools.dialect() != Dialect::Sqlite || self.file_clock.has_begun() {
            return Ok(());
        }
        let newest = format!(
            "SELECT MAX(at) FROM (SELECT MAX(deleted_at) AS at FROM {TOMBSTONES} UNION ALL \
             SELECT MAX(at) FROM {IDEMPOTENCY} UNION ALL SELECT MAX(at) FROM {AUDIT})"
        );
        let rows = self.pools.read().await?.rows(Sql::text(newest)).await?;
        let newest = rows.first().map(|row| row.time(0)).transpose()?.flatten();
        self.file_clock.begin(newest);
        Ok(())
    }

    /// The table of a collection: made by `prepare`, or now where the collection changed since.
    async fn table(&self, collection: &Collection) -> Result<Arc<Table>, StoreError> {
        let known = self.tables.read().get(&collection.pool).cloned();
        if let Some(table) = known.filter(|table| Arc::ptr_eq(&table.collection.schema, &collection.schema)) {
            return Ok(table);
        }
        let mut session = self.pools.prepare().await?;
        self.inspected(&mut session, collection).await
    }

    /// Whether the table of a collection is as declared, and encrypted under the keys of this process.
    async fn fit(
        &self,
        session: &mut Session,
        server: ddl::Server,
        collection: &Arc<Collection>,
    ) -> Result<(), StoreError> {
        self.inspected(session, collection).await?;
        meta::check_keys(session, server, collection, self.sealer.as_ref()).await?;
        if !self.filled.lock().contains(&collection.pool) {
            folds::fill(session, std::slice::from_ref(collection)).await?;
            self.filled.lock().insert(collection.pool.clone());
        }
        Ok(())
    }

    /// The table of a collection as it is now.
    async fn inspected(
        &self,
        session: &mut Session,
        collection: &Collection,
    ) -> Result<Arc<Table>, StoreError> {
        let table = match collection.declared {
            false => Table::of_own(collection, self.pools.dialect()),
            true => {
                let server = pools::server_of(session).await?;
                declared::inspect(session, server, collection).await?
            }
        };
        session.rows(table.probe()).await?;
        let table = Arc::new(table);
        self.tables.write().insert(collection.pool.clone(), table.clone());
        Ok(table)
    }
}

#[async_trait]
impl RecordStore for SqlStore {
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
        let (mut faults, mut fit) = (BTreeMap::new(), Vec::with_capacity(collections.len()));
        for collection in collections {
            let form = |field: &str| migrations::form_of(&collection.schema.entity, field);
            let checked = if collection.declared { Ok(()) } else { declared::check_own(collection, form) };
            match checked {
                Ok(()) => fit.push(collection.clone()),
                Err(error) => _ = faults.insert(collection.pool.clone(), own_fault(collection, error)?),
            }
        }
        let mut session = self.pools.prepare().await?;
        let server = pools::server_of(&mut session).await?;
        // before the migrations: they tell a database that is new from one that was in use
        if let Err(fault) = meta::identity(&mut session, server).await {
            tracing::warn!(error = %StoreError::from(fault), "the database has no identity yet");
        }
        let migrated = migrations::migrate(&mut session, server, &fit).await;
        if migrated.is_err() {
            session.abandon();
        }
        let unmigrated = migrated?;
        if let Err(error) = self.begin_file_clock().await {
            tracing::debug!(%error, "the newest stamp of the file is looked for again before anything is pruned");
        }
        for collection in &fit {
            let fault = match unmigrated.get(&collection.name).filter(|_| !collection.declared) {
                Some(fault) => Some(fault.clone()),
                None => match self.fit(&mut session, server, collection).await {
                    Ok(()) => None,
                    Err(error) => Some(own_fault(collection, error)?),
                },
            };
            if let Some(fault) = fault {
                self.tables.write().remove(&collection.pool);
                faults.insert(collection.pool.clone(), fault);
            }
        }
        Ok(faults)
    }

    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        let table = self.table(collection).await?;
        let mut found: HashMap<Key, Lookup> = HashMap::with_capacity(keys.len());
        for part in keys.chunks(KEYS_MAX) {
            let mut tries = Tries::new();
            let states = loop {
                let mut session = self.pools.read_until(tries.deadline).await?;
                let states =
                    commit::states::read_states(&mut session, &table, part, self.sealer.as_ref()).await;
                if let Some(states) = tries.settled(states) {
                    break states?;
                }
            };
            found.extend(states.into_iter().map(|(key, state)| (key, state.into())));
        }
        let known = |key: &Key| found.get(key).cloned().unwrap_or(Lookup::Missing);
        Ok(keys.iter().map(known).collect())
    }

    async fn limits(&self, collection: &Collection) -> Result<Arc<Limits>, StoreError> {
        Ok(self.table(collection).await?.limits.clone())
    }

    async fn find(&self, collection: &Collection, query: &Query) -> Result<Page, StoreError> {
        check_query(&collection.schema, query)?;
        let table = self.table(collection).await?;
        let mut tries = Tries::new();
        loop {
            let mut session = self.pools.read_until(tries.deadline).await?;
            let page = find::find(&mut session, &table, query, self.sealer.as_ref()).await;
            if let Some(page) = tries.settled(page) {
                return page;
            }
        }
    }

    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        if work.changes.is_empty() {
            return Ok(Vec::new());
        }
        if self.of_documents && !super::is_of_one_record(&work) {
            return Err(StoreError::Unsupported(super::ONE_RECORD.to_owned()));
        }
        let mut tables: Vec<Arc<Table>> = Vec::with_capacity(work.changes.len());
        for change in &work.changes {
            // one for all changes of a pool: a unit tells tables apart by where they are
            let known = tables.iter().find(|table| table.collection.pool == change.collection.pool).cloned();
            tables.push(match known {
                Some(table) => table,
                None => self.table(&change.collection).await?,
            });
        }
        let writing = self.stall.begin()?;
        let written = match (work.changes.first(), tables.first()) {
            (Some(change), Some(table)) if Group::takes(&work) => {
                self.group.commit(change.clone(), table.clone(), work.actor, work.deadline).await
            }
            _ => Unit::of(&work, tables, self.sealer.as_ref()).commit(&self.pools).await,
        };
        writing.ended(&written);
        written
    }

    async fn recall(
        &self,
        collection: &Collection,
        key: &Idempotency,
    ) -> Result<Option<Vec<Written>>, StoreError> {
        let mut session = self.pools.read().await?;
        let all = std::iter::repeat(collection);
        Ok(idempotency::recall(&mut session, key, all, self.sealer.as_ref()).await?)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<AuditFound, StoreError> {
        let mut tries = Tries::new();
        loop {
            let mut session = self.pools.read_until(tries.deadline).await?;
            if let Some(entries) = tries.settled(audit::find(&mut session, query).await) {
                return entries;
            }
        }
    }

    async fn identity(&self) -> Result<Identity, StoreError> {
        let mut session = self.pools.prepare().await?;
        let server = pools::server_of(&mut session).await?;
        Ok(meta::identity(&mut session, server).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut tries = Tries::new();
        loop {
            let mut session = self.pools.read_until(tries.deadline).await?;
            if let Some(answer) = tries.settled(session.rows(Sql::text("SELECT 1")).await) {
                answer?;
                return Ok(self.stall.look(&self.pools).await?);
            }
        }
    }

    async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        Ok(settings::read(&self.pools).await?)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        if let Some(now) = self.clock.recent() {
            return Ok(now);
        }
        let mut select = SqlQuery::select();
        select.expr(self.pools.dialect().now_ms());
        let mut session = self.pools.read().await?;
        let asked_at = std::time::Instant::now();
        let rows = session.rows(self.pools.dialect().build(&select)).await?;
        let now = rows.first().map(|row| row.int(0)).transpose()?.flatten();
        let now = Timestamp(now.ok_or_else(|| StoreError::Corrupt("the server tells no time".to_owned()))?);
        self.clock.note(asked_at, now);
        Ok(now)
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        self.begin_file_clock().await?;
        let tombstones = self.prune_table(TOMBSTONES, "deleted_at", TOMBSTONE_DAYS * 24).await?;
        Ok(tombstones + self.prune_table(IDEMPOTENCY, "at", ANSWER_HOURS).await?)
    }

    async fn prune_audit(&self, retention: Duration) -> Result<u64, StoreError> {
        self.begin_file_clock().await?;
        let hours = i64::try_from(retention.as_secs().div_ceil(3_600)).unwrap_or(i64::MAX);
        // the age of the earth in hours, at most
        self.prune_table(AUDIT, "at", hours.min(1_000_000)).await
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.outbox.clone()
    }

    fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::new(SqlLog::new(self.pools.clone()))
    }
}

/// What an error says of one collection alone.
///
/// # Errors
/// The same error where it has nothing to do with the collection.
fn own_fault(collection: &Collection, error: StoreError) -> Result<PoolFault, StoreError> {
    match error {
        StoreError::Unprepared(fault) => Ok(fault.of(collection)),
        StoreError::Unsupported(why) | StoreError::Corrupt(why) => {
            Ok(PoolFault::new(PoolReason::PoolUnavailable, format!("{}: {why}", collection.name)))
        }
        other => Err(other),
    }
}

/// The tries of a read: again where the connection was lost, which is what the first calls after a restart of
/// the server see.
struct Tries {
    deadline: Instant,
    left: u32,
}

impl Tries {
    fn new() -> Self {
        Self { deadline: pools::call_deadline(), left: READS_MAX }
    }

    /// The result; none where the read is to be tried again.
    fn settled<T>(&mut self, result: Result<T, Fault>) -> Option<Result<T, StoreError>> {
        self.left = self.left.saturating_sub(1);
        match result {
            Err(Fault::Lost(_) | Fault::Conflict(_)) if self.left > 0 => None,
            // a sort has no room for its temporary file: nobody reads a record here that could not be stored
            Err(Fault::Store(StoreError::Full(why))) => Some(Err(StoreError::Unavailable(why))),
            result => Some(result.map_err(StoreError::from)),
        }
    }
}

#[cfg(test)]
pub mod tests {
    //! What the conformance suite needs to know of tables.

    use super::*;

    /// The statements that make a declared table by hand, with a collation that compares by bytes.
    pub fn create_statements(collection: &Collection, mariadb: bool) -> Vec<String> {
        let server = if mariadb { ddl::Server::Mariadb } else { ddl::Server::Mysql };
        let mut table = ddl::declared_table(collection);
        table.indexes.clear();
        table.create(&collection.name, server)
    }
}
