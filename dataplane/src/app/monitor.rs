//! Watches the parts outside this process: prepares the stores, asks each part from time to time, and says what requests can expect.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future::{BoxFuture, join_all};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    app::backends::Backends,
    domain::change::Collection,
    http::health::{Check, Condition},
    owner::Refusal,
    shutdown::Shutdown,
    store::{RecordStore, StoreError},
};

/// How often each part is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often they are asked while one of them does not answer.
const INTERVAL_FAILING: Duration = Duration::from_millis(250);

/// How long a part may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The newest result of each check.
pub type Checks = watch::Receiver<BTreeMap<String, Check>>;

type Ask = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

struct Part {
    name: String,
    critical: bool,
    ask: Ask,
    /// Who else owns what is kept there.
    owned_by: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// Asks every part, now and from time to time.
pub async fn watch_parts(backends: &Backends) -> Checks {
    let parts = parts(backends);
    let (sender, receiver) = watch::channel(ask_all(&parts).await);
    tokio::spawn(async move {
        loop {
            let well = sender.borrow().values().all(|check| check.status == Condition::Healthy);
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(if well { INTERVAL } else { INTERVAL_FAILING }) => {}
            }
            let checks = ask_all(&parts).await;
            let before = sender.send_replace(checks.clone());
            for (name, check) in &checks {
                let was = before.get(name).map(|check| check.status);
                match check.status {
                    status if Some(status) == was => {}
                    Condition::Healthy => info!(part = name, "answers again"),
                    _ => warn!(part = name, message = check.message, "does not answer"),
                }
            }
        }
    });
    receiver
}

/// How far the start is.
pub struct Readiness {
    /// Why requests should not come here; none when they should.
    pub unready: watch::Receiver<Option<String>>,
    /// Whether the stores are prepared.
    pub prepared: watch::Receiver<bool>,
}

/// Prepares every store, as often as it takes, then warms up; says meanwhile why requests should not come here, none once they should.
pub fn watch_readiness(
    stores: &BTreeMap<String, Arc<dyn RecordStore>>,
    collections: &BTreeMap<String, Vec<Arc<Collection>>>,
    shutdown: Shutdown,
    warm_up: impl Future<Output = ()> + Send + 'static,
) -> Readiness {
    let (sender, unready) = watch::channel(Some("starting: the stores are being prepared".to_owned()));
    let (tell_prepared, prepared) = watch::channel(false);
    let stores: Vec<_> = stores
        .iter()
        .map(|(name, store)| (name.clone(), store.clone(), collections.get(name).cloned().unwrap_or_default()))
        .collect();
    tokio::spawn(async move {
        let trouble = watch::channel(BTreeMap::new()).0;
        let prepared = join_all(stores.iter().map(|(name, store, collections)| {
            prepare(name, store.as_ref(), collections, |state| {
                trouble.send_modify(|all: &mut BTreeMap<String, String>| match state {
                    Some(why) => _ = all.insert(name.clone(), why),
                    None => _ = all.remove(name),
                });
                let all: Vec<_> = trouble.borrow().iter().map(|(name, why)| format!("{name}: {why}")).collect();
                if !all.is_empty() {
                    sender.send_replace(Some(format!("starting: {}", all.join("; "))));
                }
            })
        }));
        let start = async {
            prepared.await;
            tell_prepared.send_replace(true);
            sender.send_replace(Some("starting: memory is being filled".to_owned()));
            warm_up.await;
            sender.send_replace(None);
        };
        tokio::select! {
            () = start => {}
            () = shutdown.drain() => {}
        }
        shutdown.drain().await;
        sender.send_replace(Some("stopping".to_owned()));
    });
    Readiness { unready, prepared }
}

async fn prepare(name: &str, store: &dyn RecordStore, collections: &[Arc<Collection>], say: impl Fn(Option<String>)) {
    let delays = || {
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times()
            .build()
    };
    for delay in delays() {
        match store.prepare(collections).await {
            Ok(()) => {
                say(None);
                return;
            }
            Err(error) => {
                // A table that lacks a column is mended by its owner, not by waiting: said louder, tried again all the same.
                let lasting = matches!(error, StoreError::Unsupported(_));
                warn!(store = name, lasting, %error, "the store is not yet prepared");
                say(Some(error.to_string()));
            }
        }
        tokio::time::sleep(delay).await;
    }
}

fn parts(backends: &Backends) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, store) in &backends.stores {
        let store = store.clone();
        let ask: Ask = Box::new(move || {
            let store = store.clone();
            Box::pin(async move { store.ping().await.map_err(|error| error.to_string()) })
        });
        parts.push(Part { name: name.clone(), critical: true, ask, owned_by: Box::new(|| None) });
    }
    for (name, cache) in &backends.caches {
        let cache = cache.clone();
        let ask: Ask = Box::new(move || {
            let cache = cache.clone();
            Box::pin(async move { cache.ping().await.map_err(|error| error.to_string()) })
        });
        let owned = backends.owned.iter().filter(|((backend, _), _)| backend == name).map(|(_, cache)| cache.clone());
        let owned: Vec<_> = owned.collect();
        let owned_by = Box::new(move || owned.iter().find_map(|cache| cache.another()));
        parts.push(Part { name: name.clone(), critical: false, ask, owned_by });
    }
    let (name, bus) = backends.bus.clone();
    let owned = bus.clone();
    let owned_by = Box::new(move || owned.owned_by());
    let ask: Ask = Box::new(move || {
        let bus = bus.clone();
        Box::pin(async move { bus.ping().await.map_err(|error| error.to_string()) })
    });
    parts.push(Part { name, critical: false, ask, owned_by });
    parts
}

async fn ask_all(parts: &[Part]) -> BTreeMap<String, Check> {
    let asked = parts.iter().map(async |part| {
        let start = Instant::now();
        let answer = tokio::time::timeout(TIMEOUT, (part.ask)()).await;
        let owned_by = (part.owned_by)();
        let message = match answer {
            Ok(Ok(())) => owned_by.as_ref().map(|owner| Refusal::Another(owner.clone()).to_string()),
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let status = if message.is_none() { Condition::Healthy } else { Condition::Unhealthy };
        let latency_ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        (part.name.clone(), Check { status, latency_ms, message, critical: part.critical, owned_by })
    });
    join_all(asked).await.into_iter().collect()
}
