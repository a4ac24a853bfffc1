//! Connections: to one SQLite file with one writer and several readers, or to a MySQL server.

use std::{cmp, path::Path, time::Duration};

use model::wide::Wide;
use rust_decimal::Decimal;
use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

#[cfg(feature = "mysql")]
use super::mysql::MysqlServer;
use super::{
    StoreError,
    ddl::Server,
    dialect::{DECIMAL_COLLATION, Dialect, Sql},
    fault::Fault,
    session::{Connection, Session, deadline_in, within},
};

/// The most time of one call, from asking for a connection to the last answer.
const CALL_TIME: Duration = Duration::from_secs(5);
/// The most bytes of one statement to SQLite.
const SQLITE_BYTES_MAX: usize = 1_000_000_000;
/// The most time for making tables.
const PREPARE_TIME: Duration = Duration::from_secs(60);
/// Rows of a SQLite file that are read ahead of who takes them: each may be large.
const ROWS_AHEAD: usize = 4;
/// How many connections read a SQLite file.
const READERS: u32 = 4;
/// Memory for pages of a SQLite file, in KiB (negative by SQLite's convention), so that writes at any place
/// of a large table need not read.
const WRITER_CACHE: &str = "-16384";
/// Pages in the log of a SQLite file (32 MiB) after which they are copied into the file: a page that changes
/// often is copied once for many changes.
const CHECKPOINT_PAGES: &str = "8000";
/// Connections to a database.
pub enum Pools {
    /// To a file.
    Sqlite {
        /// The one connection that writes.
        writer: SqlitePool,
        /// Those that read.
        readers: SqlitePool,
    },
    /// To a server.
    #[cfg(feature = "mysql")]
    Mysql(MysqlServer),
}

impl Pools {
    /// Connections to a file, which is made where it is not there. Nothing is opened yet.
    pub fn sqlite(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(4))
            .foreign_keys(true)
            .statement_cache_capacity(256)
            .row_buffer_size(ROWS_AHEAD)
            .collation(DECIMAL_COLLATION, compare_decimals)
            .disable_statement_logging();
        let pool = || {
            SqlitePoolOptions::new().test_before_acquire(false).acquire_timeout(CALL_TIME).idle_timeout(None)
        };
        // FULL: a commit that was answered is on the disk, whatever happens to the process or the power
        let writer = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
        let reader = options.create_if_missing(false).pragma("query_only", "ON");
        Self::Sqlite {
            writer: pool().max_connections(1).max_lifetime(None).connect_lazy_with(writer),
            readers: pool().max_connections(READERS).max_lifetime(None).connect_lazy_with(reader),
        }
    }

    /// The SQL that is spoken.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => Dialect::Mysql,
        }
    }

    /// A session that reads.
    pub async fn read(&self) -> Result<Session, Fault> {
        self.session(false, deadline_in(CALL_TIME)).await
    }

    /// A session that writes.
    pub async fn write(&self) -> Result<Session, Fault> {
        self.session(true, deadline_in(CALL_TIME)).await
    }

    /// A session that makes tables.
    pub async fn prepare(&self) -> Result<Session, Fault> {
        self.session(true, deadline_in(PREPARE_TIME)).await
    }

    /// A session that reads and is done by a deadline.
    pub async fn read_until(&self, deadline: Instant) -> Result<Session, Fault> {
        self.session(false, deadline).await
    }

    /// A session that writes and is done by a deadline.
    pub async fn write_until(&self, deadline: Instant) -> Result<Session, Fault> {
        self.session(true, deadline).await
    }

    async fn session(&self, write: bool, deadline: Instant) -> Result<Session, Fault> {
        match self {
            Self::Sqlite { writer, readers } => {
                let pool = if write { writer } else { readers };
                let connection = Connection::Sqlite(within(deadline, pool.acquire()).await?);
                Ok(Session::new(connection, deadline, SQLITE_BYTES_MAX))
            }
            #[cfg(feature = "mysql")]
            Self::Mysql(server) => server.session(deadline).await,
        }
    }
}

/// The time by which a call that starts now must be done.
pub fn call_deadline() -> Instant {
    deadline_in(CALL_TIME)
}

/// The time by which a unit with this deadline must be done.
///
/// # Errors
/// `Unavailable` where that is over already.
pub fn deadline_of(unit: Option<std::time::Instant>) -> Result<Instant, StoreError> {
    super::super::due(unit, CALL_TIME)
}

/// Which server answers.
pub async fn server_of(session: &mut Session) -> Result<Server, Fault> {
    if session.dialect() == Dialect::Sqlite {
        return Ok(Server::Sqlite);
    }
    let rows = session.rows(Sql::text("SELECT VERSION()")).await?;
    let version = rows.first().map(|row| row.text(0)).transpose()?.flatten().unwrap_or_default();
    Ok(if version.contains("MariaDB") { Server::Mariadb } else { Server::Mysql })
}

/// Text that is no number, which the store never writes, comes first.
fn compare_decimals(left: &str, right: &str) -> cmp::Ordering {
    if let (Ok(left), Ok(right)) = (Decimal::from_str_exact(left), Decimal::from_str_exact(right)) {
        return left.cmp(&right);
    }
    match (Wide::parse(left), Wide::parse(right)) {
        (Some(left), Some(right)) => left.compare(&right),
        (Some(_), None) => cmp::Ordering::Greater,
        (None, Some(_)) => cmp::Ordering::Less,
        (None, None) => left.cmp(right),
    }
}
