//! Opens the declared stores, caches and brokers, or the embedded ones that stand in for them on a laptop.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use crds::{
    settings::{BackendKind, BackendSettings, Settings},
    tier::WriteStrategy,
};
use engine::{
    clock::Clock,
    shared::{LocalShared, SharedCache},
};
use events::{
    EventBus,
    intake::{Intake, local::LocalIntake},
    local::{LocalBus, LocalOptions},
};
use model::{passage::Passage, seal::Sealer};
use runtime::owner::Owner;
use store::{
    RecordStore,
    confined::{Away, ConfinedStore},
    room::Room,
    sql::SqlStore,
};
use tokio::sync::watch;
#[cfg(feature = "redis")]
use {
    super::rates::RedisBuckets, crds::settings::TierKind, shared_tier::owned::OwnedCache,
    std::collections::BTreeSet,
};

use super::rotation::{Folder, Mounted};
use crate::{security::limits::SharedBuckets, service::write_behind::LOG_AGE_MAX};

mod files;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "redis")]
mod redis;
mod stored;
mod stores;

use files::{Files, files_of};
use stored::stored;
use stores::{DeclaredStore, declared_store};

/// What the in-process stand-in for a Redis keeps at most, in bytes.
const LOCAL_SHARED_MAX: usize = 64 << 20;

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
    pub owned: BTreeMap<(String, String), Arc<dyn SharedCache>>,
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

/// Opens all stores of the settings. Servers need not be up: each connects when it is first used, and again
/// when it was lost.
///
/// # Errors
/// A folder or address that cannot be read. Messages hold no address.
pub async fn stores(settings: &Settings, place: &Place, sealer: &Arc<dyn Sealer>) -> anyhow::Result<Stores> {
    let connection_timeout = settings.limits.connection_timeout;
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

/// What a broker serves as, or what stands in for one.
struct Logs {
    /// The bus, with its name.
    bus: (String, Arc<dyn EventBus>),
    intake: Arc<dyn Intake>,
    write_log: Option<Arc<dyn EventBus>>,
}

/// The shared caches of a service, while they are opened.
#[derive(Default)]
struct Caches {
    by_name: BTreeMap<String, Arc<dyn SharedCache>>,
    owned: BTreeMap<(String, String), Arc<dyn SharedCache>>,
    buckets: Option<Arc<dyn SharedBuckets>>,
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
    let mut tiers = settings.pools.iter().flat_map(|pool| &pool.tiers);
    let wants_log = tiers.any(|tier| tier.write == WriteStrategy::WriteBehind);
    let (mut caches, mut broker) = (Caches::default(), None);
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
            (BackendKind::Redis {}, Some(files)) => {
                mounted.push(caches.add_redis(name, files, settings, clock, owner)?);
            }
            (BackendKind::Redis {}, None) => {
                let local = Arc::new(LocalShared::new(LOCAL_SHARED_MAX, clock.clone()));
                caches.by_name.insert(name.clone(), local);
            }
            (BackendKind::Kafka { topic_prefix }, Some(files)) => {
                let (logs, own) = brokered(name, files, topic_prefix, wants_log, owner)?;
                mounted.push(own);
                broker = Some(logs);
            }
            (BackendKind::Kafka { .. }, None) => {}
        }
    }
    let folder = match place {
        Place::Embedded(dir) => Some(dir.clone()),
        Place::Backends(_) => None,
    };
    let Logs { bus, intake, write_log } = match (broker, &folder) {
        (Some(logs), _) => logs,
        (None, Some(dir)) => embedded(dir, wants_log).await?,
        (None, None) => stored(settings, &stores, &owner.borrow().clone(), wants_log)?,
    };
    let Caches { by_name: caches, owned, buckets } = caches;
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

impl Caches {
    /// Adds a Redis, with each prefix of its tiers.
    #[cfg(feature = "redis")]
    fn add_redis(
        &mut self,
        name: &str,
        (files, folder): (Files, Folder),
        settings: &Settings,
        clock: &Clock,
        owner: &watch::Sender<Owner>,
    ) -> anyhow::Result<Mounted> {
        let (cache, rotation) = redis::redis(files, folder, clock)?;
        for prefix in prefixes(settings, name) {
            let prefixed = OwnedCache::watch(cache.clone(), prefix, owner.subscribe(), clock.clone());
            self.owned.insert((name.to_owned(), prefix.to_owned()), prefixed);
        }
        let prefix = rate_prefix(settings, name);
        self.buckets.get_or_insert_with(|| Arc::new(RedisBuckets::new(cache.clone(), &prefix)));
        self.by_name.insert(name.to_owned(), cache);
        Ok(rotation)
    }

    #[cfg(not(feature = "redis"))]
    fn add_redis(
        &mut self,
        _: &str,
        _: (Files, Folder),
        _: &Settings,
        _: &Clock,
        _: &watch::Sender<Owner>,
    ) -> anyhow::Result<Mounted> {
        left_out("redis")
    }
}

fn brokered(
    name: &str,
    (files, folder): (Files, Folder),
    topic_prefix: &str,
    wants_log: bool,
    owner: &watch::Sender<Owner>,
) -> anyhow::Result<(Logs, Mounted)> {
    #[cfg(feature = "kafka")]
    let brokered = kafka::kafka(name, files, folder, topic_prefix, wants_log, owner);
    #[cfg(not(feature = "kafka"))]
    let brokered = {
        _ = (name, files, folder, topic_prefix, wants_log, owner);
        left_out("kafka")
    };
    brokered
}

/// This program was built without what a backend needs.
#[cfg(not(all(feature = "mysql", feature = "mongodb", feature = "redis", feature = "kafka")))]
fn left_out<T>(feature: &str) -> anyhow::Result<T> {
    anyhow::bail!(
        "this program was built without {feature}: build it with its default features, or take a released one, \
         which has all back ends"
    )
}

/// What the keys of the tiers in a backend start with.
#[cfg(feature = "redis")]
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
#[cfg(feature = "redis")]
fn rate_prefix(settings: &Settings, backend: &str) -> String {
    format!("{}{}:", prefixes(settings, backend).first().copied().unwrap_or_default(), settings.service)
}

/// The embedded bus and logs.
async fn embedded(dir: &Path, wants_log: bool) -> anyhow::Result<Logs> {
    let bus: Arc<dyn EventBus> = Arc::new(LocalBus::open(dir, LocalOptions::default()).await?);
    let write_log = if wants_log { Some(embedded_write_log(dir).await?) } else { None };
    let intake = Arc::new(LocalIntake::open(dir).await?);
    Ok(Logs { bus: ("events".to_owned(), bus), intake, write_log })
}

/// The log of write-behind: a file of its own. On Kafka it is a topic of its own.
async fn embedded_write_log(dir: &Path) -> anyhow::Result<Arc<dyn EventBus>> {
    let dir = dir.join("write-behind");
    fs::create_dir_all(&dir).with_context(|| format!("the folder {} cannot be made", dir.display()))?;
    let options = LocalOptions { events_max: u64::MAX >> 1, age_max: LOG_AGE_MAX, ..LocalOptions::default() };
    Ok(Arc::new(LocalBus::open(&dir, options).await?))
}
