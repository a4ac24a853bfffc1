//! The connection to Redis: made in the background, given up when it fails, and watched for a server that lost data.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
    cmd,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use super::RedisConfig;
use crate::cache::clock::Clock;

/// A connection to one server or to a cluster. Clones share it.
#[derive(Clone)]
pub enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Keeps one connection, for everybody.
pub struct Link {
    urls: Vec<String>,
    tls: Option<TlsCertificates>,
    clock: Clock,
    state: Mutex<State>,
    /// The processes that were seen behind the address, by their run ids.
    seen: Mutex<Option<BTreeSet<String>>>,
    trusted_since_ms: AtomicU64,
}

enum State {
    Idle,
    Connecting(Connecting),
    Up(Connection, u64),
}

type Connecting = Shared<BoxFuture<'static, RedisResult<(Connection, u64)>>>;

/// How long connecting may take. Callers give up earlier, the attempt goes on for the next ones.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a cluster is asked whether its nodes are still the same processes.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Commands that may wait to be written.
const PIPELINE_BUFFER: usize = 1024;

impl Connection {
    /// Sends a command and reads the answer.
    pub async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

impl Link {
    /// A link that connects when it is first used. Errors tell what is wrong with the address or the certificates.
    pub fn new(config: RedisConfig, clock: Clock) -> Result<Arc<Self>, String> {
        let RedisConfig { url, ca_pem, client_pem, deadline: _ } = config;
        let urls: Vec<String> = url.split(',').map(|url| url.trim().to_owned()).collect();
        let client_tls = client_pem.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let tls =
            (ca_pem.is_some() || client_tls.is_some()).then_some(TlsCertificates { client_tls, root_cert: ca_pem });
        let link = Self {
            urls,
            tls,
            clock,
            state: Mutex::new(State::Idle),
            seen: Mutex::default(),
            trusted_since_ms: AtomicU64::new(0),
        };
        for url in &link.urls {
            link.client(url).map_err(|error| format!("the address of Redis is not usable: {}", error.category()))?;
        }
        Ok(Arc::new(link))
    }

    /// A link by other settings. It knows whom this one met: a process that is none of them may hold older data.
    pub fn successor(&self, config: RedisConfig) -> Result<Arc<Self>, String> {
        let next = Self::new(config, self.clock.clone())?;
        next.seen.lock().clone_from(&self.seen.lock());
        next.trusted_since_ms.store(self.trusted_since_ms(), Ordering::Release);
        Ok(next)
    }

    /// The connection, with a number that tells it from later ones. Waits while it is being made.
    pub async fn get(self: &Arc<Self>) -> RedisResult<(Connection, u64)> {
        let connecting = {
            let mut state = self.state.lock();
            match &*state {
                State::Up(connection, generation) => return Ok((connection.clone(), *generation)),
                State::Connecting(connecting) => connecting.clone(),
                State::Idle => {
                    let task = tokio::spawn(connect(self.clone()));
                    let connecting = task.map(|done| done.unwrap_or_else(|_| Err(interrupted()))).boxed().shared();
                    *state = State::Connecting(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await
    }

    /// Forgets a connection that failed, unless it was replaced already. The next call makes another.
    pub fn give_up(&self, generation: Option<u64>) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Up(_, current) if Some(*current) == generation) {
            *state = State::Idle;
        }
    }

    /// What was put before may be gone back to an older version: another process answers than before.
    pub fn trusted_since_ms(&self) -> u64 {
        self.trusted_since_ms.load(Ordering::Acquire)
    }

    fn client(&self, url: &str) -> RedisResult<Client> {
        match &self.tls {
            Some(tls) => Client::build_with_tls(url.into_connection_info()?, tls.clone()),
            None => Client::open(url),
        }
    }

    async fn open(self: &Arc<Self>) -> RedisResult<Connection> {
        let (mut single, mut failure) = (None, interrupted());
        for url in &self.urls {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(CONNECT_TIMEOUT))
                .set_pipeline_buffer_size(PIPELINE_BUFFER);
            match self.client(url)?.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => {
                    single = Some(connection);
                    break;
                }
                Err(error) => failure = error,
            }
        }
        let mut single = single.ok_or(failure)?;
        let info = match cmd("INFO").arg("server").query_async::<String>(&mut single).await {
            Ok(info) => info,
            // a server may not say who it is; then nobody is trusted to be the same as before
            Err(error) if super::is_answer(&error) => format!("run_id:{}", uuid::Uuid::now_v7()),
            Err(error) => return Err(error),
        };
        if !info.contains("redis_mode:cluster") {
            self.meet(run_ids(&info).collect());
            return Ok(Connection::Single(single));
        }
        let mut builder = ClusterClient::builder(self.urls.iter().map(String::as_str))
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(CONNECT_TIMEOUT)
            .retries(3);
        if let Some(tls) = &self.tls {
            builder = builder.certs(tls.clone());
        }
        let mut cluster = builder.build()?.get_async_connection().await?;
        self.meet(nodes(&mut cluster).await?);
        tokio::spawn(watch(Arc::downgrade(self), cluster.clone()));
        Ok(Connection::Cluster(cluster))
    }

    /// Notes which processes answer. A new one may hold less or older data than was seen before: a restart, a failover.
    fn meet(&self, now: BTreeSet<String>) {
        let mut seen = self.seen.lock();
        if seen.as_ref().is_some_and(|before| !now.is_subset(before)) {
            self.trusted_since_ms.store(self.clock.now_ms(), Ordering::Release);
        }
        *seen = Some(now);
    }
}

async fn connect(link: Arc<Link>) -> RedisResult<(Connection, u64)> {
    static GENERATION: AtomicU64 = AtomicU64::new(0);
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, link.open()).await.unwrap_or_else(|_| Err(interrupted()));
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    *link.state.lock() = match &opened {
        Ok(connection) => State::Up(connection.clone(), generation),
        Err(_) => State::Idle,
    };
    Ok((opened?, generation))
}

/// Looks again and again who the nodes of a cluster are: their connections are replaced without a word.
async fn watch(link: Weak<Link>, mut cluster: ClusterConnection) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let nodes = nodes(&mut cluster).await;
        let Some(link) = link.upgrade() else { return };
        if !matches!(&*link.state.lock(), State::Up(Connection::Cluster(_), _)) {
            return;
        }
        if let Ok(nodes) = nodes {
            link.meet(nodes);
        }
    }
}

async fn nodes(cluster: &mut ClusterConnection) -> RedisResult<BTreeSet<String>> {
    let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let mut info = cmd("INFO");
    info.arg("server");
    let Value::Map(answers) = cluster.route_command(info, primaries).await? else { return Err(interrupted()) };
    let texts =
        answers.into_iter().map(|(_, answer)| String::from_redis_value(answer)).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.iter().flat_map(|text| run_ids(text)).collect())
}

fn run_ids(info: &str) -> impl Iterator<Item = String> {
    info.lines().filter_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned())
}

fn interrupted() -> RedisError {
    RedisError::from((ErrorKind::Io, "connecting was not finished in time"))
}
