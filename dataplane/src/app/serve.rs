//! `serve`: from settings to a listening data plane, and down again.

use std::{
    collections::BTreeMap, fs::File, io::IsTerminal, net::SocketAddr, os::unix::fs::DirBuilderExt, sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use crds::{service::messaging::WebSocket, settings::Settings};
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use super::{
    admin,
    backends::{self, Backends, Place},
    feed::{self, Followed},
    figures::{self, Figures},
    hot,
    ingest::Ingestion,
    load::Load,
    memory,
    monitor::{self, Checks},
    orders::Orders,
    overview::{Overview, OverviewParts},
    owner,
    pools::{Builder, Gates, ServedPool, gates},
    rotation::{self, Mounted},
    secrets::{self, Keys},
    upkeep, warm_up,
};
use crate::{
    args::Serve,
    config::Loaded,
    http::{
        direct::Routes,
        guard::Guard,
        health::{Health, Unavailable},
        live::{self, Live, LiveParts, catalogue::LiveEntity},
        metrics::HttpMetrics,
        refusals::Refusals,
        router::{self, Api},
        tickets::Tickets,
    },
    security::policy::Policies,
    server::{
        self,
        apart::{Pulse, serve_apart},
    },
    service::{factory::Factory, ingest::queue::IngestQueue, staleness},
    telemetry,
};
use engine::clock::Clock;
use events::relay::{Relay, RelayMeter, RelayOptions};
use model::{budget::Budgets, change::Collection};
use runtime::{shutdown::Shutdown, supervisor};
use store::confined::{Away, PoolFault};

/// How long relays may take to give up their claims at the end.
const RELAY_GRACE: Duration = Duration::from_secs(5);

/// Serves until the process is told to stop and what was under way has ended.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(args: Serve) -> anyhow::Result<()> {
    let source = args.source.source();
    let loaded = source.load()?;
    let log = telemetry::start(args.listen.log_format, loaded.settings.observability.log_level);
    let place = place(&args)?;
    let lock = lock(&place)?;
    let shutdown = Shutdown::on_signal(args.listen.drain_delay.0, args.listen.grace_period.0)
        .context("signals cannot be handled")?;
    let (listener, admin) = super::listen(&args.listen)?;
    let addrs = (listener.local_addr()?, admin.local_addr()?);

    let tokens = secrets::tokens(args.security.as_deref(), &loaded.settings.security);
    let opened = tokio::select! {
        opened = World::open(&args, &place, &loaded) => opened,
        // told to stop while a database was waited for
        () = shutdown.stopped() => return Ok(()),
    };
    let mut world = opened?;
    let mut mounted = std::mem::take(&mut world.mounted);
    let group = args.group.clone();
    let settings = source.watch(loaded);
    let declared = settings.borrow().settings.pools.clone();
    let (factory, bus) = (world.factory.clone(), world.backends.bus.1.clone());
    let behind = world
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.clone(), pool.behind.clone()?)))
        .collect::<Vec<_>>();
    let unavailable = unavailable(&world.backends.away);
    let is_away = {
        let unavailable = unavailable.clone();
        move |pool: &str| unavailable().contains_key(pool)
    };
    let warm_up = warm_up::run(&world.followed, declared.clone(), behind, factory, bus, is_away);
    let Backends { stores, away, .. } = &world.backends;
    let monitor::Readiness { unready, prepared } =
        monitor::watch_readiness(stores, &world.collections, away, shutdown.clone(), warm_up);
    let checks = monitor::watch_parts(&world.backends).await;
    // nobody else can have the data folder
    let owner = args.data_dir.as_ref().map(|_| "embedded".to_owned());
    let relays = Relays::start(&world, &prepared, &RelayOptions { owner, ..RelayOptions::default() });
    let refusals = Refusals::new(&world.registry)?;
    let tickets = tickets(&world);
    let guard = {
        let settings = &settings.borrow().settings;
        Guard::new(args.security.as_deref(), settings, tickets.clone(), shutdown.clone(), refusals)?
    };
    if let Some(buckets) = &world.backends.buckets {
        guard.share_rates(buckets.clone());
    }
    let guard = Arc::new(guard);
    if let (Some(folder), Some(dir)) = (tokens, &args.security) {
        mounted.push(secrets::follow_tokens(folder, dir, &guard));
    }
    let identity = secrets::identity(args.security.as_deref(), &settings.borrow().settings.security, None)?;
    let tls = identity.as_ref().map(|(identity, _)| identity.acceptor()).transpose()?;
    mounted.extend(identity.map(|(_, own)| own));
    let ingestion = Ingestion::of(&world, &settings.borrow().settings.ingest)?;
    let queue = ingestion.as_ref().map(|ingestion| ingestion.queue.clone());
    let load = Arc::new(Load::new(world.pools.clone(), world.orders.clone(), queue.clone()));
    let figures = Arc::new(Figures::new(figures::Parts {
        registry: world.registry.clone(),
        pools: world.pools.clone(),
        factory: world.factory.clone(),
        relays: relays.meters.clone(),
        checks: checks.clone(),
        unready: unready.clone(),
        settings: settings.clone(),
        group,
        secrets: rotation::follow(mounted),
        load: load.clone(),
        unavailable: Box::new(unavailable.clone()),
        budgets: world.budgets.clone(),
    })?);
    supervisor::LOAD.spawn(move || {
        let load = load.clone();
        async move { load.follow().await }
    });
    let closing = CancellationToken::new();
    let (live_options, live) = live_feed(&world, &settings.borrow().settings, checks.clone(), &closing)?;
    let overview = Overview::new(OverviewParts {
        pools: world.pools.clone(),
        relays: relays.meters.clone(),
        checks: checks.clone(),
        settings: settings.clone(),
        live: live.clone(),
    });
    let queues = queues(relays.meters.clone(), queue);
    let served = served(&world.pools)?;
    let news = (checks, unready.clone(), Box::new(unavailable) as Unavailable);
    let rates = guard.clone();
    let rates_are_shared = Box::new(move || rates.rates_are_shared());
    let health = health(news, served, figures.clone(), overview, queues);
    let health = Arc::new(Health { rates_are_shared, ..health });
    for (name, store) in &world.backends.stores {
        let (name, store, settings) = (name.clone(), store.clone(), settings.clone());
        supervisor::UPKEEP.spawn(move || {
            let retention = audit_retention(settings.clone());
            upkeep::prune_for_ever(name.clone(), store.clone(), upkeep::INTERVAL, retention)
        });
    }
    let factory = world.factory.clone();
    supervisor::STALENESS.spawn(move || {
        let factory = factory.clone();
        async move { factory.audit(staleness::INTERVAL).await }
    });
    let factory = world.factory.clone();
    supervisor::POPULAR.spawn(move || warm_up::tell_for_ever(declared.clone(), factory.clone()));
    if let Some(ingestion) = &ingestion {
        ingestion.start(prepared.clone(), settings.clone());
    }
    if let Some(limit) = settings.borrow().limits.memory_max {
        let held = (world.gates.clone(), world.budgets.clone());
        let (settings, pools) = (settings.clone(), world.pools.clone());
        supervisor::MEMORY
            .spawn(move || memory::watch(limit.0, settings.clone(), pools.clone(), held.clone()));
    }
    let idle = (settings.clone(), world.pools.clone(), world.clock.clone());
    supervisor::CLEAN_UP.spawn(move || hot::clean_up(idle.0.clone(), idle.1.clone(), idle.2.clone()));
    let orders = world.orders.clone();
    orders.start(world.backends.bus.1.clone(), args.data_dir.is_some(), prepared);
    let policies = world.policies.clone();
    supervisor::SETTINGS.spawn(hot::follow(
        settings,
        policies,
        world.pools.clone(),
        guard.clone(),
        log,
        move |loaded| {
            orders.apply(&loaded.settings);
            live_options.send_replace(loaded.settings.web_socket.clone());
        },
    ));

    let pools = world.pools.iter().map(ServedPool::routed).collect();
    let ingress = ingestion.as_ref().map(Ingestion::ingress);
    let letters = Some(world.orders.letters_resource());
    let api =
        Api { pools, letters, ingress, tickets, health: health.clone(), factory: world.factory.clone() };
    let routes = router::router(&api, live::routes(live).merge(world.orders.routes()));
    let routes = guard.around(Routes::new(&api, routes));
    serve_apart(admin, admin::routes(health, figures, Pulse::start())).context("the admin port")?;
    let serving = tokio::spawn(server::serve(listener, tls, routes, async move {
        shutdown.stopped().await;
        closing.cancel();
    }));
    supervisor::ANNOUNCEMENT.spawn(announce(unready, addrs, args.data_dir.is_some()));
    serving.await.context("the listener failed")?;
    let ingested = async {
        if let Some(ingestion) = &ingestion {
            ingestion.stop().await;
        }
    };
    tokio::join!(ingested, world.orders.finish());
    relays.stop().await;
    info!("stopped");
    // what this holds of servers may wait for them when it goes
    tokio::task::spawn_blocking(move || drop((world, ingestion, lock)));
    Ok(())
}

/// How long entries of the audit are kept, as the settings say at the time; none keeps all.
fn audit_retention(settings: watch::Receiver<Arc<Loaded>>) -> impl Fn() -> Option<Duration> + Send + 'static {
    move || settings.borrow().settings.audit.retention.map(|span| span.0)
}

/// The names of the pools, with commas between them.
fn served(pools: &[ServedPool]) -> anyhow::Result<HeaderValue> {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    HeaderValue::try_from(names.join(",")).context("the names of the pools")
}

/// Tells which pools are away, over all stores.
fn unavailable(
    away: &BTreeMap<String, Arc<Away>>,
) -> impl Fn() -> BTreeMap<String, PoolFault> + Clone + use<> {
    let all: Vec<Arc<Away>> = away.values().cloned().collect();
    move || all.iter().filter(|away| away.any()).flat_map(|away| away.all()).collect()
}

/// What the process says of itself.
fn health(
    (checks, unready, unavailable): (Checks, watch::Receiver<Option<String>>, Unavailable),
    served: HeaderValue,
    figures: Arc<Figures>,
    overview: Overview,
    queues: impl Fn() -> serde_json::Value + Send + Sync + 'static,
) -> Health {
    let (factory, figures) = (Box::new(move || figures.factory()), Box::new(move || overview.read()));
    let (queues, rates_are_shared) = (Box::new(queues), Box::new(|| None));
    Health { checks, unready, unavailable, served, factory, figures, queues, rates_are_shared }
}

/// Prepares the stores, and ends.
///
/// # Errors
/// A store cannot be prepared.
pub async fn migrate(args: Serve) -> anyhow::Result<()> {
    let loaded = args.source.source().load()?;
    telemetry::start(args.listen.log_format, loaded.settings.observability.log_level);
    let place = place(&args)?;
    let _lock = lock(&place)?;
    let world = World::open(&args, &place, &loaded).await?;
    for (name, collections) in &world.collections {
        if let Some(store) = world.backends.stores.get(name) {
            let faults = store.prepare_each(collections).await.with_context(|| format!("backend {name}"))?;
            // A declared table is its owner's: what it lacks keeps no other pool from a new version. A table
            // of our own that cannot be changed does.
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

/// The parts of the process that do not listen.
pub struct World {
    clock: Clock,
    /// Stores, caches, bus.
    pub backends: Backends,
    pokes: BTreeMap<String, Arc<Notify>>,
    gates: Arc<Gates>,
    /// What requests and answers may hold.
    budgets: Budgets,
    policies: Arc<Policies>,
    /// Where metrics are.
    pub registry: prometheus::Registry,
    /// What is served.
    pub pools: Arc<Vec<ServedPool>>,
    factory: Arc<Factory>,
    /// The pipeline and the dead letters.
    pub orders: Arc<Orders>,
    /// The pools have followed their changes since before anything could fill their tiers.
    followed: Followed,
    /// What the stores have to be prepared for, by their backends.
    collections: BTreeMap<String, Vec<Arc<Collection>>>,
    /// The Secrets that it was made from.
    mounted: Vec<Mounted>,
}

impl World {
    async fn open(args: &Serve, place: &Place, loaded: &Loaded) -> anyhow::Result<Self> {
        let (settings, clock) = (&loaded.settings, Clock::system());
        let owner = owner::of(settings);
        let Keys { sealer, signing, webhook, provider, mut mounted } =
            Keys::read(args.security.as_deref(), place, &settings.security)?;
        let stores = backends::stores(settings, place, &sealer, loaded.limits.connection_timeout).await?;
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
}

/// The relays of all stores.
struct Relays {
    meters: BTreeMap<String, Arc<RelayMeter>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Relays {
    /// Starts the relays once their outboxes are there.
    fn start(world: &World, prepared: &watch::Receiver<bool>, options: &RelayOptions) -> Self {
        let (mut meters, stop, tasks) = (BTreeMap::new(), CancellationToken::new(), TaskTracker::new());
        for (name, store) in &world.backends.stores {
            let poke = world.pokes.get(name).cloned().unwrap_or_default();
            let options = RelayOptions { name: name.clone(), ..options.clone() };
            let relay = Relay::new(store.outbox(), world.backends.bus.1.clone(), poke, options);
            meters.insert(name.clone(), relay.meter());
            let (stop, mut prepared) = (stop.clone(), prepared.clone());
            tasks.spawn(supervisor::RELAY.watch(async move {
                let prepared =
                    stop.run_until_cancelled(prepared.wait_for(|prepared| *prepared)).await.is_some();
                if prepared {
                    relay.run(stop).await;
                }
            }));
        }
        tasks.close();
        Self { meters, stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        _ = tokio::time::timeout(RELAY_GRACE, self.tasks.wait()).await;
    }
}

/// What waits, for `/health`: in the outbox of each store, and in the log of events; null until it was
/// measured.
fn queues(
    relays: BTreeMap<String, Arc<RelayMeter>>,
    ingest: Option<Arc<IngestQueue>>,
) -> impl Fn() -> serde_json::Value {
    move || {
        let outbox: serde_json::Map<_, _> = relays
            .iter()
            .map(|(name, meter)| {
                let backlog = meter.figures().backlog;
                let (events, oldest_ms) =
                    (backlog.map(|backlog| backlog.events), backlog.map(|backlog| backlog.oldest_ms));
                (name.clone(), serde_json::json!({ "events": events, "oldest_ms": oldest_ms }))
            })
            .collect();
        let waiting = ingest.as_ref().map(|queue| queue.figures().waiting);
        serde_json::json!({ "outbox": outbox, "ingest": waiting.map(|waiting| serde_json::json!({ "events": waiting })) })
    }
}

/// The feed of all pools of the service: the bus carries the events of every group.
fn live_feed(
    world: &World,
    settings: &Settings,
    checks: Checks,
    closing: &CancellationToken,
) -> anyhow::Result<(watch::Sender<WebSocket>, Arc<Live>)> {
    let served = world.pools.iter();
    let served = served.map(|pool| LiveEntity::of(&pool.collection.schema, pool.resource.policy().clone()));
    let elsewhere =
        settings.pools.iter().filter(|pool| world.pools.iter().all(|served| served.name != pool.name));
    let elsewhere = elsewhere
        .map(|pool| LiveEntity::of(&crds::schema::of_pool(pool), world.policies.of_pool(&pool.name)));
    let (sender, options) = watch::channel(settings.web_socket.clone());
    let parts = LiveParts {
        bus: world.backends.bus.1.clone(),
        entities: served.chain(elsewhere).collect(),
        policies: world.policies.clone(),
        options,
        checks,
        shutdown: closing.clone(),
    };
    Ok((sender, Live::start(parts, &world.registry)?))
}

/// Tickets that every replica takes where a tier is in Redis; else each replica takes its own.
fn tickets(world: &World) -> Arc<Tickets> {
    let clock = world.clock.clone();
    Arc::new(match world.backends.owned.first_key_value() {
        Some(((_, prefix), cache)) => Tickets::shared(cache.clone(), prefix, clock),
        None => {
            if world.backends.folder.is_none() {
                info!("no tier is in Redis: a ticket of the feed is good at the replica that gave it");
            }
            Tickets::of_process(clock)
        }
    })
}

/// The collections of each store.
fn collections(pools: &[ServedPool]) -> BTreeMap<String, Vec<Arc<Collection>>> {
    let mut all: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for pool in pools {
        all.entry(pool.backend.clone()).or_default().push(pool.collection.clone());
    }
    all
}

fn place(args: &Serve) -> anyhow::Result<Place> {
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
fn lock(place: &Place) -> anyhow::Result<Option<File>> {
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

/// Says that requests are welcome, once they are; on a laptop, how to send some.
async fn announce(
    mut unready: watch::Receiver<Option<String>>,
    addrs: (SocketAddr, SocketAddr),
    laptop: bool,
) {
    if unready.wait_for(Option::is_none).await.is_err() {
        return;
    }
    let (addr, admin) = addrs;
    info!(%addr, %admin, "ready");
    if laptop {
        tell_how(addr.port());
    }
}

/// For the person who started it: where the API is, and what to try.
fn tell_how(port: u16) {
    let (bold, plain) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let url = format!("http://localhost:{port}/api/v1/products");
    println!(
        "\n{bold}The shop is served at http://localhost:{port}/api/v1{plain}\nThe dashboard is at http://localhost:{port}/ and the API's description at http://localhost:{port}/docs\nTry, in another terminal:\n  \
         curl -i -X POST {url} -H 'content-type: application/json' -d '{{\"id\":\"lamp\",\"name\":\"Lamp\",\"price\":\"19.90\"}}'\n  \
         curl -i {url}/lamp -H 'flyweight-explain: 1'\n  \
         curl -i {url}/lamp -H 'if-none-match: \"1\"'\n"
    );
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
