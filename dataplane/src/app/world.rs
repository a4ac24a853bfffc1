//! The parts of a process that do not listen, made from its settings.

use std::{collections::BTreeMap, fs::File, os::unix::fs::DirBuilderExt, sync::Arc};

use anyhow::{Context, bail};
use engine::clock::Clock;
use model::{budget::Budgets, change::Collection};
use runtime::supervisor;
use store::confined::PoolFault;
use tokio::sync::Notify;
use tracing::info;

use super::{
    backends::{self, Backends, Place},
    feed::{self, Followed},
    orders::Orders,
    owner,
    pools::{Builder, Gates, ServedPool, gates},
    rotation::Mounted,
    secrets::Keys,
};
use crate::{
    args::Serve, config::Loaded, http::metrics::HttpMetrics, security::policy::Policies,
    service::factory::Factory,
};

/// The parts of the process that do not listen.
pub struct World {
    /// The time of this process.
    pub clock: Clock,
    /// Stores, caches, bus.
    pub backends: Backends,
    /// Wakes the relay of a store, by the backend.
    pub pokes: BTreeMap<String, Arc<Notify>>,
    /// How many requests are handled at once.
    pub gates: Arc<Gates>,
    /// What requests and answers may hold.
    pub budgets: Budgets,
    /// Who may do what.
    pub policies: Arc<Policies>,
    /// Where metrics are.
    pub registry: prometheus::Registry,
    /// What is served.
    pub pools: Arc<Vec<ServedPool>>,
    /// The pools, as they are managed.
    pub factory: Arc<Factory>,
    /// The pipeline and the dead letters.
    pub orders: Arc<Orders>,
    /// The pools have followed their changes since before anything could fill their tiers.
    pub followed: Followed,
    /// What the stores have to be prepared for, by their backends.
    pub collections: BTreeMap<String, Vec<Arc<Collection>>>,
    /// The Secrets that it was made from.
    pub mounted: Vec<Mounted>,
}

impl World {
    /// Opens all parts. Servers need not be up.
    ///
    /// # Errors
    /// A folder, an address or a key that cannot be read.
    pub async fn open(args: &Serve, place: &Place, loaded: &Loaded) -> anyhow::Result<Self> {
        let (settings, clock) = (&loaded.settings, Clock::system());
        let owner = owner::of(settings);
        let Keys { sealer, signing, webhook, provider, mut mounted } =
            Keys::read(args.security.as_deref(), place, &settings.security)?;
        let stores = backends::stores(settings, place, &sealer).await?;
        let whose = owner.borrow().clone();
        let settings = &owner::named(settings, place, &whose, &stores.stores).await;
        let mut backends = backends::open(settings, place, stores, &clock, &owner).await?;
        owner::follow(&backends.stores, &owner);
        mounted.append(&mut backends.mounted);
        let pokes: BTreeMap<_, Arc<Notify>> =
            backends.stores.keys().map(|name| (name.clone(), Arc::default())).collect();
        let registry = prometheus::Registry::new();
        registry.register(Box::new(supervisor::panics()))?;
        let metrics = HttpMetrics::new(&registry)?;
        let budgets = Budgets::default();
        let gates = Arc::new(gates(backends.stores.keys(), &budgets));
        let policies = Policies::of(&settings.pools);
        let builder = Builder {
            settings,
            group: args.group.as_deref(),
            backends: &backends,
            pokes: &pokes,
            sealer: &sealer,
            clock: &clock,
            metrics: &metrics,
            gates: &gates,
            policies: &policies,
        };
        let pools = Arc::new(builder.build()?);
        let followed = feed::follow(&backends.bus.1, pools.clone());
        let made = pools.iter().map(|pool| (pool.resource.records.clone(), pool.behind.clone()));
        let factory = Arc::new(Factory::new(made));
        let letterbox = builder.letterbox()?;
        let mut collections = collections(&pools);
        collections.entry(letterbox.backend.clone()).or_default().push(letterbox.collection.clone());
        let orders =
            Arc::new(Orders::build(&builder, &pools, letterbox, (signing, webhook, provider), &registry)?);
        Ok(Self {
            clock,
            backends,
            pokes,
            gates,
            budgets,
            policies,
            registry,
            pools,
            factory,
            orders,
            followed,
            collections,
            mounted,
        })
    }

    /// Prepares the stores for what is served.
    ///
    /// # Errors
    /// A store cannot be prepared, or a table of our own cannot.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        for (name, collections) in &self.collections {
            if let Some(store) = self.backends.stores.get(name) {
                let faults =
                    store.prepare_each(collections).await.with_context(|| format!("backend {name}"))?;
                // A declared table is its owner's: what it lacks keeps no other pool from a new version. A
                // table of our own that cannot be changed does.
                for collection in collections.iter().filter(|collection| !collection.declared) {
                    if let Some(PoolFault { message, .. }) = faults.get(&collection.pool) {
                        bail!("backend {name}: pool {}: {message}", collection.pool);
                    }
                }
                info!(backend = name, "prepared");
            }
        }
        Ok(())
    }
}

/// The collections of each store.
fn collections(pools: &[ServedPool]) -> BTreeMap<String, Vec<Arc<Collection>>> {
    let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for pool in pools {
        all.entry(pool.backend.clone()).or_default().push(pool.collection.clone());
    }
    all
}

/// Where the data is. A data folder is made where there is none.
///
/// # Errors
/// It cannot be made, or the arguments do not say.
pub fn place(args: &Serve) -> anyhow::Result<Place> {
    match (&args.data_dir, &args.backends) {
        (Some(dir), _) => {
            // what is made here is its owner's alone; a folder that is there already has the rights that it
            // was given
            let mut made = std::fs::DirBuilder::new();
            made.recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("the data folder {} cannot be made", dir.display()))?;
            Ok(Place::Embedded(dir.clone()))
        }
        (None, Some(dir)) => Ok(Place::Backends(dir.clone())),
        (None, None) => bail!("say where the data is: --data-dir or --backends"),
    }
}

/// One process serves a data folder: SQLite would let two in, but each would miss what the other changes.
pub fn lock(place: &Place) -> anyhow::Result<Option<File>> {
    let Place::Embedded(dir) = place else { return Ok(None) };
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    if file.try_lock().is_err() {
        bail!(
            "the data folder {} is in use by another process: stop it, or choose another folder",
            dir.display()
        );
    }
    Ok(Some(file))
}

#[cfg(test)]
impl World {
    /// The parts of a process that serves the samples from a folder.
    pub async fn embedded(folder: &std::path::Path) -> Self {
        use clap::Parser;
        // the first one stays, as in main
        _ = rustls::crypto::ring::default_provider().install_default();
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/samples");
        let args =
            ["flyweight-dataplane", "serve", "--manifests", samples, "--data-dir", folder.to_str().unwrap()];
        let crate::args::Command::Serve(args) = crate::args::Args::parse_from(args).command else {
            unreachable!()
        };
        let loaded = args.source.source().load().unwrap();
        Self::open(&args, &place(&args).unwrap(), &loaded).await.unwrap()
    }
}
