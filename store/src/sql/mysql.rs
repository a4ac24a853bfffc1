//! Connections to a MySQL or MariaDB server.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::passage::{Passage, Plaintext};
use parking_lot::Mutex;
use sqlx::{
    ConnectOptions, Connection as _, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlSslMode},
    pool::PoolConnectionMetadata,
};
use tokio::time::Instant;

use super::{
    StoreError,
    fault::Fault,
    losses::Losses,
    session::{Connection, Session, within},
};

pub mod fault;
mod greeting;
mod nodelay;
mod relied;
mod sign_in;

use relied::SettingsError;
use sign_in::Way;

/// A connection that is idle for longer is closed, before the server does so.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// What a server takes at least, and what is left of that for the text of a statement.
const PACKET_LEAST: usize = 16 << 10;

const PACKET_SPARE: usize = 32 << 10;

/// How long it is told that settings did not take.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// A connection that was idle for longer is asked whether it still lives.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// The most prepared statements of one connection: a server has 16,382 for all of them.
const STATEMENTS_MAX: usize = 256;

/// What one process takes of those at most, so that there is room for others.
const STATEMENTS_ALL: usize = 8_000;

/// Connections to a server.
pub struct MysqlServer {
    pool: MySqlPool,
    /// When one was lost.
    losses: Losses,
    /// Why the last one could not be used.
    refusal: Refusal,
    /// The most bytes that the server takes at once.
    packet_max: Arc<AtomicUsize>,
    /// How the password goes there.
    way: Way,
}

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

/// Why the settings of the last connection did not take; none where they did. Those who wait for a connection
/// are told.
#[derive(Clone, Default)]
pub struct Refusal(Arc<Mutex<Option<(Instant, String)>>>);

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

/// How many prepared statements each of so many connections may keep.
fn statements_max(connections: u32) -> usize {
    (STATEMENTS_ALL / connections.max(1) as usize).clamp(16, STATEMENTS_MAX)
}

impl MysqlServer {
    /// Connections to a server, which need not be up yet.
    pub fn new(options: &MysqlOptions) -> Result<Self, StoreError> {
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
        Ok(Self { pool: pool.connect_lazy_with(server), losses, refusal, packet_max, way })
    }

    /// A session that must be done by the deadline.
    pub async fn session(&self, deadline: Instant) -> Result<Session, Fault> {
        self.way.look(&self.losses, deadline).await?;
        let connection = match within(deadline, self.pool.acquire()).await {
            Ok(connection) => Connection::Mysql(connection, self.losses.clone()),
            Err(fault) => return Err(self.refusal.why().unwrap_or_else(|| self.way.told(fault))),
        };
        Ok(Session::new(connection, deadline, self.packet_max.load(Ordering::Relaxed)))
    }
}
