//! The connection to Redis: made in the background, given up when it fails, and watched for a server that
//! lost data.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
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
use xxhash_rust::xxh3::xxh3_64;

use super::RedisConfig;
use engine::clock::Clock;
use model::passage::Sends;
use runtime::supervisor;

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
    /// The processes that were seen behind the address, by their runs.
    seen: Mutex<Option<BTreeSet<String>>>,
    trusted_since_ms: AtomicU64,
    epoch: Mutex<Arc<Epoch>>,
    /// Whether its clock is followed.
    followed: AtomicBool,
}

/// Which run of the server answers, and how its clock goes.
#[derive(Debug, Default)]
pub struct Epoch {
    /// Names the run, with digits of base 16; all replicas name it alike. Empty before the first connection.
    pub run: String,
    /// The server's clock less that of this process, in ms.
    ahead_ms: i64,
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
/// How often the server is asked what time it is.
const TIME_INTERVAL: Duration = Duration::from_secs(5);
/// An answer that took longer says too little of the time.
const TIME_DOUBT_MS: u64 = 250;
/// By how much a clock may differ from what was known of it. More is a clock that was set: times from before
/// say nothing.
const CLOCK_STEP_MS: u64 = 500;
/// The name of the run of a server that does not say who it is.
const NAMELESS: &str = "0";
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

impl Epoch {
    /// A time of this process as the server's clock has it.
    pub fn to_server(&self, ms: u64) -> u64 {
        ms.saturating_add_signed(self.ahead_ms)
    }

    /// A time of the server as the clock of this process has it.
    pub fn to_process(&self, ms: u64) -> u64 {
        ms.saturating_add_signed(self.ahead_ms.saturating_neg())
    }
}

impl Link {
    /// A link that connects when it is first used. Errors tell what is wrong with the address or the
    /// certificates.
    pub fn new(config: RedisConfig, clock: Clock) -> Result<Arc<Self>, String> {
        let RedisConfig { url, ca_pem, client_pem, deadline: _, passage } = config;
        let system = passage.system().map(<[u8]>::to_vec);
        let is_by_system = system.is_some();
        let urls =
            url.split(',').map(|url| if is_by_system { over_tls(url.trim()) } else { url.trim().to_owned() });
        let urls: Vec<String> = urls.collect();
        let ca_pem = system.or(ca_pem);
        let client_tls =
            client_pem.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let tls = (ca_pem.is_some() || client_tls.is_some())
            .then_some(TlsCertificates { client_tls, root_cert: ca_pem });
        let link = Self {
            urls,
            tls,
            clock,
            state: Mutex::new(State::Idle),
            seen: Mutex::default(),
            trusted_since_ms: AtomicU64::new(0),
            epoch: Mutex::default(),
            followed: AtomicBool::new(false),
        };
        for url in &link.urls {
            let client = link.client(url);
            let client = client
                .map_err(|error| format!("the address of Redis is not usable: {}", error.category()))?;
            let info = client.get_connection_info();
            let (over_tls, host) = match info.addr() {
                ConnectionAddr::Tcp(host, _) => (false, host.as_str()),
                ConnectionAddr::TcpTls { host, insecure, .. } => {
                    if *insecure && is_by_system {
                        return Err(
                            "tls.authorities is System, and the address of Redis says #insecure: take that away"
                                .to_owned(),
                        );
                    }
                    (true, host.as_str())
                }
                // a path, or what only a later version of the driver knows
                _ => (false, "/"),
            };
            let sends =
                if info.redis_settings().password().is_some() { Sends::Password } else { Sends::Nothing };
            passage.admit(sends, over_tls, [host])?;
        }
        Ok(Arc::new(link))
    }

    /// A link by other settings. It knows whom this one met: a process that is none of them may hold older
    /// data.
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
                    let connecting =
                        task.map(|done| done.unwrap_or_else(|_| Err(interrupted()))).boxed().shared();
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

    /// Which run of the server answers, as last found out.
    pub fn epoch(&self) -> Arc<Epoch> {
        self.epoch.lock().clone()
    }

    fn client(&self, url: &str) -> RedisResult<Client> {
        match &self.tls {
            Some(tls) => Client::build_with_tls(url.into_connection_info()?, tls.clone()),
            None => Client::open(url),
        }
    }

    async fn open(self: &Arc<Self>) -> RedisResult<Connection> {
        if !self.followed.swap(true, Ordering::AcqRel) {
            let link = Arc::downgrade(self);
            supervisor::REDIS_CLOCK.spawn(move || follow_time(link.clone()));
        }
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
        let info = match cmd("INFO").query_async::<String>(&mut single).await {
            Ok(info) => Some(info),
            Err(error) if super::is_answer(&error) => None,
            Err(error) => return Err(error),
        };
        if !info.as_ref().is_some_and(|info| info.contains("redis_mode:cluster")) {
            let mut single = Connection::Single(single);
            match info {
                Some(info) => self.meet(runs(&info).collect()),
                // a server may not say who it is; then nobody is trusted to be the same as before
                None => self.meet_as(BTreeSet::from([uuid::Uuid::now_v7().to_string()]), NAMELESS.to_owned()),
            }
            self.tell_time(&mut single).await;
            return Ok(single);
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
        let watched = (Arc::downgrade(self), cluster.clone());
        supervisor::REDIS_NODES.spawn(move || watch(watched.0.clone(), watched.1.clone()));
        let mut cluster = Connection::Cluster(cluster);
        self.tell_time(&mut cluster).await;
        Ok(cluster)
    }

    /// Notes which processes answer.
    fn meet(&self, now: BTreeSet<String>) {
        let names = now.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        self.meet_as(now, format!("{:016x}", xxh3_64(names.as_bytes())));
    }

    /// A new process may hold less or older data than was seen before: a restart, a failover.
    fn meet_as(&self, now: BTreeSet<String>, run: String) {
        {
            let mut epoch = self.epoch.lock();
            if epoch.run != run {
                *epoch = Arc::new(Epoch { run, ahead_ms: epoch.ahead_ms });
            }
        }
        let mut seen = self.seen.lock();
        if seen.as_ref().is_some_and(|before| !now.is_subset(before)) {
            self.trusted_since_ms.store(self.clock.now_ms(), Ordering::Release);
        }
        *seen = Some(now);
    }
}

impl Link {
    /// Asks the server what time it is; where it does not say, its clock is taken to go as it did.
    async fn tell_time(&self, connection: &mut Connection) {
        let before_ms = self.clock.now_ms();
        let Ok(server_ms) = connection.time_ms().await else { return };
        let after_ms = self.clock.now_ms();
        let took_ms = after_ms.saturating_sub(before_ms);
        let ahead_ms = server_ms.cast_signed().saturating_sub((before_ms + took_ms / 2).cast_signed());
        self.note_time(ahead_ms, took_ms);
    }

    fn note_time(&self, ahead_ms: i64, took_ms: u64) {
        let mut epoch = self.epoch.lock();
        let is_first = epoch.ahead_ms == 0;
        if !is_first && took_ms > TIME_DOUBT_MS {
            return;
        }
        if !is_first && epoch.ahead_ms.abs_diff(ahead_ms) > CLOCK_STEP_MS {
            self.trusted_since_ms.store(self.clock.now_ms(), Ordering::Release);
        }
        *epoch = Arc::new(Epoch { run: epoch.run.clone(), ahead_ms });
    }
}

impl Connection {
    /// The time by the clock of the server, in ms since 1970; of a cluster that of the clock which is ahead
    /// of the others, so that all replicas have the same.
    async fn time_ms(&mut self) -> RedisResult<u64> {
        let time = cmd("TIME");
        let answers = match self {
            Self::Single(connection) => vec![time.query_async(connection).await?],
            Self::Cluster(connection) => {
                let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let Value::Map(answers) = connection.route_command(time, primaries).await? else {
                    return Err(interrupted());
                };
                answers.into_iter().map(|(_, answer)| answer).collect()
            }
        };
        let mut newest = 0;
        for answer in answers {
            let (seconds, micros) = <(u64, u64)>::from_redis_value(answer)?;
            newest = newest.max(seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
        }
        Ok(newest)
    }
}

/// Follows the server's clock, of whichever connection there is, until the link is gone.
async fn follow_time(link: Weak<Link>) {
    loop {
        tokio::time::sleep(TIME_INTERVAL).await;
        let Some(link) = link.upgrade() else { return };
        let connection = match &*link.state.lock() {
            State::Up(connection, _) => Some(connection.clone()),
            State::Idle | State::Connecting(_) => None,
        };
        if let Some(mut connection) = connection {
            _ = tokio::time::timeout(CONNECT_TIMEOUT, link.tell_time(&mut connection)).await;
        }
    }
}

async fn connect(link: Arc<Link>) -> RedisResult<(Connection, u64)> {
    static GENERATION: AtomicU64 = AtomicU64::new(0);
    let opened =
        tokio::time::timeout(CONNECT_TIMEOUT, link.open()).await.unwrap_or_else(|_| Err(interrupted()));
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
    let Value::Map(answers) = cluster.route_command(cmd("INFO"), primaries).await? else {
        return Err(interrupted());
    };
    let texts = answers
        .into_iter()
        .map(|(_, answer)| String::from_redis_value(answer))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(texts.iter().flat_map(|text| runs(text)).collect())
}

/// The process, and the history that it writes: a replica that is promoted begins another, also where it was
/// a primary once before.
fn runs(info: &str) -> impl Iterator<Item = String> {
    let field = |name: &'static str| info.lines().filter_map(move |line| line.strip_prefix(name));
    let history = field("master_replid:").next().unwrap_or_default().trim();
    field("run_id:").map(move |id| format!("{}/{history}", id.trim()))
}

/// The same address by TLS.
fn over_tls(url: &str) -> String {
    url.strip_prefix("redis://").map_or_else(|| url.to_owned(), |rest| format!("rediss://{rest}"))
}

fn interrupted() -> RedisError {
    RedisError::from((ErrorKind::Io, "connecting was not finished in time"))
}
