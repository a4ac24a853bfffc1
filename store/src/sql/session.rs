//! One connection in use: statements and transactions with a deadline. What is left half done closes the
//! connection.

use std::{future::Future, time::Duration};

use futures::{TryStreamExt, stream::BoxStream};
use rust_decimal::Decimal;
use sqlx::{
    AssertSqlSafe, Row as _, Sqlite, TypeInfo as _, ValueRef as _, pool::PoolConnection, sqlite::SqliteRow,
};
#[cfg(feature = "mysql")]
use sqlx::{MySql, mysql::MySqlRow};
#[cfg(feature = "mysql")]
use time::PrimitiveDateTime;
use tokio::time::{Instant, timeout_at};

#[cfg(feature = "mysql")]
use super::losses::Losses;
use super::{
    StoreError,
    dialect::{Dialect, Sql},
    fault::Fault,
};
use crate::odd::Odd;
use model::value::Timestamp;

/// A connection of one call. Dropped in the middle of something (an error, a deadline, a caller that went
/// away), it is closed rather than given back, and the server rolls back.
pub struct Session {
    connection: Option<Connection>,
    deadline: Instant,
    unfinished: bool,
    /// The most bytes that the database takes at once.
    packet_max: usize,
}

/// A connection to either database.
pub enum Connection {
    /// To a file.
    Sqlite(PoolConnection<Sqlite>),
    /// To a server.
    #[cfg(feature = "mysql")]
    Mysql(PoolConnection<MySql>, Losses),
}

/// A row of either database. Cells are read by their place, as the type that the column is known to have.
pub enum Row {
    /// SQLite.
    Sqlite(SqliteRow),
    /// MySQL.
    #[cfg(feature = "mysql")]
    Mysql(MySqlRow),
}

/// What a row holds in one place: in SQLite whatever was stored there, in MySQL the text that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes that are no text: what they are called, and how many.
    Bytes(&'static str, u64),
}

impl Session {
    /// A session that must be done by the deadline.
    pub fn new(connection: Connection, deadline: Instant, packet_max: usize) -> Self {
        Self { connection: Some(connection), deadline, unfinished: false, packet_max }
    }

    /// The most bytes of values that one statement should have: half of what the database takes at once.
    pub fn bytes_max(&self) -> usize {
        self.packet_max / 2
    }

    /// The SQL that is spoken.
    pub fn dialect(&self) -> Dialect {
        match self.connection {
            #[cfg(feature = "mysql")]
            Some(Connection::Mysql(..)) => Dialect::Mysql,
            Some(Connection::Sqlite(_)) | None => Dialect::Sqlite,
        }
    }

    /// Runs a statement and gives the number of rows that it touched.
    pub async fn execute(&mut self, sql: Sql) -> Result<u64, Fault> {
        // a server closes the connection of one that sends more, and says nothing that could be told
        if sql.bytes() > self.packet_max {
            let max = self.packet_max;
            let why = format!(
                "the change is more than the database takes at once: {max} bytes (max_allowed_packet)"
            );
            return Err(StoreError::Unsupported(why).into());
        }
        self.run(async |connection| match connection {
            Connection::Sqlite(connection) => sqlx::query_with(AssertSqlSafe(sql.text), sql.values)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
            #[cfg(feature = "mysql")]
            Connection::Mysql(connection, _) => sqlx::query_with(AssertSqlSafe(sql.text), sql.values)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
        })
        .await
    }

    /// Runs a statement and gives its rows.
    pub async fn rows(&mut self, sql: Sql) -> Result<Vec<Row>, Fault> {
        self.run(async |connection| match connection {
            Connection::Sqlite(connection) => sqlx::query_with(AssertSqlSafe(sql.text), sql.values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            #[cfg(feature = "mysql")]
            Connection::Mysql(connection, _) => sqlx::query_with(AssertSqlSafe(sql.text), sql.values)
                .fetch_all(&mut **connection)
                .await
                .map(|rows| rows.into_iter().map(Row::Mysql).collect()),
        })
        .await
    }

    /// Runs a statement and hands its rows over one by one, for as long as `take` says that it goes on: no
    /// more of them are in memory. A server that still has rows to send then is left with its connection,
    /// which costs less than to read them all.
    pub async fn each_row(
        &mut self,
        sql: Sql,
        mut take: impl FnMut(Row) -> Result<bool, Fault> + Send,
    ) -> Result<(), Fault> {
        let (outcome, is_rest) = self
            .run(async |connection| match connection {
                Connection::Sqlite(connection) => {
                    let rows = sqlx::query_with(AssertSqlSafe(sql.text), sql.values).fetch(&mut **connection);
                    // what a file still has costs nothing
                    hand_over(rows, Row::Sqlite, &mut take).await.map(|(outcome, _)| (outcome, false))
                }
                #[cfg(feature = "mysql")]
                Connection::Mysql(connection, _) => {
                    let rows = sqlx::query_with(AssertSqlSafe(sql.text), sql.values).fetch(&mut **connection);
                    hand_over(rows, Row::Mysql, &mut take).await
                }
            })
            .await?;
        self.unfinished |= is_rest;
        outcome
    }

    /// Runs a text that is not to be prepared: `BEGIN`, `COMMIT`, definitions, settings.
    pub async fn plain(&mut self, text: &str) -> Result<(), Fault> {
        self.run(async |connection| match connection {
            Connection::Sqlite(connection) => {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **connection).await.map(|_| ())
            }
            #[cfg(feature = "mysql")]
            Connection::Mysql(connection, _) => {
                sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **connection).await.map(|_| ())
            }
        })
        .await
    }

    /// Begins a transaction that will write.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        match self.dialect() {
            Dialect::Sqlite => self.plain("BEGIN IMMEDIATE").await?,
            Dialect::Mysql => self.plain("START TRANSACTION").await?,
        }
        self.unfinished = true;
        Ok(())
    }

    /// Commits. When it returns, the changes are durable.
    ///
    /// # Errors
    /// `Unknown` where no answer came; `Unavailable` where the database says that it did not commit.
    pub async fn commit(&mut self) -> Result<(), StoreError> {
        match self.plain("COMMIT").await {
            Ok(()) => {
                self.unfinished = false;
                Ok(())
            }
            Err(Fault::Lost(why)) => Err(StoreError::Unknown(why)),
            Err(other) => Err(other.into()),
        }
    }

    /// Gives up the transaction, if there is one, so that the connection can serve again.
    pub async fn rollback(&mut self) {
        if self.unfinished && self.plain("ROLLBACK").await.is_ok() {
            self.unfinished = false;
        }
    }

    /// Closes the connection when the session ends, and with it whatever it holds: a transaction, a named
    /// lock.
    pub fn abandon(&mut self) {
        self.unfinished = true;
    }

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Fault> {
        let connection =
            self.connection.as_mut().ok_or_else(|| Fault::Lost("the connection is closed".to_owned()))?;
        let in_transaction = std::mem::replace(&mut self.unfinished, true);
        let result = within(self.deadline, statement(connection)).await;
        match (&result, connection) {
            #[cfg(feature = "mysql")]
            (Err(Fault::Lost(_)), Connection::Mysql(_, losses)) => losses.note(),
            (Err(Fault::Lost(_)), Connection::Sqlite(_)) => (),
            _ => self.unfinished = in_transaction,
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.unfinished {
            match self.connection.take() {
                // without the goodbye, for which a server that hangs would have to be waited for
                #[cfg(feature = "mysql")]
                Some(Connection::Mysql(connection, _)) => drop(connection.detach()),
                Some(Connection::Sqlite(connection)) => drop(connection.detach()),
                None => (),
            }
        }
    }
}

/// Hands rows over until there are no more or `take` is done. Says what came of it, and whether rows are
/// left.
async fn hand_over<R>(
    mut rows: BoxStream<'_, Result<R, sqlx::Error>>,
    row: fn(R) -> Row,
    take: &mut (impl FnMut(Row) -> Result<bool, Fault> + Send),
) -> Result<(Result<(), Fault>, bool), sqlx::Error> {
    while let Some(next) = rows.try_next().await? {
        match take(row(next)) {
            Ok(true) => (),
            // mostly that was the one beyond the limit, and the last
            done => return Ok((done.map(drop), rows.try_next().await?.is_some())),
        }
    }
    Ok((Ok(()), false))
}

/// Waits for a result until a deadline.
pub async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Fault> {
    match timeout_at(deadline, work).await {
        Ok(result) => result.map_err(Fault::from),
        Err(_) => Err(Fault::Lost("the database did not answer in time".to_owned())),
    }
}

/// The deadline of a call that starts now.
pub fn deadline_in(time: Duration) -> Instant {
    Instant::now() + time
}

macro_rules! cell {
    ($row:expr, $at:expr, $type:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get_unchecked::<Option<$type>, _>($at),
            #[cfg(feature = "mysql")]
            Row::Mysql(row) => row.try_get_unchecked::<Option<$type>, _>($at),
        }
    };
}

impl Row {
    /// Text.
    pub fn text(&self, at: usize) -> Result<Option<String>, Fault> {
        Ok(cell!(self, at, String)?)
    }

    /// A signed whole number of any width.
    pub fn int(&self, at: usize) -> Result<Option<i64>, Fault> {
        Ok(cell!(self, at, i64)?)
    }

    /// What a place holds, whatever it is.
    pub fn cell(&self, at: usize) -> Result<Cell, Fault> {
        let text = |text: Result<Option<String>, sqlx::Error>| match text {
            Ok(text) => text.map_or(Cell::Null, Cell::Text),
            Err(_) => Cell::Bytes("text that is not UTF-8", self.length(at)),
        };
        let row = match self {
            Self::Sqlite(row) => row,
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => return Ok(text(cell!(self, at, String))),
        };
        let raw = row.try_get_raw(at)?;
        if raw.is_null() {
            return Ok(Cell::Null);
        }
        Ok(match raw.type_info().name() {
            "INTEGER" => Cell::Int(row.try_get_unchecked(at)?),
            "REAL" => Cell::Real(row.try_get_unchecked(at)?),
            "TEXT" => text(cell!(self, at, String)),
            _ => Cell::Bytes("BLOB", self.length(at)),
        })
    }

    /// How many bytes a place holds; 0 where that cannot be told.
    pub fn length(&self, at: usize) -> u64 {
        cell!(self, at, Vec<u8>).ok().flatten().map_or(0, |bytes| bytes.len() as u64)
    }

    /// An exact number.
    pub fn decimal(&self, at: usize) -> Result<Option<Decimal>, Fault> {
        match self {
            #[cfg(feature = "mysql")]
            Self::Mysql(row) => Ok(row.try_get_unchecked(at)?),
            Self::Sqlite(_) => {
                self.text(at)?.map(|text| text.parse().map_err(|_| not("a number"))).transpose()
            }
        }
    }

    /// A time.
    pub fn time(&self, at: usize) -> Result<Option<Timestamp>, Fault> {
        match self {
            #[cfg(feature = "mysql")]
            Self::Mysql(row) => {
                let time: Option<PrimitiveDateTime> = row.try_get_unchecked(at)?;
                let ms =
                    |time: PrimitiveDateTime| time.assume_utc().unix_timestamp_nanos().div_euclid(1_000_000);
                Ok(time.map(|time| Timestamp(ms(time) as i64)))
            }
            Self::Sqlite(_) => self.text(at)?.map(|text| text.parse().map_err(|_| not("a time"))).transpose(),
        }
    }
}

/// A stored value is not what it must be.
pub fn not(what: &str) -> Fault {
    Fault::Store(StoreError::Corrupt(format!("a stored value is not {what}")))
}

impl Odd {
    /// What a cell holds; text of a column by the column's type.
    pub fn of(cell: &Cell, column: &str) -> Self {
        match cell {
            Cell::Null => Self::new("NULL", 0),
            Cell::Int(_) => Self::new("INTEGER", 8),
            Cell::Real(_) => Self::new("REAL", 8),
            Cell::Text(text) => Self::new(column, text.len() as u64),
            Cell::Bytes(kind, length) => Self::new(kind, *length),
        }
    }
}
