//! The outbox table: events wait there in 16 shards, and who relays a shard holds its lease.
//!
//! Ids are counted up before they are committed, so a reader never goes on from the last id that it saw: what
//! is in the table is unpublished, and what is published is deleted. Events of one key are written under the
//! lock of their record, so by their ids they have the order of their versions; one shard has one owner at a
//! time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use sea_query::{Alias, CaseStatement, Expr, ExprTrait, Func, OnConflict, Order, Query, SimpleExpr};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    StoreError,
    dialect::{Dialect, Sql, padded},
    fault::Fault,
    migrations::{LEASES, OUTBOX},
    pools::Pools,
    session::Session,
};
use crate::leases::{Leases, shard_of};
use model::event::{Backlog, Claimed, Envelope, Outbox, OutboxError};

/// The columns of the table, but for the one that counts.
pub const COLUMNS: [&str; 5] = ["event_id", "shard", "record_key", "committed_at", "envelope"];
/// The most ids in one statement.
const IDS_MAX: usize = 1024;

/// The outbox of a SQL store.
pub struct SqlOutbox {
    pools: Arc<Pools>,
    leases: Leases,
    /// Where the events are that each owner claimed last: their numbers. By number and id MySQL takes a fifth
    /// less time to delete than by id alone, which it finds the number with.
    places: Mutex<HashMap<String, HashMap<Uuid, i64>>>,
}

/// The statement that adds events, each with the name of its table.
pub fn insert(dialect: Dialect, events: &[(&str, Envelope)]) -> Result<Sql, StoreError> {
    let mut insert = Query::insert();
    insert.into_table(Alias::new(OUTBOX)).columns(COLUMNS.map(Alias::new));
    for (table, event) in events {
        let text =
            serde_json::to_string(event).map_err(|error| StoreError::Unsupported(error.to_string()))?;
        insert.values_panic([
            SimpleExpr::from(event.id.to_string()),
            SimpleExpr::from(shard_of(table, &event.key)),
            SimpleExpr::from(event.key.as_str()),
            // how long it waits is told by one clock, whoever asks
            dialect.now(),
            SimpleExpr::from(text),
        ]);
    }
    Ok(dialect.build(&insert))
}

impl SqlOutbox {
    /// The outbox in this database.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools, leases: Leases::default(), places: Mutex::default() }
    }

    async fn claimed(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, Fault> {
        let mut session = self.pools.read().await?;
        let pending = pending_shards(&mut session).await?;
        if pending.is_empty() {
            return Ok(Claimed::default());
        }
        let unsure = self.leases.unsure(owner, lease, &pending);
        if !unsure.is_empty() {
            drop(session);
            self.acquire(owner, lease, &unsure).await?;
            session = self.pools.read().await?;
        }
        let held = self.leases.held(owner, &pending, Instant::now());
        let blocked = held.len() < pending.len();
        if held.is_empty() {
            return Ok(Claimed { blocked, ..Claimed::default() });
        }
        // asked before the events are read: a lease that is renewed meanwhile only lasts longer
        let until = self.leases.end(owner, &held).map(Instant::into_std);
        let oldest = oldest(&mut session, &held, limit).await?;
        // what an owner has not confirmed it is given again, so only its last claim counts
        let places = oldest.iter().map(|(place, event)| (event.id, *place)).collect();
        self.places.lock().insert(owner.to_owned(), places);
        Ok(Claimed { events: oldest.into_iter().map(|(_, event)| event).collect(), blocked, until })
    }

    /// Takes the leases of these shards that are free, run out, or the owner's own.
    async fn acquire(&self, owner: &str, lease: Duration, shards: &[i64]) -> Result<(), Fault> {
        let mut session = self.pools.read().await?;
        let known = known_leases(&mut session, owner, shards).await?;
        drop(session);
        let is_taken = |shard: &i64| known.iter().any(|(known, taken)| known == shard && *taken);
        let free: Vec<i64> = shards.iter().copied().filter(|shard| !is_taken(shard)).collect();
        if free.is_empty() {
            return Ok(());
        }
        let is_new = |shard: &i64| known.iter().all(|(known, _)| known != shard);
        let new: Vec<i64> = free.iter().copied().filter(is_new).collect();
        let until = Instant::now() + lease;
        let mut session = self.pools.write().await?;
        session.begin().await?;
        let result = take(&mut session, owner, lease, &free, &new).await;
        let mine = match result {
            Ok(mine) => mine,
            Err(fault) => {
                session.rollback().await;
                return Err(fault);
            }
        };
        session.commit().await?;
        self.leases.note(owner, &free, mine, until);
        Ok(())
    }

    async fn confirmed(&self, owner: &str, ids: &[Uuid]) -> Result<(), Fault> {
        for part in ids.chunks(IDS_MAX) {
            let places: Option<Vec<i64>> = {
                let places = self.places.lock();
                let known = places.get(owner);
                part.iter().map(|id| known?.get(id).copied()).collect()
            };
            let mut delete = Query::delete();
            delete.from_table(Alias::new(OUTBOX));
            // the number alone is not enough: SQLite gives that of a deleted row to another
            delete.and_where(
                Expr::col(Alias::new("event_id")).is_in(padded(part.iter().map(Uuid::to_string).collect())),
            );
            if let Some(places) = places {
                delete.and_where(Expr::col(Alias::new("seq")).is_in(padded(places)));
            }
            let mut session = self.pools.write().await?;
            session.execute(self.pools.dialect().build(&delete)).await?;
        }
        Ok(())
    }

    async fn released(&self, owner: &str) -> Result<(), Fault> {
        self.leases.forget(owner);
        self.places.lock().remove(owner);
        // the rows stay: taking one that is there locks it and no gap beside it
        let mut free = Query::update();
        free.table(Alias::new(LEASES)).value(Alias::new("owner"), "").value(Alias::new("until_ms"), 0_i64);
        free.and_where(Expr::col(Alias::new("owner")).eq(owner));
        self.pools.write().await?.execute(self.pools.dialect().build(&free)).await.map(|_| ())
    }

    async fn counted(&self) -> Result<Backlog, Fault> {
        let mut oldest = Query::select();
        oldest.column(Alias::new("committed_at")).from(Alias::new(OUTBOX)).limit(1);
        oldest.order_by(Alias::new("seq"), Order::Asc);
        let mut select = Query::select();
        select.expr(Func::count(Expr::col(Alias::new("seq")))).from(Alias::new(OUTBOX));
        select.expr(Expr::from(oldest)).expr(self.pools.dialect().now_ms());
        let mut session = self.pools.read().await?;
        let rows = session.rows(self.pools.dialect().build(&select)).await?;
        let Some(row) = rows.first() else { return Ok(Backlog::default()) };
        let events = row.int(0)?.unwrap_or_default() as u64;
        let oldest_ms = match (row.time(1)?, row.int(2)?) {
            (Some(at), Some(now)) => now.saturating_sub(at.0).try_into().unwrap_or(0),
            _ => 0,
        };
        Ok(Backlog { events, oldest_ms })
    }
}

#[async_trait]
impl Outbox for SqlOutbox {
    /// A repeated claim of one owner gives the same events again until they are confirmed, and renews its
    /// leases. Owners must have different names in different processes.
    async fn claim(&self, owner: &str, lease: Duration, limit: usize) -> Result<Claimed, OutboxError> {
        self.claimed(owner, lease, limit).await.map_err(failed)
    }

    async fn confirm(&self, owner: &str, ids: &[Uuid]) -> Result<(), OutboxError> {
        self.confirmed(owner, ids).await.map_err(failed)
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

async fn pending_shards(session: &mut Session) -> Result<Vec<i64>, Fault> {
    let mut select = Query::select();
    select.distinct().column(Alias::new("shard")).from(Alias::new(OUTBOX));
    let rows = session.rows(session.dialect().build(&select)).await?;
    rows.iter().map(|row| Ok(row.int(0)?.unwrap_or_default())).collect()
}

/// The leases of these shards that there are, and whether another owner holds them.
async fn known_leases(session: &mut Session, owner: &str, shards: &[i64]) -> Result<Vec<(i64, bool)>, Fault> {
    let dialect = session.dialect();
    let column = |name: &'static str| Expr::col(Alias::new(name));
    let taken = column("owner").ne(owner).and(column("until_ms").gt(dialect.now_ms()));
    let mut select = Query::select();
    select.column(Alias::new("shard")).from(Alias::new(LEASES));
    select.expr(CaseStatement::new().case(taken, 1_i64).finally(0_i64));
    select.and_where(column("shard").is_in(shards.iter().copied()));
    let rows = session.rows(dialect.build(&select)).await?;
    rows.iter().map(|row| Ok((row.int(0)?.unwrap_or_default(), row.int(1)? == Some(1)))).collect()
}

/// Takes leases, in the order of their shards, and gives those that are the owner's now. There are no rows
/// yet of the new ones.
async fn take(
    session: &mut Session,
    owner: &str,
    lease: Duration,
    shards: &[i64],
    new: &[i64],
) -> Result<Vec<i64>, Fault> {
    let dialect = session.dialect();
    let until = dialect.now_ms().add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2));
    if !new.is_empty() {
        let mut vacant = Query::insert();
        vacant.into_table(Alias::new(LEASES)).columns(["shard", "owner", "until_ms"].map(Alias::new));
        for shard in new {
            vacant.values_panic([Expr::val(*shard), Expr::val(""), Expr::val(0_i64)]);
        }
        // a lease that came meanwhile stays as it is
        vacant.on_conflict(
            OnConflict::column(Alias::new("shard")).update_column(Alias::new("shard")).to_owned(),
        );
        session.execute(dialect.build(&vacant)).await?;
    }
    let mut update = Query::update();
    update.table(Alias::new(LEASES)).value(Alias::new("until_ms"), until).value(Alias::new("owner"), owner);
    update.and_where(Expr::col(Alias::new("shard")).is_in(shards.iter().copied()));
    let own = Expr::col(Alias::new("owner")).eq(owner);
    update.and_where(own.clone().or(Expr::col(Alias::new("until_ms")).lte(dialect.now_ms())));
    session.execute(dialect.build(&update)).await?;
    let mut select = Query::select();
    select.column(Alias::new("shard")).from(Alias::new(LEASES)).and_where(own);
    select.and_where(Expr::col(Alias::new("shard")).is_in(shards.iter().copied()));
    let rows = session.rows(dialect.build(&select)).await?;
    rows.iter().map(|row| Ok(row.int(0)?.unwrap_or_default())).collect()
}

/// The oldest events of these shards, each with its number.
async fn oldest(session: &mut Session, shards: &[i64], limit: usize) -> Result<Vec<(i64, Envelope)>, Fault> {
    let mut select = Query::select();
    select.columns(["seq", "envelope"].map(Alias::new)).from(Alias::new(OUTBOX));
    select.and_where(Expr::col(Alias::new("shard")).is_in(shards.iter().copied()));
    select.order_by(Alias::new("seq"), Order::Asc).limit(limit as u64);
    let rows = session.rows(session.dialect().build(&select)).await?;
    let parse = |text: String| {
        serde_json::from_str(&text)
            .map_err(|error| StoreError::Corrupt(format!("an event of the outbox: {error}")))
    };
    rows.iter()
        .map(|row| Ok((row.int(0)?.unwrap_or_default(), parse(row.text(1)?.unwrap_or_default())?)))
        .collect()
}
