//! `serve`: from settings to a listening data plane, and down again.

use std::{collections::BTreeMap, io::IsTerminal, mem, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use crds::{
    service::messaging::WebSocket,
    settings::{PoolSettings, Settings},
};
use events::relay::RelayOptions;
use http::HeaderValue;
use runtime::{shutdown::Shutdown, supervisor};
use store::confined::{Away, PoolFault};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    admin,
    backends::Backends,
    figures::{self, Figures},
    hot,
    ingest::Ingestion,
    load::Load,
    memory,
    monitor::{self, Checks, Readiness},
    overview::{Overview, OverviewParts},
    pools::ServedPool,
    relays::{self, Relays},
    rotation::{self, Mounted},
    secrets, upkeep, warm_up,
    world::{self, World},
};
use crate::{
    args::Serve,
    config::Loaded,
    http::{
        direct::Routes,
        guard::Guard,
        health::Health,
        live::{self, Live, LiveParts, catalogue::LiveEntity},
        refusals::Refusals,
        router::{self, Api},
        tickets::Tickets,
    },
    server::{
        self,
        apart::{Pulse, serve_apart},
    },
    service::{ingest::queue::IngestQueue, staleness},
    telemetry::{self, LogControl},
};

/// Serves until the process is told to stop and what was under way has ended.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(args: Serve) -> anyhow::Result<()> {
    let source = args.source.source();
    let loaded = source.load()?;
    let log = telemetry::start(args.listen.log_format, loaded.settings.observability.log_level);
    if let Some(deprecated) = loaded.deprecated {
        warn!("{deprecated}");
    }
    let place = world::place(&args)?;
    let lock = world::lock(&place)?;
    let shutdown = Shutdown::on_signal(args.listen.drain_delay.0, args.listen.grace_period.0)
        .context("signals cannot be handled")?;
    let (listener, admin) = super::listen(&args.listen)?;
    let addrs = (listener.local_addr()?, admin.local_addr()?);
    let opened = tokio::select! {
        opened = World::open(&args, &place, &loaded) => opened,
        // told to stop while a database was waited for
        () = shutdown.stopped() => return Ok(()),
    };
    let closing = CancellationToken::new();
    let mut process = Process::start(opened?, &args, source.watch(loaded), &shutdown, &closing).await?;
    let identity = secrets::identity(args.security.as_deref(), &process.now().security, None)?;
    let tls = identity.as_ref().map(|(identity, _)| identity.acceptor()).transpose()?;
    process.mounted.extend(identity.map(|(_, own)| own));
    let figures = process.figures(args.group.clone())?;
    let health = process.health(&figures)?;
    process.keep_up(log);
    let routes = process.guard.around(process.routes(&health));
    serve_apart(admin, admin::routes(health, figures, Pulse::start())).context("the admin port")?;
    let serving = tokio::spawn(server::serve(listener, tls, routes, async move {
        shutdown.stopped().await;
        closing.cancel();
    }));
    supervisor::ANNOUNCEMENT.spawn(announce(process.readiness.unready.clone(), addrs, process.is_embedded));
    serving.await.context("the listener failed")?;
    process.close().await;
    info!("stopped");
    // what this holds of servers may wait for them when it goes
    tokio::task::spawn_blocking(move || drop((process, lock)));
    Ok(())
}

/// Prepares the stores, and ends.
///
/// # Errors
/// A store cannot be prepared.
pub async fn migrate(args: Serve) -> anyhow::Result<()> {
    let loaded = args.source.source().load()?;
    telemetry::start(args.listen.log_format, loaded.settings.observability.log_level);
    let place = world::place(&args)?;
    let _lock = world::lock(&place)?;
    World::open(&args, &place, &loaded).await?.prepare().await
}

/// What runs beside the listener, from the opened parts to their end.
struct Process {
    world: World,
    settings: watch::Receiver<Arc<Loaded>>,
    /// The pools as they were at the start.
    declared: Vec<PoolSettings>,
    is_embedded: bool,
    readiness: Readiness,
    checks: Checks,
    relays: Relays,
    guard: Arc<Guard>,
    tickets: Arc<Tickets>,
    ingestion: Option<Ingestion>,
    live: Arc<Live>,
    live_options: watch::Sender<WebSocket>,
    mounted: Vec<Mounted>,
}

impl Process {
    /// Prepares and warms up in the background, and starts what carries events.
    async fn start(
        mut world: World,
        args: &Serve,
        settings: watch::Receiver<Arc<Loaded>>,
        shutdown: &Shutdown,
        closing: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let now = settings.borrow().settings.clone();
        let security = args.security.as_deref();
        let is_embedded = args.data_dir.is_some();
        let mut mounted = mem::take(&mut world.mounted);
        let warm_up = warm_up(&world, now.pools.clone());
        let Backends { stores, away, .. } = &world.backends;
        let readiness = monitor::watch_readiness(stores, &world.collections, away, shutdown.clone(), warm_up);
        let checks = monitor::watch_parts(&world.backends).await;
        // nobody else can have the data folder
        let owner = is_embedded.then(|| "embedded".to_owned());
        let options = RelayOptions { owner, ..RelayOptions::default() };
        let relays = Relays::start(&world, &readiness.prepared, &options);
        let tickets = tickets(&world);
        // before the keys are read
        let tokens = secrets::tokens(security, &now.security);
        let refusals = Refusals::new(&world.registry)?;
        let guard = Guard::new(security, &now, tickets.clone(), shutdown.clone(), refusals)?;
        if let Some(buckets) = &world.backends.buckets {
            guard.share_rates(buckets.clone());
        }
        guard.follow_issuers();
        let guard = Arc::new(guard);
        if let (Some(folder), Some(dir)) = (tokens, security) {
            mounted.push(secrets::follow_tokens(folder, dir, &guard));
        }
        let ingestion = Ingestion::of(&world, &now.ingest)?;
        let (live_options, live) = live_feed(&world, &now, checks.clone(), closing)?;
        Ok(Self {
            world,
            settings,
            declared: now.pools,
            is_embedded,
            readiness,
            checks,
            relays,
            guard,
            tickets,
            ingestion,
            live,
            live_options,
            mounted,
        })
    }

    /// The settings of now.
    fn now(&self) -> Settings {
        self.settings.borrow().settings.clone()
    }

    fn queue(&self) -> Option<Arc<IngestQueue>> {
        self.ingestion.as_ref().map(|ingestion| ingestion.queue.clone())
    }

    /// What is counted. It also measures the load from here on, and follows the mounted Secrets.
    fn figures(&mut self, group: Option<String>) -> anyhow::Result<Arc<Figures>> {
        let world = &self.world;
        let load = Arc::new(Load::new(world.pools.clone(), world.orders.clone(), self.queue()));
        let figures = Arc::new(Figures::new(figures::Parts {
            registry: world.registry.clone(),
            pools: world.pools.clone(),
            factory: world.factory.clone(),
            relays: self.relays.meters.clone(),
            checks: self.checks.clone(),
            unready: self.readiness.unready.clone(),
            settings: self.settings.clone(),
            group,
            secrets: rotation::follow(mem::take(&mut self.mounted)),
            load: load.clone(),
            unavailable: Box::new(unavailable(&world.backends.away)),
            budgets: world.budgets.clone(),
        })?);
        supervisor::LOAD.spawn(move || {
            let load = load.clone();
            async move { load.follow().await }
        });
        Ok(figures)
    }

    /// What the process says of itself.
    fn health(&self, figures: &Arc<Figures>) -> anyhow::Result<Arc<Health>> {
        let world = &self.world;
        let overview = Overview::new(OverviewParts {
            pools: world.pools.clone(),
            relays: self.relays.meters.clone(),
            checks: self.checks.clone(),
            settings: self.settings.clone(),
            live: self.live.clone(),
        });
        let (rates, counted) = (self.guard.clone(), figures.clone());
        Ok(Arc::new(Health {
            checks: self.checks.clone(),
            unready: self.readiness.unready.clone(),
            unavailable: Box::new(unavailable(&world.backends.away)),
            served: served(&world.pools)?,
            factory: Box::new(move || counted.factory()),
            figures: Box::new(move || overview.read()),
            queues: Box::new(relays::queues(self.relays.meters.clone(), self.queue())),
            rates_are_shared: Box::new(move || rates.rates_are_shared()),
        }))
    }

    /// Starts what keeps the process in order while it serves.
    fn keep_up(&self, log: LogControl) {
        let world = &self.world;
        for (name, store) in &world.backends.stores {
            let (name, store, settings) = (name.clone(), store.clone(), self.settings.clone());
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
        let (declared, factory) = (self.declared.clone(), world.factory.clone());
        supervisor::POPULAR.spawn(move || warm_up::tell_for_ever(declared.clone(), factory.clone()));
        if let Some(ingestion) = &self.ingestion {
            ingestion.start(self.readiness.prepared.clone(), self.settings.clone());
        }
        let held = (world.gates.clone(), world.budgets.clone());
        let (settings, pools) = (self.settings.clone(), world.pools.clone());
        supervisor::MEMORY.spawn(move || memory::watch(settings.clone(), pools.clone(), held.clone()));
        let idle = (self.settings.clone(), world.pools.clone(), world.clock.clone());
        supervisor::CLEAN_UP.spawn(move || hot::clean_up(idle.0.clone(), idle.1.clone(), idle.2.clone()));
        let (orders, live_options) = (world.orders.clone(), self.live_options.clone());
        orders.start(world.backends.bus.1.clone(), self.is_embedded, self.readiness.prepared.clone());
        supervisor::SETTINGS.spawn(hot::follow(
            self.settings.clone(),
            world.policies.clone(),
            world.pools.clone(),
            self.guard.clone(),
            log,
            move |loaded| {
                orders.apply(&loaded.settings);
                live_options.send_replace(loaded.settings.web_socket.clone());
            },
        ));
    }

    /// Every route.
    fn routes(&self, health: &Arc<Health>) -> Routes {
        let world = &self.world;
        let api = Api {
            pools: world.pools.iter().map(ServedPool::routed).collect(),
            letters: Some(world.orders.letters_resource()),
            ingress: self.ingestion.as_ref().map(Ingestion::ingress),
            tickets: self.tickets.clone(),
            health: health.clone(),
            factory: world.factory.clone(),
        };
        let live = live::routes(self.live.clone()).merge(world.orders.routes());
        Routes::new(&api, router::router(&api, live))
    }

    /// Ends what is under way, once nothing more is taken in.
    async fn close(&self) {
        let ingested = async {
            if let Some(ingestion) = &self.ingestion {
                ingestion.stop().await;
            }
        };
        tokio::join!(ingested, self.world.orders.finish());
        self.relays.stop().await;
    }
}

/// Fills memory as each pool declares.
fn warm_up(world: &World, declared: Vec<PoolSettings>) -> impl Future<Output = ()> + Send + use<> {
    let behind = world.pools.iter().filter_map(|pool| Some((pool.name.clone(), pool.behind.clone()?)));
    let unavailable = unavailable(&world.backends.away);
    let is_away = move |pool: &str| unavailable().contains_key(pool);
    let (factory, bus) = (world.factory.clone(), world.backends.bus.1.clone());
    warm_up::run(&world.followed, declared, behind.collect(), factory, bus, is_away)
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
