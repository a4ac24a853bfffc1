//! Opens the declared stores, caches and brokers, or the embedded ones that stand in for them on a laptop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use crds::{
    service::backends::{Authorities, BackendTls},
    settings::{BackendKind, BackendSettings, Settings, TierKind},
    tier::WriteStrategy,
    units::Span,
};
use tokio::sync::watch;

use super::{
    rates::RedisBuckets,
    rotation::{Folder, Mounted},
};
use crate::{
    security::{limits::SharedBuckets, tls::system_authorities},
    service::write_behind::LOG_AGE_MAX,
};
use engine::{
    clock::Clock,
    shared::{LocalShared, SharedCache},
};
use events::{
    EventBus,
    intake::{Intake, kafka::KafkaIntake, local::LocalIntake},
    kafka::{
        KafkaBus,
        config::{KafkaOptions, KafkaSecurity},
    },
    local::{LocalBus, LocalOptions},
};
use model::{passage::Passage, seal::Sealer};
use runtime::owner::{Claim, Owner};
use shared_tier::{RedisCache, RedisConfig, owned::OwnedCache};
use store::{
    RecordStore,
    confined::{Away, ConfinedStore},
    guarded::GuardedStore,
    mongo::{MongoStore, options::MongoOptions},
    room::Room,
    rotating::RotatingStore,
    sql::{MysqlOptions, SqlStore},
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

/// The stores, opened before anything else: they tell who the service is.
pub struct Stores {
    /// By the names of their backends.
    pub stores: BTreeMap<String, Arc<dyn RecordStore>>,
    /// Which of their pools are away, by the names of their backends.
    pub away: BTreeMap<String, Arc<Away>>,
    /// Which of them have room, by the names of their backends.
    pub rooms: BTreeMap<String, Arc<Room>>,
    /// The Secrets that hold their addresses and accounts.
    pub mounted: Vec<Mounted>,
    /// How they are reached, by the names of their backends.
    pub passages: BTreeMap<String, Passage>,
}

/// Everything outside this process, or what stands in for it.
pub struct Backends {
    /// The stores, by the names of their backends.
    pub stores: BTreeMap<String, Arc<dyn RecordStore>>,
    /// Which of their pools are away, by the names of their backends.
    pub away: BTreeMap<String, Arc<Away>>,
    /// Which of them have room, by the names of their backends.
    pub rooms: BTreeMap<String, Arc<Room>>,
    /// The folder of embedded stores and logs.
    pub folder: Option<PathBuf>,
    /// The shared caches, by the names of their backends.
    pub caches: BTreeMap<String, Arc<dyn SharedCache>>,
    /// The prefixes of those that others could use, too, by the backend and the prefix.
    pub owned: BTreeMap<(String, String), Arc<OwnedCache>>,
    /// The buckets of callers that all replicas share; none without a Redis.
    pub buckets: Option<Arc<dyn SharedBuckets>>,
    /// The bus, with its backend's name.
    pub bus: (String, Arc<dyn EventBus>),
    /// The log of events from outside.
    pub intake: Arc<dyn Intake>,
    /// The log of writes that are acknowledged before the store has them; none where no tier is WriteBehind.
    pub write_log: Option<Arc<dyn EventBus>>,
    /// The Secrets that hold addresses and accounts.
    pub mounted: Vec<Mounted>,
    /// How servers are reached, by the names of their backends.
    pub passages: BTreeMap<String, Passage>,
}

impl Backends {
    /// The cache of a tier, where its keys start so.
    pub fn shared(&self, backend: &str, key_prefix: &str) -> Option<Arc<dyn SharedCache>> {
        match self.owned.get(&(backend.to_owned(), key_prefix.to_owned())) {
            Some(owned) => Some(owned.clone()),
            None => self.caches.get(backend).cloned(),
        }
    }
}

/// The files of a backend and their folder; none where an embedded store stands in for it.
fn files_of(place: &Place, backend: &BackendSettings) -> anyhow::Result<Option<(Files, Folder)>> {
    let BackendSettings { name, secret: _, tls, plaintext, kind: _ } = backend;
    let Place::Backends(dir) = place else { return Ok(None) };
    let passage = Passage::new(name, *plaintext);
    let passage = match tls {
        Some(BackendTls { authorities: Authorities::System }) => {
            let authorities = system_authorities().map_err(|fault| anyhow!("backend {name}: {fault}"))?;
            passage.trusting(&authorities)
        }
        None => passage,
    };
    Ok(Some((Files { dir: dir.join(name), passage }, Folder::of("backends", dir, name))))
}

/// Opens all stores of the settings. Servers need not be up: each connects when it is first used, and again
/// when it was lost.
///
/// # Errors
/// A folder or address that cannot be read. Messages hold no address.
pub async fn stores(
    settings: &Settings,
    place: &Place,
    sealer: &Arc<dyn Sealer>,
    connection_timeout: Option<Span>,
) -> anyhow::Result<Stores> {
    let mut stores = BTreeMap::<String, Arc<dyn RecordStore>>::new();
    let (mut away, mut rooms, mut mounted) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut passages = BTreeMap::new();
    for backend in &settings.backends {
        let BackendSettings { name, secret: _, tls: _, plaintext: _, kind } = backend;
        match kind {
            BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } => {}
            BackendKind::Redis {} | BackendKind::Kafka { .. } => continue,
        }
        let store = match (place, files_of(place, backend)?) {
            (_, Some((files, folder))) => {
                passages.insert(name.clone(), files.passage.clone());
                let (kind, sealer) = (kind.clone(), sealer.clone());
                let declared = DeclaredStore { files, kind, sealer, connection_timeout };
                let (store, rotation) = declared_store(declared, folder).await?;
                mounted.push(rotation);
                store
            }
            (Place::Embedded(dir) | Place::Backends(dir), None) => {
                let file = dir.join(format!("{name}.db"));
                let store = SqlStore::sqlite(&file, sealer.clone())?;
                let store = match kind {
                    // what the same manifests meet on a cluster
                    BackendKind::Mongodb { .. } => store.of_documents(),
                    _ => store,
                };
                Arc::new(ConfinedStore::new(Arc::new(store)))
            }
        };
        away.insert(name.clone(), store.away().clone());
        rooms.insert(name.clone(), store.room().clone());
        stores.insert(name.clone(), store);
    }
    Ok(Stores { stores, away, rooms, mounted, passages })
}

/// Opens all else. Servers need not be up: each part connects when it is first used, and again when it was
/// lost.
///
/// # Errors
/// A folder or address that cannot be read. Messages hold no address.
pub async fn open(
    settings: &Settings,
    place: &Place,
    Stores { stores, away, rooms, mut mounted, mut passages }: Stores,
    clock: &Clock,
    owner: &watch::Sender<Owner>,
) -> anyhow::Result<Backends> {
    let wants_log = settings
        .pools
        .iter()
        .flat_map(|pool| &pool.tiers)
        .any(|tier| tier.write == WriteStrategy::WriteBehind);
    let (mut log, mut buckets) = (None, None::<Arc<dyn SharedBuckets>>);
    let (mut caches, mut owned, mut bus) =
        (BTreeMap::<_, Arc<dyn SharedCache>>::new(), BTreeMap::new(), None);
    for backend in &settings.backends {
        let BackendSettings { name, secret: _, tls: _, plaintext: _, kind } = backend;
        let files = match kind {
            BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } => continue,
            BackendKind::Redis {} | BackendKind::Kafka { .. } => files_of(place, backend)?,
        };
        if let Some((files, _)) = &files {
            passages.insert(name.clone(), files.passage.clone());
        }
        match (kind, files) {
            (BackendKind::Mysql { .. } | BackendKind::Mongodb { .. }, _) => {}
            (BackendKind::Redis {}, Some((files, folder))) => {
                let (cache, rotation) = redis(files, folder, clock)?;
                mounted.push(rotation);
                for prefix in prefixes(settings, name) {
                    let prefixed = OwnedCache::watch(cache.clone(), prefix, owner.subscribe(), clock.clone());
                    owned.insert((name.clone(), prefix.to_owned()), prefixed);
                }
                buckets.get_or_insert_with(|| {
                    Arc::new(RedisBuckets::new(cache.clone(), &rate_prefix(settings, name)))
                });
                caches.insert(name.clone(), cache);
            }
            (BackendKind::Redis {}, None) => {
                caches.insert(name.clone(), Arc::new(LocalShared::new(LOCAL_SHARED_MAX, clock.clone())));
            }
            (BackendKind::Kafka { topic_prefix }, Some((files, folder))) => {
                let kafka = kafka(files, folder, topic_prefix, wants_log, owner)?;
                mounted.push(kafka.mounted);
                log = kafka.write_log;
                bus = Some((name.clone(), kafka.bus, kafka.intake));
            }
            (BackendKind::Kafka { .. }, None) => {}
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
    let write_log = match (wants_log, place, log) {
        (false, ..) => None,
        (true, Place::Embedded(dir), _) => Some(embedded_write_log(dir).await?),
        (true, Place::Backends(_), log) => {
            Some(log.context("write: WriteBehind needs a kafka backend for its log")?)
        }
    };
    let folder = match place {
        Place::Embedded(dir) => Some(dir.clone()),
        Place::Backends(_) => None,
    };
    let bus = (name, events);
    Ok(Backends {
        stores,
        away,
        rooms,
        folder,
        caches,
        owned,
        buckets,
        bus,
        intake,
        write_log,
        mounted,
        passages,
    })
}

/// What the keys of the tiers in a backend start with.
fn prefixes<'a>(settings: &'a Settings, backend: &str) -> BTreeSet<&'a str> {
    let tiers = settings.pools.iter().flat_map(|pool| &pool.tiers);
    tiers
        .filter_map(|tier| match &tier.kind {
            TierKind::Redis { backend: own, key_prefix } if own == backend => Some(key_prefix.as_str()),
            TierKind::Redis { .. } | TierKind::Memory { .. } => None,
        })
        .collect()
}

/// What the keys of callers' buckets start with: as those of a tier there, and the service's name, so that no
/// other service uses them up.
fn rate_prefix(settings: &Settings, backend: &str) -> String {
    format!("{}{}:", prefixes(settings, backend).first().copied().unwrap_or_default(), settings.service)
}

/// The log of write-behind: a file of its own. On Kafka it is a topic of its own.
async fn embedded_write_log(dir: &Path) -> anyhow::Result<Arc<dyn EventBus>> {
    let dir = dir.join("write-behind");
    fs::create_dir_all(&dir).with_context(|| format!("the folder {} cannot be made", dir.display()))?;
    let options = LocalOptions { events_max: u64::MAX >> 1, age_max: LOG_AGE_MAX, ..LocalOptions::default() };
    Ok(Arc::new(LocalBus::open(&dir, options).await?))
}

/// What a declared store is made of.
struct DeclaredStore {
    files: Files,
    kind: BackendKind,
    sealer: Arc<dyn Sealer>,
    connection_timeout: Option<Span>,
}

impl DeclaredStore {
    /// A store by what its Secret holds now.
    async fn open(&self) -> anyhow::Result<Arc<dyn RecordStore>> {
        let Self { files, kind, sealer, connection_timeout } = self;
        Ok(match kind {
            BackendKind::Mongodb { database } => {
                let options = MongoOptions {
                    url: files.url()?,
                    database: database.clone(),
                    ca: files.path("ca.crt"),
                    cert: files.path("tls.crt"),
                    key: files.path("tls.key"),
                    max_connections: MONGODB_CONNECTIONS_MAX,
                    passage: files.passage.clone(),
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
                    passage: files.passage.clone(),
                    acquire_timeout: connection_timeout
                        .map_or(defaults.acquire_timeout, |Span(timeout)| timeout),
                    ..defaults
                };
                Arc::new(SqlStore::mysql(options, sealer.clone())?)
            }
            BackendKind::Redis {} | BackendKind::Kafka { .. } => bail!("not a store"),
        })
    }
}

async fn declared_store(
    declared: DeclaredStore,
    folder: Folder,
) -> anyhow::Result<(Arc<ConfinedStore>, Mounted)> {
    let store = Arc::new(RotatingStore::new(declared.open().await?));
    let confined = Arc::new(ConfinedStore::new(Arc::new(GuardedStore::new(store.clone()))));
    let (declared, rotating, away) = (Arc::new(declared), store, confined.away().clone());
    let mounted = folder.taken_by(move || {
        let (declared, store, away) = (declared.clone(), rotating.clone(), away.clone());
        async move {
            let next = declared.open().await.map_err(|error| format!("{error:#}"))?;
            store.rotate(next).await.map_err(|error| error.to_string())?;
            // a pool may have what it lacked, or lack what it had
            away.suspect();
            Ok(())
        }
    });
    Ok((confined, mounted))
}

fn redis(files: Files, folder: Folder, clock: &Clock) -> anyhow::Result<(Arc<RedisCache>, Mounted)> {
    let cache = Arc::new(
        RedisCache::new(files.redis().map_err(anyhow::Error::msg)?, clock.clone())
            .map_err(anyhow::Error::msg)?,
    );
    let (files, rotating) = (Arc::new(files), cache.clone());
    let mounted = folder.taken_by(move || {
        let (files, cache) = (files.clone(), rotating.clone());
        async move { cache.rotate(files.redis()?).await }
    });
    Ok((cache, mounted))
}

/// What one Kafka serves as.
struct Kafka {
    bus: Arc<dyn EventBus>,
    intake: Arc<dyn Intake>,
    write_log: Option<Arc<dyn EventBus>>,
    mounted: Mounted,
}

fn kafka(
    files: Files,
    folder: Folder,
    topic_prefix: &str,
    wants_log: bool,
    owner: &watch::Sender<Owner>,
) -> anyhow::Result<Kafka> {
    // the bus looks whose its topic is: the log of events has the same prefix, the write-behind log is a bus
    // of its own
    let (claim, log_claim) = (Claim::new(owner.subscribe()), Claim::new(owner.subscribe()));
    let (prefix, log_prefix) = (topic_prefix.to_owned(), format!("{topic_prefix}write-behind."));
    let own_options = move |files: &Files| files.kafka(&prefix, claim.clone());
    let log_options = move |files: &Files| files.kafka(&log_prefix, log_claim.clone());
    let options = own_options(&files)?;
    let intake = Arc::new(KafkaIntake::start(&options)?);
    let log = if wants_log { Some(Arc::new(KafkaBus::start(log_options(&files)?)?)) } else { None };
    let bus = Arc::new(KafkaBus::start(options)?);
    let files = Arc::new(files);
    let (own_intake, own_bus, own_log) = (intake.clone(), bus.clone(), log.clone());
    let mounted = folder.taken_by(move || {
        let options = own_options(&files).and_then(|options| Ok((options, log_options(&files)?)));
        let (intake, bus, log) = (own_intake.clone(), own_bus.clone(), own_log.clone());
        async move {
            let (options, log_options) = options.map_err(|error| format!("{error:#}"))?;
            bus.rotate(options.clone()).await.map_err(|error| error.to_string())?;
            if let Some(log) = log {
                log.rotate(log_options).await.map_err(|error| error.to_string())?;
            }
            // waits for the threads of the library
            let rotated = tokio::task::spawn_blocking(move || intake.rotate(&options)).await;
            rotated.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
    });
    Ok(Kafka { bus, intake, write_log: log.map(|log| log as Arc<dyn EventBus>), mounted })
}

/// The files of one backend's Secret.
struct Files {
    dir: PathBuf,
    passage: Passage,
}

impl Files {
    fn redis(&self) -> Result<RedisConfig, String> {
        let read = |name: &str| {
            self.path(name)
                .map(|path| fs::read(&path).map_err(|error| format!("{name}: {error}")))
                .transpose()
        };
        let client_pem = match (read("tls.crt")?, read("tls.key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => None,
        };
        let url = self.url().map_err(|error| format!("{error:#}"))?;
        let passage = self.passage.clone();
        Ok(RedisConfig { url, ca_pem: read("ca.crt")?, client_pem, deadline: REDIS_DEADLINE, passage })
    }

    fn kafka(&self, topic_prefix: &str, claim: Claim) -> anyhow::Result<KafkaOptions> {
        let mut options = KafkaOptions::new(self.url()?, topic_prefix);
        options.claim = Some(claim);
        options.security = KafkaSecurity::from_folder(&self.dir)?;
        options.by(&self.passage).map_err(anyhow::Error::msg)
    }

    fn url(&self) -> anyhow::Result<String> {
        self.text("url")?.with_context(|| {
            format!(
                "{} is not there: a backend's Secret has its address under the key `url`",
                self.dir.join("url").display()
            )
        })
    }

    fn text(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let path: &Path = &self.dir.join(name);
        path.exists().then(|| path.to_path_buf())
    }
}
