//! Opens the declared stores, caches and brokers, or the embedded ones that stand in for them on a laptop.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use crds::{
    settings::{BackendKind, BackendSettings, Settings},
    tier::WriteStrategy,
    units::Span,
};

use crate::{
    cache::{
        clock::Clock,
        redis::{RedisCache, RedisConfig},
        shared::{LocalShared, SharedCache},
    },
    domain::seal::Sealer,
    events::{
        EventBus,
        intake::{Intake, kafka::KafkaIntake, local::LocalIntake},
        kafka::{
            KafkaBus,
            config::{KafkaOptions, KafkaSecurity},
        },
        local::{LocalBus, LocalOptions},
    },
    service::write_behind::LOG_AGE_MAX,
    store::{
        RecordStore,
        mongo::{MongoOptions, MongoStore},
        sql::{MysqlOptions, SqlStore},
    },
};

/// What the in-process stand-in for a Redis keeps at most, in bytes.
const LOCAL_SHARED_MAX: usize = 64 << 20;

/// Connections to each server of a MongoDB.
const MONGODB_CONNECTIONS_MAX: u32 = 50;

/// How long a call of Redis may take before it counts as a miss.
const REDIS_DEADLINE: Duration = Duration::from_millis(50);

/// Where data is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In embedded stores in a folder.
    Embedded(PathBuf),
    /// In the declared backends, whose addresses are in a folder.
    Backends(PathBuf),
}

/// Everything outside this process, or what stands in for it.
pub struct Backends {
    /// The stores, by the names of their backends.
    pub stores: BTreeMap<String, Arc<dyn RecordStore>>,
    /// The shared caches, by the names of their backends.
    pub caches: BTreeMap<String, Arc<dyn SharedCache>>,
    /// The bus, with its backend's name.
    pub bus: (String, Arc<dyn EventBus>),
    /// The log of events from outside.
    pub intake: Arc<dyn Intake>,
    /// The log of writes that are acknowledged before the store has them; none where no tier is WriteBehind.
    pub write_log: Option<Arc<dyn EventBus>>,
}

/// Opens all backends of the settings. Servers need not be up: each part connects when it is first used, and again when it was lost.
///
/// # Errors
/// A folder or address that cannot be read. Messages hold no address.
pub async fn open(
    settings: &Settings,
    place: &Place,
    sealer: &Arc<dyn Sealer>,
    clock: &Clock,
    connection_timeout: Option<Span>,
) -> anyhow::Result<Backends> {
    let (mut stores, mut caches, mut bus) = (BTreeMap::new(), BTreeMap::new(), None);
    for BackendSettings { name, secret: _, kind } in &settings.backends {
        let files = match place {
            Place::Embedded(_) => None,
            Place::Backends(dir) => Some(Files(dir.join(name))),
        };
        match kind {
            BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } => {
                let store = match (place, &files) {
                    (_, Some(files)) => declared_store(files, kind, sealer, connection_timeout).await?,
                    (Place::Embedded(dir) | Place::Backends(dir), None) => {
                        Arc::new(SqlStore::sqlite(&dir.join(format!("{name}.db")), sealer.clone())?)
                    }
                };
                stores.insert(name.clone(), store);
            }
            BackendKind::Redis {} => {
                let cache: Arc<dyn SharedCache> = match &files {
                    Some(files) => Arc::new(redis(files, clock).map_err(anyhow::Error::msg)?),
                    None => Arc::new(LocalShared::new(LOCAL_SHARED_MAX, clock.clone())),
                };
                caches.insert(name.clone(), cache);
            }
            BackendKind::Kafka { topic_prefix } => {
                if let Some(files) = &files {
                    let options = kafka(files, topic_prefix)?;
                    let intake: Arc<dyn Intake> = Arc::new(KafkaIntake::start(&options)?);
                    let events: Arc<dyn EventBus> = Arc::new(KafkaBus::start(options)?);
                    bus = Some((name.clone(), events, intake));
                }
            }
        }
    }
    let (name, events, intake) = match (bus, place) {
        (Some(bus), _) => bus,
        (None, Place::Embedded(dir)) => {
            let events: Arc<dyn EventBus> = Arc::new(LocalBus::open(dir, LocalOptions::default()).await?);
            let intake: Arc<dyn Intake> = Arc::new(LocalIntake::open(dir).await?);
            ("events".to_owned(), events, intake)
        }
        (None, Place::Backends(_)) => {
            bail!("spec.backends has no kafka backend: replicas tell each other of changes through it")
        }
    };
    let wanted =
        settings.pools.iter().flat_map(|pool| &pool.tiers).any(|tier| tier.write == WriteStrategy::WriteBehind);
    let write_log = if wanted { Some(write_log(settings, place).await?) } else { None };
    Ok(Backends { stores, caches, bus: (name, events), intake, write_log })
}

/// The log of write-behind: a topic of its own, or a file of its own.
async fn write_log(settings: &Settings, place: &Place) -> anyhow::Result<Arc<dyn EventBus>> {
    let dir = match place {
        Place::Embedded(dir) => {
            let dir = dir.join("write-behind");
            fs::create_dir_all(&dir).with_context(|| format!("the folder {} cannot be made", dir.display()))?;
            let options = LocalOptions { events_max: u64::MAX >> 1, age_max: LOG_AGE_MAX, ..LocalOptions::default() };
            return Ok(Arc::new(LocalBus::open(&dir, options).await?));
        }
        Place::Backends(dir) => dir,
    };
    let kafka_backend = settings.backends.iter().find_map(|backend| match &backend.kind {
        BackendKind::Kafka { topic_prefix } => Some((&backend.name, topic_prefix)),
        _ => None,
    });
    let (name, prefix) = kafka_backend.context("write: WriteBehind needs a kafka backend for its log")?;
    Ok(Arc::new(KafkaBus::start(kafka(&Files(dir.join(name)), &format!("{prefix}write-behind."))?)?))
}

async fn declared_store(
    files: &Files,
    kind: &BackendKind,
    sealer: &Arc<dyn Sealer>,
    connection_timeout: Option<Span>,
) -> anyhow::Result<Arc<dyn RecordStore>> {
    Ok(match kind {
        BackendKind::Mongodb { database } => {
            let options = MongoOptions {
                url: files.url()?,
                database: database.clone(),
                ca: files.path("ca.crt"),
                cert: files.path("tls.crt"),
                key: files.path("tls.key"),
                max_connections: MONGODB_CONNECTIONS_MAX,
            };
            Arc::new(MongoStore::connect(options, sealer.clone()).await?)
        }
        BackendKind::Mysql { max_connections } => {
            let defaults = MysqlOptions::new(files.url()?);
            let options = MysqlOptions {
                ca: files.path("ca.crt"),
                cert: files.path("tls.crt"),
                key: files.path("tls.key"),
                max_connections: *max_connections,
                acquire_timeout: connection_timeout.map_or(defaults.acquire_timeout, |Span(timeout)| timeout),
                ..defaults
            };
            Arc::new(SqlStore::mysql(options, sealer.clone())?)
        }
        BackendKind::Redis {} | BackendKind::Kafka { .. } => bail!("not a store"),
    })
}

fn redis(files: &Files, clock: &Clock) -> Result<RedisCache, String> {
    let read = |name: &str| {
        files.path(name).map(|path| fs::read(&path).map_err(|error| format!("{name}: {error}"))).transpose()
    };
    let client_pem = match (read("tls.crt")?, read("tls.key")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => None,
    };
    let url = files.url().map_err(|error| format!("{error:#}"))?;
    RedisCache::new(RedisConfig { url, ca_pem: read("ca.crt")?, client_pem, deadline: REDIS_DEADLINE }, clock.clone())
}

fn kafka(files: &Files, topic_prefix: &str) -> anyhow::Result<KafkaOptions> {
    let mut options = KafkaOptions::new(files.url()?, topic_prefix);
    options.security = KafkaSecurity::from_folder(&files.0)?;
    Ok(options)
}

/// The files of one backend's Secret.
struct Files(PathBuf);

impl Files {
    fn url(&self) -> anyhow::Result<String> {
        self.text("url")?.with_context(|| {
            format!(
                "{} is not there: a backend's Secret has its address under the key `url`",
                self.0.join("url").display()
            )
        })
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let path: &Path = &self.0.join(name);
        path.exists().then(|| path.to_path_buf())
    }
}
