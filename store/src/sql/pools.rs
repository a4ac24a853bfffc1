//! Connections: to one SQLite file with one writer and several readers, or to a MySQL server.

use std::{
    cmp,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::passage::Plaintext;
use parking_lot::Mutex;
use rust_decimal::Decimal;
use sqlx::{
    ConnectOptions, Connection as _, MySqlPool, SqlitePool,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlSslMode},
    pool::PoolConnectionMetadata,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

use super::{
    StoreError,
    ddl::Server,
    dialect::{DECIMAL_COLLATION, Dialect, Sql},
    fault::Fault,
    losses::Losses,
    nodelay,
    relied::{self, SettingsError},
    session::{Connection, Session, deadline_in, within},
    sign_in::{self, Way},
};
use model::{passage::Passage, wide::Wide};

/// The most time of one call, from asking for a connection to the last answer.
const CALL_TIME: Duration = Duration::from_secs(5);
/// A connection that is idle for longer is closed, before the server does so.
const IDLE_MAX: Duration = Duration::from_secs(8);
/// The most bytes of one statement to SQLite.
const SQLITE_BYTES_MAX: usize = 1_000_000_000;
/// What a server takes at least, and what is left of that for the text of a statement.
const PACKET_LEAST: usize = 16 << 10;
const PACKET_SPARE: usize = 32 << 10;
/// How long it is told that settings did not take.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
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
/// A connection that was idle for longer is asked whether it still lives.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// The most prepared statements of one connection: a server has 16,382 for all of them.
const STATEMENTS_MAX: usize = 256;
/// What one process takes of those at most, so that there is room for others.
const STATEMENTS_ALL: usize = 8_000;

/// How to reach a MySQL or MariaDB server.
#[derive(Clone, Debug)]
pub struct MysqlOptions {
    /// `mysql://user:password@host:port/database`.
    pub url: String,
    /// The file of the certificate authority; TLS with a verified server is then required.
    pub ca: Option<PathBuf>,
    /// The file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// The file of the client's key.
    pub key: Option<PathBuf>,
    /// The most connections.
    pub max_connections: u32,
    /// How long a call waits for a connection.
    pub acquire_timeout: Duration,
    /// Whose certificates are trusted, and whether the password may be readable on the way.
    pub passage: Passage,
}

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
    Mysql {
        /// The connections.
        pool: MySqlPool,
        /// When one was lost.
        losses: Losses,
        /// Why the last one could not be used.
        refusal: Refusal,
        /// The most bytes that the server takes at once.
        packet_max: Arc<AtomicUsize>,
        /// How the password goes there.
        way: Way,
    },
}

/// Why the settings of the last connection did not take; none where they did. Those who wait for a connection
/// are told.
#[derive(Clone, Default)]
pub struct Refusal(Arc<Mutex<Option<(Instant, String)>>>);

/// How many prepared statements each of so many connections may keep.
fn statements_max(connections: u32) -> usize {
    (STATEMENTS_ALL / connections.max(1) as usize).clamp(16, STATEMENTS_MAX)
}

impl MysqlOptions {
    /// A server without TLS files, at most 20 connections, 2 seconds.
    pub fn new(url: impl Into<String>) -> Self {
        let acquire_timeout = Duration::from_secs(2);
        let passage = Passage::new("mysql", Plaintext::Refused);
        Self {
            url: url.into(),
            ca: None,
            cert: None,
            key: None,
            max_connections: 20,
            acquire_timeout,
            passage,
        }
    }

    /// What the driver is told.
    ///
    /// # Errors
    /// `Unsupported`: the URL is not one, or its password would be readable on the way.
    pub fn connect_options(&self) -> Result<MySqlConnectOptions, StoreError> {
        // the parser's own error can show the password
        let url: MySqlConnectOptions = self
            .url
            .parse()
            .map_err(|_| StoreError::Unsupported("the URL of MySQL is not one".to_owned()))?;
        // `relied` has all of these, and looks whether they took
        let url = url.pipes_as_concat(false).no_engine_substitution(false).timezone(None).set_names(false);
        let mut options =
            url.disable_statement_logging().statement_cache_capacity(statements_max(self.max_connections));
        if let Some(authorities) = self.passage.system() {
            options = options.ssl_ca_from_pem(authorities.to_vec()).ssl_mode(MySqlSslMode::VerifyIdentity);
        } else if let Some(ca) = &self.ca {
            options = options.ssl_ca(ca).ssl_mode(MySqlSslMode::VerifyIdentity);
        }
        if let Some(cert) = &self.cert {
            options = options.ssl_client_cert(cert);
        }
        if let Some(key) = &self.key {
            options = options.ssl_client_key(key);
        }
        sign_in::admitted(options, &self.url, &self.passage)
    }
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

    /// Connections to a server, which need not be up yet.
    pub fn mysql(options: &MysqlOptions) -> Result<Self, StoreError> {
        let losses = Losses::default();
        let known = losses.clone();
        let refusal = Refusal::default();
        let told = refusal.clone();
        let packet_max = Arc::new(AtomicUsize::new(PACKET_LEAST));
        let packet = packet_max.clone();
        let server = options.connect_options()?;
        let pool = MySqlPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(IDLE_MAX)
            .test_before_acquire(false)
            .before_acquire(move |connection, metadata: PoolConnectionMetadata| {
                let trusted = metadata.idle_for < IDLE_TRUSTED && !known.any_within(metadata.idle_for);
                Box::pin(async move {
                    match trusted {
                        true => Ok(true),
                        false => connection.ping().await.map(|()| true),
                    }
                })
            })
            .after_connect(move |connection, _| {
                let (told, packet) = (told.clone(), packet.clone());
                Box::pin(async move {
                    _ = tokio::task::spawn_blocking(nodelay::everywhere).await;
                    let result = relied::apply(connection).await;
                    if let Ok(bytes) = &result {
                        let bytes =
                            usize::try_from(*bytes).unwrap_or(usize::MAX).saturating_sub(PACKET_SPARE);
                        packet.store(bytes.max(PACKET_LEAST), Ordering::Relaxed);
                    }
                    told.note(result)
                })
            });
        let way = Way::new(&server, &options.url, &options.passage);
        Ok(Self::Mysql { pool: pool.connect_lazy_with(server), losses, refusal, packet_max, way })
    }

    /// The SQL that is spoken.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite { .. } => Dialect::Sqlite,
            Self::Mysql { .. } => Dialect::Mysql,
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
        let connection = match self {
            Self::Sqlite { writer, readers } => {
                let pool = if write { writer } else { readers };
                Connection::Sqlite(within(deadline, pool.acquire()).await?)
            }
            Self::Mysql { pool, losses, refusal, packet_max: _, way } => {
                way.look(losses, deadline).await?;
                match within(deadline, pool.acquire()).await {
                    Ok(connection) => Connection::Mysql(connection, losses.clone()),
                    Err(fault) => return Err(refusal.why().unwrap_or_else(|| way.told(fault))),
                }
            }
        };
        let packet_max = match self {
            Self::Sqlite { .. } => SQLITE_BYTES_MAX,
            Self::Mysql { packet_max, .. } => packet_max.load(Ordering::Relaxed),
        };
        Ok(Session::new(connection, deadline, packet_max))
    }
}

impl Refusal {
    /// Notes how setting a connection up went. The error closes it, and another is tried until the caller's
    /// time is over.
    fn note(&self, result: Result<u64, SettingsError>) -> Result<(), sqlx::Error> {
        let (kept, result) = match result {
            Ok(_) => (None, Ok(())),
            Err(SettingsError::Refused(why)) => {
                (Some(why.clone()), Err(sqlx::Error::Configuration(why.into())))
            }
            Err(SettingsError::Failed(error)) => (refused(&error), Err(error)),
        };
        *self.0.lock() = kept.map(|why| (Instant::now(), why));
        result
    }

    fn why(&self) -> Option<Fault> {
        let (at, why) = self.0.lock().clone()?;
        // later it is another reason: whoever waits for a connection has the settings tried all the time
        (at.elapsed() < REFUSAL_MAX).then_some(Fault::Store(StoreError::Setup(why)))
    }
}

/// What a server said to the settings themselves; none where the connection was lost.
fn refused(error: &sqlx::Error) -> Option<String> {
    let number = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number();
    // a wrong statement, an unknown setting, no right to it, another value wanted
    [1064, 1193, 1227, 1231, 1232].contains(&number).then(|| {
        format!(
            "the settings of a session are refused (error {number}): MySQL from 8.0 or MariaDB from 10.11 is needed"
        )
    })
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
