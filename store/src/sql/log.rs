//! Logs in a table: the number of an entry is half of the primary key, so of two that append at once one has
//! to wait for the other's commit and then takes later numbers. That keeps numbers without gaps, and shows
//! no entry before all with lower numbers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sea_query::Value as SqlValue;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    StoreError,
    dialect::{Dialect, Sql, parts},
    fault::Fault,
    meta,
    migrations::{CLAIMS, LOG},
    pools::{self, Pools},
    session::{Row, Session, not},
};
use model::{
    log::{Claim, Entry, EventLog, Group, LogError, Newest, Numbered, Page},
    value::Timestamp,
};

/// Rows that one statement inserts.
const INSERT_ROWS: usize = 256;
/// What a row takes beside its text, in bytes.
const ROW_BYTES: usize = 200;
/// Rows that are looked at, and removed, at once.
const PRUNE_ROWS: usize = 1_000;
/// The longest wait before an append that another was faster than is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// The member of a group that was not heard of for so long is forgotten.
const MEMBER_MS: i64 = 3_600_000;

/// The logs of a SQL store.
pub struct SqlLog {
    pools: Arc<Pools>,
}

impl SqlLog {
    /// The logs in this database.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }

    async fn appended(&self, log: &str, entries: &[Entry]) -> Result<(), Fault> {
        let deadline = pools::call_deadline();
        let bytes_max = self.pools.write_until(deadline).await?.bytes_max();
        for part in parts(entries, INSERT_ROWS, bytes_max, |entry| entry.text.len() + ROW_BYTES) {
            let mut rest: Vec<&Entry> = part.iter().collect();
            while !rest.is_empty() {
                let mut session = self.pools.write_until(deadline).await?;
                match insert(&mut session, log, &rest).await {
                    Ok(()) => break,
                    Err(Fault::Taken(_) | Fault::Conflict(_)) => {}
                    Err(fault) => return Err(fault),
                }
                // another was faster, or these are there already
                let known = known(&mut session, log, &rest).await?;
                rest.retain(|entry| !known.contains(&entry.id));
                drop(session);
                if Instant::now() > deadline {
                    return Err(StoreError::Unavailable("others append all the time".to_owned()).into());
                }
                sleep(RETRY.mul_f64(rand::random())).await;
            }
        }
        Ok(())
    }

    async fn paged(&self, log: &str, from: u64, parts: Option<&[i64]>, limit: usize) -> Result<Page, Fault> {
        let mut values = vec![text(log), int(from.cast_signed())];
        let of_parts = match parts {
            Some(parts) => {
                values.extend(parts.iter().copied().map(int));
                format!("AND part IN ({}) ", places(parts.len()))
            }
            None => String::new(),
        };
        let select = format!(
            "SELECT number, part, event_id, entry FROM {LOG} WHERE log = ? AND number >= ? {of_parts}\
             ORDER BY number LIMIT {limit}"
        );
        let (mut page, mut bytes) = (Page::default(), 0);
        let mut session = self.pools.read().await?;
        let take = |row: Row| {
            let entry =
                Entry { part: number(&row, 1)?, id: id(&row, 2)?, text: row.text(3)?.unwrap_or_default() };
            let number = number(&row, 0)?.cast_unsigned();
            Ok(page.push(Numbered { number, entry }, limit, &mut bytes))
        };
        session.each_row(Sql::new(select, values), take).await?;
        Ok(page)
    }

    async fn pruned(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, Fault> {
        let oldest = format!(
            "SELECT COALESCE(MAX(number), 0), COUNT(number) FROM (SELECT number, at_ms FROM {LOG} WHERE log = ? \
             AND number < (SELECT MAX(number) FROM {LOG} WHERE log = ?) ORDER BY number LIMIT {PRUNE_ROWS}) oldest \
             WHERE number <= ? OR at_ms < ?"
        );
        let values = vec![text(log), text(log), int(up_to.cast_signed()), int(before.0)];
        let mut session = self.pools.write().await?;
        let rows = session.rows(Sql::new(oldest, values)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let (last, count) = (number(row, 0)?, number(row, 1)?);
        if count > 0 {
            let delete = format!("DELETE FROM {LOG} WHERE log = ? AND number <= ?");
            session.execute(Sql::new(delete, vec![text(log), int(last)])).await?;
        }
        let gone = format!(
            "DELETE FROM {CLAIMS} WHERE log = ? AND part < 0 AND until_ms < {} - {MEMBER_MS}",
            self.now()
        );
        session.execute(Sql::new(gone, vec![text(log)])).await?;
        Ok(count.unsigned_abs() as usize == PRUNE_ROWS)
    }

    async fn claimed(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, Fault> {
        let (now, lease) = (self.now(), lease.as_millis());
        let take = format!(
            "UPDATE {CLAIMS} SET owner = ?, until_ms = {now} + {lease} \
             WHERE log = ? AND consumers = ? AND part = ? AND (owner = ? OR until_ms <= {now})"
        );
        let place = || [text(group.log), text(group.name), int(part)];
        let values = [text(owner)].into_iter().chain(place()).chain([text(owner)]).collect();
        let mut session = self.pools.write().await?;
        session.execute(Sql::new(take, values)).await?;
        let select =
            format!("SELECT owner, position FROM {CLAIMS} WHERE log = ? AND consumers = ? AND part = ?");
        if let Some(row) = session.rows(Sql::new(select, place().to_vec())).await?.first() {
            let mine = row.text(0)?.as_deref() == Some(owner);
            return Ok(if mine { Some(number(row, 1)?.cast_unsigned()) } else { None });
        }
        let insert = format!(
            "INSERT INTO {CLAIMS} (log, consumers, part, owner, until_ms, position) \
             VALUES (?, ?, ?, ?, {now} + {lease}, 0)"
        );
        let values = place().into_iter().chain([text(owner)]).collect();
        match session.execute(Sql::new(insert, values)).await {
            Ok(_) => Ok(Some(0)),
            // another was faster
            Err(Fault::Taken(_) | Fault::Conflict(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Notes positions, and until when the claims last: by an expression.
    async fn moved(
        &self,
        session: &mut Session,
        group: Group<'_>,
        owner: &str,
        until: &str,
        positions: &[(i64, u64)],
    ) -> Result<(), Fault> {
        if positions.is_empty() {
            return Ok(());
        }
        let cases = "WHEN ? THEN ? ".repeat(positions.len());
        let update = format!(
            "UPDATE {CLAIMS} SET until_ms = {until}, position = CASE part {cases}ELSE position END \
             WHERE log = ? AND consumers = ? AND owner = ? AND part IN ({})",
            places(positions.len())
        );
        let cases = positions.iter().flat_map(|(part, at)| [int(*part), int(at.cast_signed())]);
        let place = [text(group.log), text(group.name), text(owner)];
        let parts = positions.iter().map(|(part, _)| int(*part));
        let values = cases.chain(place).chain(parts).collect();
        session.execute(Sql::new(update, values)).await.map(|_| ())
    }

    async fn kept(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, Fault> {
        let mut session = self.pools.write().await?;
        let until = format!("{} + {}", self.now(), lease.as_millis());
        self.moved(&mut session, group, owner, &until, positions).await?;
        let select = format!("SELECT part FROM {CLAIMS} WHERE log = ? AND consumers = ? AND owner = ?");
        let values = vec![text(group.log), text(group.name), text(owner)];
        session.rows(Sql::new(select, values)).await?.iter().map(|row| number(row, 0)).collect()
    }

    async fn released(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), Fault> {
        let mut session = self.pools.write().await?;
        // the rows stay, with their positions; a member has none
        self.moved(&mut session, group, owner, "0", positions).await?;
        let delete = format!(
            "DELETE FROM {CLAIMS} WHERE log = ? AND consumers = ? AND owner = ? AND part < 0 AND until_ms = 0"
        );
        let values = vec![text(group.log), text(group.name), text(owner)];
        session.execute(Sql::new(delete, values)).await.map(|_| ())
    }

    async fn all_claims(&self, group: Group<'_>) -> Result<Vec<Claim>, Fault> {
        let select = format!(
            "SELECT part, owner, CASE WHEN until_ms > {} THEN 1 ELSE 0 END, position FROM {CLAIMS} \
             WHERE log = ? AND consumers = ?",
            self.now()
        );
        let values = vec![text(group.log), text(group.name)];
        let rows = self.pools.read().await?.rows(Sql::new(select, values)).await?;
        let claim = |row: &Row| {
            let (owner, position) = (row.text(1)?.unwrap_or_default(), number(row, 3)?.cast_unsigned());
            Ok(Claim { part: number(row, 0)?, owner, lasts: row.int(2)? == Some(1), position })
        };
        rows.iter().map(claim).collect()
    }

    async fn counted(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, Fault> {
        let Some(least) = after.iter().map(|(_, at)| at.cast_signed()).min() else { return Ok(0) };
        let each = vec!["(part = ? AND number > ?)"; after.len()].join(" OR ");
        let select = format!("SELECT COUNT(*) FROM {LOG} WHERE log = ? AND number > ? AND ({each})");
        let each = after.iter().flat_map(|(part, at)| [int(*part), int(at.cast_signed())]);
        let values = [text(log), int(least)].into_iter().chain(each).collect();
        let rows = self.pools.read().await?.rows(Sql::new(select, values)).await?;
        rows.first().map_or(Ok(0), |row| number(row, 0)).map(i64::unsigned_abs)
    }

    async fn newest_entry(&self, log: &str) -> Result<Option<Newest>, Fault> {
        let select =
            format!("SELECT number, event_id, at_ms FROM {LOG} WHERE log = ? ORDER BY number DESC LIMIT 1");
        let rows = self.pools.read().await?.rows(Sql::new(select, vec![text(log)])).await?;
        let newest = |row: &Row| {
            let (number, at) = (number(row, 0)?.cast_unsigned(), Timestamp(number(row, 2)?));
            Ok(Newest { number, id: id(row, 1)?, at })
        };
        rows.first().map(newest).transpose()
    }

    async fn oldest_number(&self, log: &str) -> Result<u64, Fault> {
        let select = format!("SELECT COALESCE(MIN(number), 0) FROM {LOG} WHERE log = ?");
        let rows = self.pools.read().await?.rows(Sql::new(select, vec![text(log)])).await?;
        rows.first().map_or(Ok(0), |row| number(row, 0)).map(i64::cast_unsigned)
    }

    /// The server's clock, as `Dialect::now_ms` has it, but as one text whatever the time.
    fn now(&self) -> &'static str {
        now(self.pools.dialect())
    }
}

#[async_trait]
impl EventLog for SqlLog {
    async fn identity(&self) -> Result<String, LogError> {
        let identity = async {
            let mut session = self.pools.prepare().await?;
            let server = pools::server_of(&mut session).await?;
            meta::identity(&mut session, server).await
        };
        Ok(identity.await.map_err(failed)?.id)
    }

    async fn append(&self, log: &str, entries: &[Entry]) -> Result<(), LogError> {
        self.appended(log, entries).await.map_err(failed)
    }

    async fn page(
        &self,
        log: &str,
        from: u64,
        parts: Option<&[i64]>,
        limit: usize,
    ) -> Result<Page, LogError> {
        self.paged(log, from, parts, limit).await.map_err(failed)
    }

    async fn newest(&self, log: &str) -> Result<Option<Newest>, LogError> {
        self.newest_entry(log).await.map_err(failed)
    }

    async fn oldest(&self, log: &str) -> Result<u64, LogError> {
        self.oldest_number(log).await.map_err(failed)
    }

    async fn count(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, LogError> {
        self.counted(log, after).await.map_err(failed)
    }

    async fn prune(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, LogError> {
        self.pruned(log, up_to, before).await.map_err(failed)
    }

    async fn claims(&self, group: Group<'_>) -> Result<Vec<Claim>, LogError> {
        self.all_claims(group).await.map_err(failed)
    }

    async fn claim(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, LogError> {
        self.claimed(group, part, owner, lease).await.map_err(failed)
    }

    async fn keep(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, LogError> {
        self.kept(group, owner, lease, positions).await.map_err(failed)
    }

    async fn release(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), LogError> {
        self.released(group, owner, positions).await.map_err(failed)
    }
}

/// Inserts entries after the newest.
async fn insert(session: &mut Session, log: &str, entries: &[&Entry]) -> Result<(), Fault> {
    let newest = format!("SELECT COALESCE(MAX(number), 0) FROM {LOG} WHERE log = ?");
    let rows = session.rows(Sql::new(newest, vec![text(log)])).await?;
    let newest = rows.first().map_or(Ok(0), |row| number(row, 0))?;
    let now = now(session.dialect());
    let row = format!("(?, ?, ?, ?, {now}, ?)");
    let insert = format!(
        "INSERT INTO {LOG} (log, number, part, event_id, at_ms, entry) VALUES {}",
        vec![row; entries.len()].join(", ")
    );
    let values = (newest + 1..).zip(entries).flat_map(|(number, Entry { id, part, text: said })| {
        [text(log), int(number), int(*part), text(&id.to_string()), text(said)]
    });
    session.execute(Sql::new(insert, values.collect())).await.map(|_| ())
}

/// Which of these entries are there.
async fn known(session: &mut Session, log: &str, entries: &[&Entry]) -> Result<Vec<Uuid>, Fault> {
    let select =
        format!("SELECT event_id FROM {LOG} WHERE log = ? AND event_id IN ({})", places(entries.len()));
    let ids = entries.iter().map(|entry| text(&entry.id.to_string()));
    let values = std::iter::once(text(log)).chain(ids).collect();
    session.rows(Sql::new(select, values)).await?.iter().map(|row| id(row, 0)).collect()
}

fn now(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        Dialect::Mysql => "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
    }
}

fn text(value: &str) -> SqlValue {
    SqlValue::String(Some(value.to_owned()))
}

fn int(value: i64) -> SqlValue {
    SqlValue::BigInt(Some(value))
}

/// So many places of values.
fn places(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn number(row: &Row, at: usize) -> Result<i64, Fault> {
    Ok(row.int(at)?.unwrap_or_default())
}

fn id(row: &Row, at: usize) -> Result<Uuid, Fault> {
    let id = row.text(at)?.unwrap_or_default();
    id.parse().map_err(|_| not("an id of an event"))
}

fn failed(fault: impl Into<StoreError>) -> LogError {
    crate::of_log(fault.into())
}
