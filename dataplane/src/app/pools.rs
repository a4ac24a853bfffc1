//! Builds the pools that this process serves: schema, store, tiers, records and routes of each.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use crds::{
    pool::Entity,
    settings::{BackendKind, PoolSettings, Settings, SourceSettings, TierKind, TierSettings},
    tier::WriteStrategy,
};
use tokio::sync::Notify;
use tracing::warn;

use super::{
    backends::Backends,
    tiers::{self, tier_config},
};
use crate::{
    http::{
        gate::Gate,
        metrics::HttpMetrics,
        pool::{Pool, Source, path_of, upserts},
        resource::Resource,
    },
    security::policy::Policies,
    service::{
        orders::{self, Catalogue},
        payments::PaymentKeeper,
        records::{Records, Wake},
        write_behind::{WAITING_MAX, WriteBehind, WriteBehindConfig},
    },
};
use engine::{
    clock::Clock,
    memory::{MemoryConfig, MemoryTier, PoolConfig, PoolId},
    tiered::{Backing, Tiered, TieredConfig, lifetime},
};
use model::{budget::Budgets, change::Collection, dead_letter, routes, schema::Schema, seal::Sealer};
use store::{RecordStore, confined::Away};

/// The pool of dead letters: a name that no resource can have.
const LETTERS_POOL: &str = "_dead_letters";

/// How long a call of a store may take.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a read waits for the version that it asks for.
const NOT_YET_DEADLINE: Duration = Duration::from_millis(500);

/// Requests of one backend that are handled at once; more are answered with 503.
const REQUESTS_MAX: usize = 4_096;

/// How long the body of a request may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// A pool with all its parts.
pub struct ServedPool {
    /// The pool's name.
    pub name: String,
    /// The kind of entity.
    pub entity: Entity,
    /// The entity in events.
    pub entity_name: String,
    /// The backend of its records.
    pub backend: String,
    /// The type of that backend: `mysql` or `mongodb`.
    pub repository: &'static str,
    /// Its table or collection.
    pub collection: Arc<Collection>,
    /// Its tiers.
    pub tiered: Arc<Tiered>,
    /// Those in memory: the tier's name, the tier, and the pool's place in it.
    pub memory: Vec<(String, Arc<MemoryTier>, PoolId)>,
    /// Its records as the API serves them.
    pub resource: Arc<Resource>,
    /// Its store behind a log, where writes go through one first.
    pub behind: Option<Arc<WriteBehind>>,
}

/// What all pools are built from.
pub struct Builder<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The replica group whose pools are served; none serves all.
    pub group: Option<&'a str>,
    /// The stores and caches.
    pub backends: &'a Backends,
    /// Wakes the relay of each store.
    pub pokes: &'a BTreeMap<String, Arc<Notify>>,
    /// Encrypts fields.
    pub sealer: &'a Arc<dyn Sealer>,
    /// The time.
    pub clock: &'a Clock,
    /// Where the metrics of requests are.
    pub metrics: &'a HttpMetrics,
    /// Bounds the requests that are handled at once.
    pub gates: &'a Gates,
    /// What the pools allow, and to whom.
    pub policies: &'a Arc<Policies>,
}

/// The gates of a process, by the backends of what they guard: requests that wait for one take no places from
/// others.
pub type Gates = BTreeMap<String, Arc<Gate>>;

/// Where dead letters are kept.
pub struct Letterbox {
    /// The backend.
    pub backend: String,
    /// The collection.
    pub collection: Arc<Collection>,
    /// The letters as the API serves them.
    pub resource: Arc<Resource>,
}

/// Gates before these backends, which share what requests and answers may hold.
pub fn gates<'a>(backends: impl Iterator<Item = &'a String>, budgets: &Budgets) -> Gates {
    let gate = || Arc::new(Gate::new(REQUESTS_MAX, BODY_DEADLINE, budgets.clone()));
    backends.map(|name| (name.clone(), gate())).collect()
}

/// The parts of a pool below its records.
struct Parts {
    collection: Arc<Collection>,
    tiered: Arc<Tiered>,
    memory: Vec<(String, Arc<MemoryTier>, PoolId)>,
    records: Records,
    behind: Option<Arc<WriteBehind>>,
}

impl Builder<'_> {
    /// Builds the pools of the group.
    ///
    /// # Errors
    /// The group is not one of the service, or a backend of a pool is not there.
    pub fn build(&self) -> anyhow::Result<Vec<ServedPool>> {
        let memory = memory_tiers(&self.settings.pools);
        // Products first, wherever the service names them: orders take their prices from them.
        let mut served = self.served()?;
        served.sort_by_key(|pool| pool.entity != Entity::Product);
        let mut products = None;
        let mut pools = Vec::with_capacity(served.len());
        for pool in served {
            let Parts { collection, tiered, memory, mut records, behind } = self.parts(pool, &memory)?;
            if pool.entity == Entity::Order {
                if products.is_none() {
                    products = self.unserved(Entity::Product)?;
                }
                let catalogue = products.clone().map(|products| {
                    let policy = self.policies.of_pool(&products.collection().pool);
                    Catalogue { products, policy }
                });
                let clock = records.clock().clone();
                records = records.completed_by(orders::pricing(collection.schema.clone(), catalogue, clock));
            }
            let records = Arc::new(records);
            if pool.entity == Entity::Product {
                products = Some(records.clone());
            }
            let policy = self.policies.of_pool(&pool.name);
            let path = path_of(pool.entity, &pool.name);
            let metrics = self.metrics.of_pool(&pool.name);
            let gate = self.gate(&pool.source.backend)?;
            let resource = Resource::new(records, path, upserts(pool.entity), policy, gate, metrics)
                .confined_by(self.away(&pool.source.backend));
            pools.push(ServedPool {
                name: pool.name.clone(),
                entity: pool.entity,
                entity_name: collection.schema.entity.clone(),
                backend: pool.source.backend.clone(),
                repository: self.repository(&pool.source.backend),
                collection,
                tiered,
                memory,
                resource: Arc::new(resource),
                behind,
            });
        }
        self.keep_payments(&pools)?;
        Ok(pools)
    }

    /// Lets changes of payments be judged by what their orders are at.
    fn keep_payments(&self, pools: &[ServedPool]) -> anyhow::Result<()> {
        let of = |entity| {
            pools.iter().find(|pool| pool.entity == entity).map(|pool| pool.resource.records.clone())
        };
        let Some(payments) = of(Entity::Payment) else { return Ok(()) };
        let orders =
            of(Entity::Order).map_or_else(|| self.unserved(Entity::Order), |orders| Ok(Some(orders)))?;
        let schema = payments.collection().schema.clone();
        payments.keep(Arc::new(PaymentKeeper { payments: schema, orders }));
        Ok(())
    }

    /// The records of an entity that another group serves: without tiers, for behaviour that needs them here.
    ///
    /// # Errors
    /// The pool's backend is not there.
    pub fn unserved(&self, entity: Entity) -> anyhow::Result<Option<Arc<Records>>> {
        let Some(pool) = self.settings.pools.iter().find(|pool| pool.entity == entity) else {
            return Ok(None);
        };
        let pool = PoolSettings { tiers: Vec::new(), ..pool.clone() };
        Ok(Some(Arc::new(self.parts(&pool, &BTreeMap::new())?.records)))
    }

    /// The place of dead letters: beside the orders, or else in the first store. Who may read and write
    /// orders may so here.
    ///
    /// # Errors
    /// There is no store.
    pub fn letterbox(&self) -> anyhow::Result<Letterbox> {
        let pools = &self.settings.pools;
        let orders = pools.iter().find(|pool| pool.entity == Entity::Order).or(pools.first());
        let orders = orders.context("the service has no pools")?;
        let schema = Arc::new(dead_letter::schema());
        let source = SourceSettings {
            backend: orders.source.backend.clone(),
            collection: schema.collection.clone(),
            key: schema.key.clone(),
            version: Some("version".to_owned()),
        };
        // any entity of the store's own will do
        let entity = Entity::Order;
        let pool = PoolSettings {
            source,
            entity,
            tiers: Vec::new(),
            name: LETTERS_POOL.to_owned(),
            ..orders.clone()
        };
        let Parts { collection, records, .. } = self.parts_of(&pool, schema, &BTreeMap::new())?;
        let metrics = self.metrics.of_pool("dead-letters");
        let path = routes::LETTERS.path.to_owned();
        let gate = self.gate(&pool.source.backend)?;
        let policy = self.policies.of_pool(&orders.name);
        let resource = Resource::new(Arc::new(records), path, false, policy, gate, metrics)
            .confined_by(self.away(&pool.source.backend));
        Ok(Letterbox { backend: pool.source.backend, collection, resource: Arc::new(resource) })
    }

    fn gate(&self, backend: &str) -> anyhow::Result<Arc<Gate>> {
        self.gates.get(backend).cloned().with_context(|| format!("{backend} is no store"))
    }

    fn away(&self, backend: &str) -> Arc<Away> {
        self.backends.away.get(backend).cloned().unwrap_or_default()
    }

    fn repository(&self, backend: &str) -> &'static str {
        let settings = self.settings.backends.iter().find(|settings| settings.name == backend);
        match settings.map(|settings| &settings.kind) {
            Some(BackendKind::Mongodb { .. }) => "mongodb",
            _ => "mysql",
        }
    }

    /// The pools of the group, or of the service.
    fn served(&self) -> anyhow::Result<Vec<&PoolSettings>> {
        let Some(name) = self.group else { return Ok(self.settings.pools.iter().collect()) };
        let group = self.settings.groups.iter().find(|group| group.name == name);
        let group = group.with_context(|| format!("the service has no replica group {name}"))?;
        Ok(self.settings.pools.iter().filter(|pool| group.pools.contains(&pool.name)).collect())
    }

    fn parts(&self, pool: &PoolSettings, tiers: &BTreeMap<String, Arc<MemoryTier>>) -> anyhow::Result<Parts> {
        self.parts_of(pool, Arc::new(crds::schema::of_pool(pool)), tiers)
    }

    fn parts_of(
        &self,
        pool: &PoolSettings,
        schema: Arc<Schema>,
        tiers: &BTreeMap<String, Arc<MemoryTier>>,
    ) -> anyhow::Result<Parts> {
        let backend = &pool.source.backend;
        let missing = || format!("pool {}: there is no backend {backend}", pool.name);
        let store = self.backends.stores.get(backend).with_context(missing)?.clone();
        let poke = self.pokes.get(backend).with_context(missing)?.clone();
        let collection = Arc::new(Collection {
            pool: pool.name.clone(),
            schema: schema.clone(),
            name: pool.source.collection.clone(),
            key_column: pool.source.key.clone(),
            version_column: pool.source.version.clone(),
            declared: pool.entity == Entity::Custom,
        });
        let (mut memory, mut backings) = (Vec::new(), Vec::new());
        for tier in &pool.tiers {
            let backing = match &tier.kind {
                TierKind::Memory { .. } => {
                    let shared =
                        tiers.get(&tier.name).with_context(|| format!("there is no tier {}", tier.name))?;
                    let id = shared.register(schema.clone(), pool_config(pool, tier))?;
                    memory.push((tier.name.clone(), shared.clone(), id));
                    Backing::Memory(shared.clone(), id)
                }
                TierKind::Redis { backend, key_prefix } => {
                    let cache = self.backends.shared(backend, key_prefix);
                    Backing::Shared(
                        cache
                            .with_context(|| format!("tier {}: there is no backend {backend}", tier.name))?,
                    )
                }
            };
            backings.push((tier_config(tier), backing));
        }
        let sealed = schema.fields.iter().any(|field| field.encrypted);
        let tiered = Arc::new(Tiered::new(TieredConfig {
            pool: pool.name.clone(),
            schema,
            tiers: backings,
            sealer: sealed.then(|| self.sealer.clone()),
            clock: self.clock.clone(),
            load_deadline: STORE_DEADLINE,
            not_yet_deadline: NOT_YET_DEADLINE,
        }));
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || poke.notify_one());
        let behind = self.write_behind(pool, &collection, &store, &wake);
        let store = behind.clone().map_or(store, |behind| behind as Arc<dyn RecordStore>);
        let records = Records::new(collection.clone(), store, tiered.clone(), STORE_DEADLINE, wake);
        Ok(Parts { collection, tiered, memory, records, behind })
    }

    /// The store behind its log, where a tier of the pool says so.
    fn write_behind(
        &self,
        pool: &PoolSettings,
        collection: &Arc<Collection>,
        store: &Arc<dyn RecordStore>,
        wake: &Wake,
    ) -> Option<Arc<WriteBehind>> {
        let log = self.backends.write_log.clone()?;
        pool.tiers.iter().any(|tier| tier.write == WriteStrategy::WriteBehind).then(|| {
            Arc::new(WriteBehind::new(WriteBehindConfig {
                inner: store.clone(),
                collection: collection.clone(),
                log,
                sealer: self.sealer.clone(),
                wake: wake.clone(),
                waiting_max: WAITING_MAX,
            }))
        })
    }
}

impl ServedPool {
    /// The pool as the router takes it.
    pub fn routed(&self) -> Pool {
        let source = Source { kind: self.repository, backend: self.backend.clone() };
        Pool { entity: self.entity, resource: self.resource.clone(), source }
    }

    /// Takes what is hot in new settings, but for the policy.
    pub fn apply(&self, settings: &PoolSettings) {
        if let Err(error) = self.tiered.apply(&settings.tiers.iter().map(tier_config).collect::<Vec<_>>()) {
            warn!(pool = self.name, error, "the tiers keep their settings");
            return;
        }
        for (name, tier, id) in &self.memory {
            let Some(wanted) = settings.tiers.iter().find(|tier| tier.name == *name) else { continue };
            tier.configure(*id, pool_config(settings, wanted));
            if let TierKind::Memory { max_bytes, .. } = &wanted.kind {
                tier.resize(max_bytes.0);
            }
        }
    }
}

/// One memory tier for each name, whichever pools share it.
fn memory_tiers(pools: &[PoolSettings]) -> BTreeMap<String, Arc<MemoryTier>> {
    let mut tiers = BTreeMap::new();
    for tier in pools.iter().flat_map(|pool| &pool.tiers) {
        if let TierKind::Memory { max_bytes, policy } = &tier.kind {
            // A seed of its own for each process: nobody outside can choose keys that collide.
            let seed = RandomState::new().hash_one(&tier.name);
            let config =
                MemoryConfig { max_bytes: max_bytes.0, policy: tiers::policy(*policy), shards: 0, seed };
            tiers.entry(tier.name.clone()).or_insert_with(|| Arc::new(MemoryTier::new(config)));
        }
    }
    tiers
}

fn pool_config(pool: &PoolSettings, tier: &TierSettings) -> PoolConfig {
    let idle_after_ms = u64::try_from(pool.cleanup.idle_after.0.as_millis()).unwrap_or(u64::MAX);
    PoolConfig { capacity: pool.capacity, idle_after_ms, lifetime: lifetime(&tier_config(tier)) }
}
