//! The log of the embedded bus as a table: append, read a page, remove what is old.

use std::{collections::HashMap, path::Path, time::Duration};

use sqlx::{
    Connection, QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{BusError, Cursor, mark_of};
use model::{
    durability::{self, Setting},
    event::Envelope,
    value::Timestamp,
};

/// Rows that one statement inserts.
const INSERT_ROWS: usize = 200;
/// Rows that one transaction removes, so that writers wait only shortly.
const REMOVE_ROWS: i64 = 2_000;
const READERS: u32 = 4;

/// The table of events.
pub struct Log {
    /// The one connection that writes; none after a failure, until it is made again.
    writer: Mutex<Option<SqliteConnection>>,
    options: SqliteConnectOptions,
    readers: SqlitePool,
    feed: u32,
}

/// Which events there are at the start.
pub struct Bounds {
    /// The number of the newest event; 0 before the first.
    pub head: u64,
    /// Events up to this number were removed.
    pub floor: u64,
    /// When the newest event that is there was published.
    pub newest: Option<Timestamp>,
}

/// An event with its place in the log.
pub struct Appended {
    /// Its number.
    pub number: u64,
    /// The event, with its cursor.
    pub envelope: Envelope,
}

impl Log {
    /// Opens or makes the file.
    pub async fn open(file: &Path) -> Result<(Self, Bounds), BusError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // a publish is acknowledged once it survives a crash of the machine
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let mut writer = SqliteConnection::connect_with(&options).await.map_err(unavailable)?;
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS meta (feed INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS feed (
                 cursor INTEGER PRIMARY KEY AUTOINCREMENT,
                 id BLOB NOT NULL UNIQUE,
                 envelope TEXT NOT NULL,
                 at INTEGER NOT NULL
             );",
        )
        .execute(&mut writer)
        .await
        .map_err(unavailable)?;
        sqlx::query("INSERT INTO meta SELECT ? WHERE NOT EXISTS (SELECT 1 FROM meta)")
            .bind(i64::from(rand::random::<u32>()))
            .execute(&mut writer)
            .await
            .map_err(unavailable)?;
        let (feed, last, first, newest): (u32, i64, Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT feed FROM meta), COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'feed'), 0), \
             (SELECT MIN(cursor) FROM feed), (SELECT at FROM feed ORDER BY cursor DESC LIMIT 1)",
        )
        .fetch_one(&mut writer)
        .await
        .map_err(unavailable)?;
        let head = last.cast_unsigned();
        let floor = first.map_or(head, |first| first.cast_unsigned() - 1);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options.clone().read_only(true));
        let bounds = Bounds { head, floor, newest: newest.map(Timestamp) };
        Ok((Self { writer: Mutex::new(Some(writer)), options, readers, feed }, bounds))
    }

    /// Identifies this log among all.
    pub fn feed(&self) -> u32 {
        self.feed
    }

    /// Appends the events that are not there yet, all or none, durably. Answers them with their numbers, in
    /// order.
    pub async fn append(&self, mut events: Vec<Envelope>, at: Timestamp) -> Result<Vec<Appended>, BusError> {
        let mut rows = Vec::with_capacity(events.len());
        for event in &mut events {
            event.cursor = None;
            rows.push((
                event.id,
                serde_json::to_string(event).map_err(|error| BusError::Unavailable(error.to_string()))?,
            ));
        }
        let numbers = self.write(async |writer| insert(writer, &rows, at).await);
        let mut numbers = numbers.await?;
        let appended = events.into_iter().filter_map(|envelope| {
            let number = numbers.remove(&envelope.id)?;
            Some(self.appended(number, envelope))
        });
        let mut appended: Vec<_> = appended.collect();
        appended.sort_by_key(|event| event.number);
        Ok(appended)
    }

    /// Writes by the one connection. After a failure it is given up: what SQLite rolled back by itself and
    /// what not cannot be told from outside, and a commit within a transaction that is still open would be
    /// none.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, BusError> {
        let mut held = self.writer.lock().await;
        let mut writer = match held.take() {
            Some(writer) => writer,
            None => SqliteConnection::connect_with(&self.options).await.map_err(unavailable)?,
        };
        let done = work(&mut writer).await.map_err(unavailable)?;
        *held = Some(writer);
        Ok(done)
    }

    /// Up to `limit` events after a number, in order.
    pub async fn page(&self, after: u64, limit: u32) -> Result<Vec<Appended>, BusError> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT cursor, envelope FROM feed WHERE cursor > ? ORDER BY cursor LIMIT ?")
                .bind(after.cast_signed())
                .bind(limit)
                .fetch_all(&self.readers)
                .await
                .map_err(unavailable)?;
        rows.into_iter()
            .map(|(number, json)| {
                let envelope =
                    serde_json::from_str(&json).map_err(|error| BusError::Unavailable(error.to_string()))?;
                Ok(self.appended(number.cast_unsigned(), envelope))
            })
            .collect()
    }

    /// The mark of the event with a number; none where it is not there.
    pub async fn mark_at(&self, number: u64) -> Result<Option<u32>, BusError> {
        let found: Option<(Vec<u8>,)> = sqlx::query_as("SELECT id FROM feed WHERE cursor = ?")
            .bind(number.cast_signed())
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)?;
        Ok(found.and_then(|(id,)| Uuid::from_slice(&id).ok()).map(mark_of))
    }

    /// The number of the last event published before a time, 0 where there is none. Reads only those events.
    pub async fn last_before(&self, time: Timestamp) -> Result<u64, BusError> {
        let (number,): (i64,) = sqlx::query_as(
            "SELECT COALESCE((SELECT cursor - 1 FROM feed WHERE at >= ? ORDER BY cursor LIMIT 1), (SELECT MAX(cursor) FROM feed), 0)",
        )
        .bind(time.0)
        .fetch_one(&self.readers)
        .await
        .map_err(unavailable)?;
        Ok(number.cast_unsigned())
    }

    /// Removes some of the events up to a number, the oldest first; whether there may be more.
    pub async fn remove_some_up_to(&self, number: u64) -> Result<bool, BusError> {
        let delete = "DELETE FROM feed WHERE cursor IN (SELECT cursor FROM feed WHERE cursor <= ? ORDER BY cursor LIMIT ?)";
        let done = self.write(async |writer| {
            sqlx::query(delete).bind(number.cast_signed()).bind(REMOVE_ROWS).execute(writer).await
        });
        Ok(done.await?.rows_affected() == REMOVE_ROWS.cast_unsigned())
    }

    /// How the connection that writes commits.
    pub async fn settings(&self) -> Result<Vec<Setting>, BusError> {
        self.write(async |writer| committed_by(writer).await).await
    }

    /// Whether the file can be read.
    pub async fn ping(&self) -> Result<(), BusError> {
        sqlx::query("SELECT 1 FROM meta").execute(&self.readers).await.map_err(unavailable)?;
        Ok(())
    }

    fn appended(&self, number: u64, mut envelope: Envelope) -> Appended {
        envelope.cursor =
            Some(Cursor::Local { feed: self.feed, number, mark: Some(mark_of(envelope.id)) }.encode());
        Appended { number, envelope }
    }
}

/// Inserts in one transaction the events that are not there yet, and answers their numbers.
async fn insert(
    writer: &mut SqliteConnection,
    rows: &[(Uuid, String)],
    at: Timestamp,
) -> Result<HashMap<Uuid, u64>, sqlx::Error> {
    let mut numbers = HashMap::with_capacity(rows.len());
    let mut transaction = writer.begin().await?;
    for rows in rows.chunks(INSERT_ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO feed (id, envelope, at) ");
        insert.push_values(rows, |mut row, (id, json)| {
            row.push_bind(id.as_bytes().as_slice()).push_bind(json.as_str()).push_bind(at.0);
        });
        insert.push(" RETURNING cursor, id");
        for row in insert.build().fetch_all(&mut *transaction).await? {
            let id = Uuid::from_slice(row.get(1)).map_err(|error| sqlx::Error::Decode(error.into()))?;
            numbers.insert(id, row.get::<i64, _>(0).cast_unsigned());
        }
    }
    transaction.commit().await?;
    Ok(numbers)
}

fn unavailable(error: sqlx::Error) -> BusError {
    match is_full(&error) {
        true => BusError::Full("the disk of the feed is full".to_owned()),
        false => BusError::Unavailable(error.to_string()),
    }
}

/// How a connection to an SQLite file commits.
pub async fn committed_by(writer: &mut SqliteConnection) -> Result<Vec<Setting>, sqlx::Error> {
    let (synchronous,): (i64,) = sqlx::query_as("PRAGMA synchronous").fetch_one(&mut *writer).await?;
    let (journal,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(writer).await?;
    Ok(durability::sqlite(synchronous, &journal))
}

/// Whether SQLite says that there is no room.
pub fn is_full(error: &sqlx::Error) -> bool {
    const FULL: &str = "13";
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == FULL)
}
