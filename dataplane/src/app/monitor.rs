//! Watches the parts outside this process: prepares the stores, asks each part from time to time, and says
//! what requests can expect.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    app::backends::Backends,
    http::health::{Check, Condition},
};
use engine::shared::SharedCache;
use events::{BusError, EventBus, intake::Intake};
use model::{change::Collection, durability::Setting, passage::Passage};
use runtime::{owner::Refusal, shutdown::Shutdown, supervisor};
use store::{RecordStore, StoreError, confined::Away, room::Room};

/// How often each part is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often they are asked while one of them does not answer.
const INTERVAL_FAILING: Duration = Duration::from_millis(250);

/// How long a part may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often the collections of each store are looked at while all of them can be used, and how long that may
/// take.
const RECHECK: Duration = Duration::from_secs(10);
const RECHECK_MAX: Duration = Duration::from_secs(30);
/// The pause after each look.
const RECHECK_PAUSE: Duration = Duration::from_millis(500);

/// How often the settings of each part are read, and how soon again after one did not answer.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(60);
const SETTINGS_RETRY: Duration = Duration::from_secs(5);

/// The disk of embedded stores among the checks; with less room than this it is full.
const DISK: &str = "disk";
const ROOM_MIN: u64 = 512 << 10;

/// The newest result of each check.
pub type Checks = watch::Receiver<BTreeMap<String, Check>>;

type Asks<T> = Box<dyn Fn() -> BoxFuture<'static, Result<T, String>> + Send + Sync>;

/// The settings of each part as they were read last.
type Settings = Mutex<BTreeMap<String, Vec<Setting>>>;

struct Part {
    name: String,
    critical: bool,
    ask: Asks<()>,
    settings: Asks<Vec<Setting>>,
    room: Option<Arc<Room>>,
    /// Who else owns what is kept there.
    owned_by: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// How it is reached; none of what is embedded.
    passage: Option<Passage>,
}

/// Asks every part, now and from time to time.
pub async fn watch_parts(backends: &Backends) -> Checks {
    let (parts, told) = (Arc::new(parts(backends)), Arc::new(Settings::default()));
    let (sender, receiver) = watch::channel(ask_all(&parts, &told).await);
    let asked = (parts.clone(), told.clone());
    supervisor::PART_SETTINGS.spawn(move || read_settings(asked.0.clone(), asked.1.clone()));
    let sender = Arc::new(sender);
    supervisor::CHECKS.spawn(move || ask_for_ever(parts.clone(), told.clone(), sender.clone()));
    receiver
}

async fn ask_for_ever(
    parts: Arc<Vec<Part>>,
    told: Arc<Settings>,
    sender: Arc<watch::Sender<BTreeMap<String, Check>>>,
) {
    loop {
        let well = sender.borrow().values().all(|check| check.status == Condition::Healthy);
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(if well { INTERVAL } else { INTERVAL_FAILING }) => {}
        }
        let checks = ask_all(&parts, &told).await;
        let before = sender.send_replace(checks.clone());
        for (name, check) in &checks {
            let was = before.get(name).map(|check| check.status);
            match check.status {
                status if Some(status) == was => {}
                Condition::Healthy => info!(part = name, "answers again"),
                Condition::Degraded => {
                    warn!(part = name, message = check.message, "does not do all that it should")
                }
                Condition::Unhealthy => warn!(part = name, message = check.message, "does not answer"),
            }
        }
    }
}

/// How far the start is.
pub struct Readiness {
    /// Why requests should not come here; none when they should.
    pub unready: watch::Receiver<Option<String>>,
    /// Whether the stores are prepared.
    pub prepared: watch::Receiver<bool>,
}

/// Prepares every store, as often as it takes, then warms up; says meanwhile why requests should not come
/// here, none once they should.
pub fn watch_readiness(
    stores: &BTreeMap<String, Arc<dyn RecordStore>>,
    collections: &BTreeMap<String, Vec<Arc<Collection>>>,
    away: &BTreeMap<String, Arc<Away>>,
    shutdown: Shutdown,
    warm_up: impl Future<Output = ()> + Send + 'static,
) -> Readiness {
    let (sender, unready) = watch::channel(Some("starting: the stores are being prepared".to_owned()));
    let (tell_prepared, prepared) = watch::channel(false);
    let stores: Vec<_> = stores
        .iter()
        .map(|(name, store)| {
            (name.clone(), store.clone(), collections.get(name).cloned().unwrap_or_default())
        })
        .collect();
    let away: Vec<_> = stores.iter().map(|(name, ..)| away.get(name).cloned().unwrap_or_default()).collect();
    supervisor::READINESS.spawn(async move {
        let trouble = watch::channel(BTreeMap::new()).0;
        let prepared = join_all(stores.iter().map(|(name, store, collections)| {
            prepare(name, store.as_ref(), collections, |state| {
                trouble.send_modify(|all: &mut BTreeMap<String, String>| match state {
                    Some(why) => _ = all.insert(name.clone(), why),
                    None => _ = all.remove(name),
                });
                let all: Vec<_> =
                    trouble.borrow().iter().map(|(name, why)| format!("{name}: {why}")).collect();
                if !all.is_empty() {
                    sender.send_replace(Some(format!("starting: {}", all.join("; "))));
                }
            })
        }));
        let start = async {
            prepared.await;
            tell_prepared.send_replace(true);
            for ((name, store, collections), away) in stores.iter().zip(away) {
                let (name, store, collections) = (name.clone(), store.clone(), collections.clone());
                supervisor::PREPARATION.spawn(move || {
                    keep_prepared(name.clone(), store.clone(), collections.clone(), away.clone())
                });
            }
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

async fn prepare(
    name: &str,
    store: &dyn RecordStore,
    collections: &[Arc<Collection>],
    say: impl Fn(Option<String>),
) {
    for delay in delays() {
        match store.prepare_each(collections).await {
            // single pools may be away: they are tried again while the others are served
            Ok(_) => {
                say(None);
                return;
            }
            Err(error) => {
                // A table that lacks a column is mended by its owner, not by waiting: said louder, tried
                // again all the same.
                let lasting = matches!(error, StoreError::Unsupported(_) | StoreError::Setup(_));
                warn!(store = name, lasting, %error, "the store is not yet prepared");
                say(Some(error.to_string()));
            }
        }
        tokio::time::sleep(delay).await;
    }
}

fn delays() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Looks at the collections of a store again from time to time until the process ends: at once where a
/// request met what it should not, soon and then less often while a pool is away.
async fn keep_prepared(
    name: String,
    store: Arc<dyn RecordStore>,
    collections: Vec<Arc<Collection>>,
    away: Arc<Away>,
) {
    let mut pauses = delays();
    loop {
        let pause = match away.any() {
            true => pauses.next().unwrap_or(RECHECK),
            false => {
                pauses = delays();
                RECHECK
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = away.suspected() => {}
        }
        match tokio::time::timeout(RECHECK_MAX, store.prepare_each(&collections)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(store = name, %error, "the collections cannot be looked at now"),
            Err(_) => debug!(store = name, "the collections were not looked at in time"),
        }
        // requests that fail, whatever this look says, bring no more than a look a second
        tokio::time::sleep(RECHECK_PAUSE).await;
    }
}

fn parts(backends: &Backends) -> Vec<Part> {
    let mut parts = Vec::new();
    for (name, store) in &backends.stores {
        let (pinged, asked) = (store.clone(), store.clone());
        parts.push(Part {
            name: name.clone(),
            critical: true,
            ask: asking(
                move || pinged.clone(),
                |store: Arc<dyn RecordStore>| async move { store.ping().await },
            ),
            settings: asking(
                move || asked.clone(),
                |store: Arc<dyn RecordStore>| async move { store.settings().await },
            ),
            room: backends.rooms.get(name).cloned(),
            owned_by: Box::new(|| None),
            passage: backends.passages.get(name).cloned(),
        });
    }
    for (name, cache) in &backends.caches {
        let (pinged, asked) = (cache.clone(), cache.clone());
        let owned =
            backends.owned.iter().filter(|((backend, _), _)| backend == name).map(|(_, cache)| cache.clone());
        let owned: Vec<_> = owned.collect();
        parts.push(Part {
            name: name.clone(),
            critical: false,
            ask: asking(
                move || pinged.clone(),
                |cache: Arc<dyn SharedCache>| async move { cache.ping().await },
            ),
            settings: asking(
                move || asked.clone(),
                |cache: Arc<dyn SharedCache>| async move { cache.settings().await },
            ),
            room: None,
            owned_by: Box::new(move || owned.iter().find_map(|cache| cache.owned_by())),
            passage: backends.passages.get(name).cloned(),
        });
    }
    parts.push(bus(backends));
    parts.extend(backends.folder.clone().map(disk));
    parts
}

/// The bus, the log of events from outside, and that of write-behind.
type Logs = (Arc<dyn EventBus>, Arc<dyn Intake>, Option<Arc<dyn EventBus>>);

/// The bus, with the other logs of its backend.
fn bus(backends: &Backends) -> Part {
    let (name, bus) = backends.bus.clone();
    let logs = (bus.clone(), backends.intake.clone(), backends.write_log.clone());
    let owned = bus.clone();
    Part {
        passage: backends.passages.get(&name).cloned(),
        name,
        critical: false,
        ask: asking(move || bus.clone(), |bus: Arc<dyn EventBus>| async move { bus.ping().await }),
        settings: asking(
            move || logs.clone(),
            |(bus, intake, log): Logs| async move {
                let mut settings = bus.settings().await?;
                settings.extend(
                    intake.settings().await.map_err(|error| BusError::Unavailable(error.to_string()))?,
                );
                if let Some(log) = log {
                    settings.extend(log.settings().await?);
                }
                Ok::<_, BusError>(settings)
            },
        ),
        room: None,
        owned_by: Box::new(move || owned.owned_by()),
    }
}

/// The disk of the data folder: every write of an embedded store or log needs room there.
fn disk(folder: PathBuf) -> Part {
    let room = |folder: PathBuf| async move {
        let left = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await;
        match left.map(|stat| stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))) {
            Ok(Ok(bytes)) if bytes < ROOM_MIN => Err(format!(
                "the disk of the data folder is full: {} KiB are left, and writes need more",
                bytes >> 10
            )),
            // what cannot be looked at is not called full
            _ => Ok(()),
        }
    };
    Part {
        name: DISK.to_owned(),
        critical: false,
        ask: asking(move || folder.clone(), room),
        settings: asking(|| (), |()| async { Ok::<_, String>(Vec::new()) }),
        room: None,
        owned_by: Box::new(|| None),
        passage: None,
    }
}

/// A question to a part, whose error is a sentence.
fn asking<P, T, E, F>(
    part: impl Fn() -> P + Send + Sync + 'static,
    ask: impl Fn(P) -> F + Send + Sync + Copy + 'static,
) -> Asks<T>
where
    P: Send + 'static,
    T: Send + 'static,
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    Box::new(move || {
        let asked = ask(part());
        Box::pin(async move { asked.await.map_err(|error| error.to_string()) })
    })
}

/// Reads the settings of every part until the process ends: soon again those that did not answer.
async fn read_settings(parts: Arc<Vec<Part>>, told: Arc<Settings>) {
    loop {
        let asked = parts.iter().map(async |part| {
            let answer = tokio::time::timeout(TIMEOUT * 2, (part.settings)()).await;
            (part, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
        let mut all = true;
        for (part, answer) in join_all(asked).await {
            match answer {
                Ok(settings) => {
                    let warnings = |settings: &[Setting]| {
                        settings.iter().filter_map(Setting::warning).collect::<Vec<_>>()
                    };
                    let news = warnings(&settings);
                    let before = told.lock().insert(part.name.clone(), settings);
                    if before.is_none_or(|before| warnings(&before) != news) {
                        news.iter().for_each(|warning| {
                            warn!(part = part.name, warning, "an acknowledged write can be lost")
                        });
                    }
                }
                Err(error) => {
                    debug!(part = part.name, error, "its settings cannot be read now");
                    all = false;
                }
            }
        }
        tokio::time::sleep(if all { SETTINGS_INTERVAL } else { SETTINGS_RETRY }).await;
    }
}

async fn ask_all(parts: &[Part], told: &Settings) -> BTreeMap<String, Check> {
    let asked = parts.iter().map(async |part| {
        let start = Instant::now();
        let answer = tokio::time::timeout(TIMEOUT, (part.ask)()).await;
        let owned_by = (part.owned_by)();
        let trouble = match answer {
            Ok(Ok(())) => owned_by.as_ref().map(|owner| Refusal::Another(owner.clone()).to_string()),
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        let full = part.room.as_ref().and_then(|room| room.full());
        let is_full = full.is_some() || (part.name == DISK && trouble.is_some());
        let (status, message) = match (trouble, full) {
            (Some(why), _) => (Condition::Unhealthy, Some(why)),
            (None, Some(why)) => {
                (Condition::Degraded, Some(format!("{why}: writes are refused, reads go on")))
            }
            (None, None) => (Condition::Healthy, None),
        };
        let latency_ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let settings = told.lock().get(&part.name).cloned().unwrap_or_default();
        let warnings = settings.iter().filter_map(Setting::warning).collect();
        let settings = settings.into_iter().map(|Setting { name, value, risk: _ }| (name, value)).collect();
        let plaintext_password = part.passage.as_ref().is_some_and(Passage::is_exposed);
        let critical = part.critical;
        let check = Check {
            status,
            latency_ms,
            message,
            settings,
            warnings,
            is_full,
            critical,
            owned_by,
            plaintext_password,
        };
        (part.name.clone(), check)
    });
    join_all(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests;
