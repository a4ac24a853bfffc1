//! The relay: moves committed events from one outbox to the bus, at least once, in order for each key.
//!
//! An event is claimed, published and only then confirmed, so a crash at any step repeats it and never loses
//! it. Several relays may serve one outbox: its leases keep each key with one of them at a time. While the
//! bus is away the backlog grows and writers are not held up. While more waits than one batch, a batch is
//! confirmed while the next is claimed and published: batches themselves are published one after the other.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::Rng;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::EventBus;
use model::{
    event::{Backlog, Claimed, Outbox, OutboxError},
    failpoint,
};

/// How often a relay waits only shortly for another's claim to end.
const BLOCKED_SHORT: u32 = 8;

/// The backlog is counted for one in so many parts of the time at most, as long as that is not more than the
/// wait after it.
const MEASURED_PART: u32 = 10;
const MEASURED_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long the last figures stand when the backlog cannot be counted: then nobody knows.
const MEASURED_AGE_MAX: Duration = Duration::from_secs(60);

/// How a relay works.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Whose outbox it is: the name of the backend.
    pub name: String,
    /// Events claimed at once.
    pub batch: usize,
    /// How long a claim lasts: longer than a step and a publish can take, so that a slow one is not overtaken
    /// by another relay.
    pub lease: Duration,
    /// How long a publish may take. One is only begun while the claim lasts for that long: less than half of
    /// the lease, which is what is left at least when a claim is asked for.
    pub publish: Duration,
    /// How often the outbox is looked at when nobody pokes the relay.
    pub poll: Duration,
    /// The least time from one step to the next while several events come at a time, so that they go
    /// together: each step costs the store a commit.
    pub pace: Duration,
    /// How long a relay without work keeps its claim on keys: after it another replica's events of these keys
    /// go at once.
    pub linger: Duration,
    /// The first waits for another owner's claim to end; later ones double, up to `poll`.
    pub blocked_min: Duration,
    /// The first wait after a failure; it doubles from one to the next.
    pub backoff_min: Duration,
    /// The longest wait after a failure.
    pub backoff_max: Duration,
    /// How often the backlog is measured.
    pub measure: Duration,
    /// How long it may publish what waits at the end.
    pub drain: Duration,
    /// The owner of the claims where no other process can be at work: one that crashed is then taken over
    /// from at once.
    pub owner: Option<String>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            batch: 1_000,
            lease: Duration::from_secs(15),
            publish: Duration::from_secs(6),
            poll: Duration::from_millis(500),
            pace: Duration::from_millis(15),
            linger: Duration::from_millis(20),
            blocked_min: Duration::from_millis(8),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            measure: Duration::from_secs(1),
            drain: Duration::from_secs(3),
            owner: None,
        }
    }
}

/// What a relay did and what waits, for metrics.
#[derive(Debug, Default)]
pub struct RelayMeter {
    published: AtomicU64,
    failures: AtomicU64,
    backlog: Mutex<Option<Backlog>>,
}

/// The meter at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayFigures {
    /// Events published, repeated ones too, since the start.
    pub published: u64,
    /// Failed claims, publishes and confirmations since the start.
    pub failures: u64,
    /// What waits in the outbox, as last measured; none until it was, and when that was long ago.
    pub backlog: Option<Backlog>,
}

impl RelayMeter {
    /// The figures now.
    pub fn figures(&self) -> RelayFigures {
        RelayFigures {
            published: self.published.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            backlog: *self.backlog.lock(),
        }
    }

    fn measured(&self, backlog: Option<Backlog>) {
        *self.backlog.lock() = backlog;
    }
}

/// Moves the events of one outbox to the bus.
pub struct Relay {
    outbox: Arc<dyn Outbox>,
    bus: Arc<dyn EventBus>,
    poke: Arc<Notify>,
    options: RelayOptions,
    meter: Arc<RelayMeter>,
    /// Names this relay in claims: another run of the same process is another owner.
    owner: String,
}

impl Relay {
    /// A relay that looks at the outbox at once whenever `poke` is notified; poke it after each local commit.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        bus: Arc<dyn EventBus>,
        poke: Arc<Notify>,
        options: RelayOptions,
    ) -> Self {
        let owner = options.owner.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
        Self { outbox, bus, poke, options, meter: Arc::default(), owner }
    }

    /// What it does and what waits, also while it runs.
    pub fn meter(&self) -> Arc<RelayMeter> {
        self.meter.clone()
    }

    /// Runs until `shutdown`, then publishes what waits, as far as that is quick, and gives up its claims.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.relay(&shutdown), self.measure(&shutdown));
        if let Err(error) = self.outbox.release(&self.owner).await {
            tracing::warn!(%error, "claims were not given up: they end with their lease");
        }
    }

    async fn relay(&self, shutdown: &CancellationToken) {
        let (mut failed, mut blocked, mut holding, mut unconfirmed) = (0, 0, false, None);
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            match self.step(&mut unconfirmed).await {
                Ok(Step { events, blocked: is_blocked }) => {
                    failed = 0;
                    holding |= events > 0;
                    blocked = if is_blocked && events == 0 { blocked + 1 } else { 0 };
                    if events == self.options.batch {
                        continue;
                    }
                    if events > 1 {
                        shutdown.run_until_cancelled(sleep_until(began + self.options.pace)).await;
                    }
                    let wait = async {
                        match is_blocked {
                            true => self.poked_within(jittered(self.blocked_wait(blocked))).await,
                            false => self.idle(&mut holding).await,
                        }
                    };
                    shutdown.run_until_cancelled(wait).await;
                }
                Err(error) => {
                    self.meter.failures.fetch_add(1, Ordering::Relaxed);
                    // one line for an outage, not one for each try
                    if failed == 0 {
                        tracing::warn!(%error, "events wait in the outbox");
                    }
                    failed += 1;
                    shutdown.run_until_cancelled(tokio::time::sleep(self.backoff(failed))).await;
                }
            }
        }
        self.drain(unconfirmed).await;
    }

    /// Publishes batch after batch until nothing is left, or something fails: the next start, or another
    /// replica, goes on from there.
    async fn drain(&self, mut unconfirmed: Option<Published>) {
        // between two steps only: a publish that is under way keeps its claim
        let end = Instant::now() + self.options.drain;
        while Instant::now() < end
            && matches!(self.step(&mut unconfirmed).await, Ok(Step { events: 1.., .. }))
        {}
        if let Err(error) = self.settle(unconfirmed.as_ref()).await {
            tracing::debug!(%error, "events that were published will be so once more");
        }
    }

    /// Waits until it is poked, or for the time between two looks. Claims are given up soon: other replicas
    /// write the same keys, and they cannot poke this relay.
    async fn idle(&self, holding: &mut bool) -> bool {
        if *holding {
            if self.poked_within(self.options.linger).await {
                return true;
            }
            *holding = false;
            if let Err(error) = self.outbox.release(&self.owner).await {
                tracing::debug!(%error, "claims were not given up: they end with their lease");
            }
        }
        self.poked_within(jittered(self.options.poll)).await
    }

    /// Waits until it is poked, or for this long; whether it was poked.
    async fn poked_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.poke.notified()).await.is_ok()
    }

    /// Short at first, for an owner without work gives up its claim soon; one that is gone keeps it until the
    /// lease ends.
    fn blocked_wait(&self, blocked: u32) -> Duration {
        let doubled =
            self.options.blocked_min.saturating_mul(1 << blocked.saturating_sub(BLOCKED_SHORT).min(16));
        doubled.min(self.options.poll)
    }

    /// Claims and publishes one batch. It is confirmed then, but where more waits: while that is published.
    async fn step(&self, unconfirmed: &mut Option<Published>) -> Result<Step, StepError> {
        let before = unconfirmed.take();
        let (confirmed, published) =
            tokio::join!(self.settle(before.as_ref()), self.publish(before.as_ref()));
        if let Err(StepError::Bus(_)) = published {
            // another relay may reach the bus; where the store is away too, the lease ends by itself
            _ = self.outbox.release(&self.owner).await;
        }
        confirmed?;
        let (published, blocked) = published?;
        let events = published.ids.len();
        let published = Some(published).filter(|_| events > 0);
        match events == self.options.batch {
            true => *unconfirmed = published,
            false => self.settle(published.as_ref()).await?,
        }
        Ok(Step { events, blocked })
    }

    /// Claims and publishes one batch, but for the events of the one before, which are being confirmed; and
    /// whether another owner holds some.
    async fn publish(&self, before: Option<&Published>) -> Result<(Published, bool), StepError> {
        let claimed_at = Instant::now();
        let known: HashSet<Uuid> = before.into_iter().flat_map(|before| &before.ids).copied().collect();
        let limit = self.options.batch + known.len();
        let Claimed { mut events, blocked, until } =
            self.outbox.claim(&self.owner, self.options.lease, limit).await?;
        events.retain(|event| !known.contains(&event.id));
        events.truncate(self.options.batch);
        let published = Published { ids: events.iter().map(|event| event.id).collect(), claimed_at };
        if events.is_empty() {
            return Ok((published, blocked));
        }
        failpoint::reach(&self.options.name, "relay.claimed");
        // a process that stood still may have lost its claims meanwhile: what another published is not
        // published after it
        let left = until.map(|until| Instant::from_std(until).saturating_duration_since(Instant::now()));
        if left.unwrap_or_default() < self.options.publish {
            return Err(StepError::Late);
        }
        self.bus.publish(&events).await?;
        failpoint::reach(&self.options.name, "relay.published");
        self.meter.published.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok((published, blocked))
    }

    /// Confirms published events, again and again while the claim lasts: until it is done they will be
    /// published once more.
    async fn settle(&self, published: Option<&Published>) -> Result<(), OutboxError> {
        let Some(Published { ids, claimed_at }) = published else { return Ok(()) };
        let mut failed = 0;
        loop {
            let Err(error) = self.outbox.confirm(&self.owner, ids).await else {
                failpoint::reach(&self.options.name, "relay.confirmed");
                return Ok(());
            };
            failed += 1;
            let wait = self.backoff(failed);
            if claimed_at.elapsed() + wait > self.options.lease / 2 {
                return Err(error);
            }
            self.meter.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
        }
    }

    async fn measure(&self, shutdown: &CancellationToken) {
        let mut measured = Instant::now();
        while !shutdown.is_cancelled() {
            let (began, mut wait) = (Instant::now(), self.options.measure);
            let backlog = self.outbox.backlog().await;
            // to count millions takes the store a while, in which it has other things to do
            wait = wait.max((began.elapsed() * MEASURED_PART).min(MEASURED_WAIT_MAX));
            match backlog {
                Ok(backlog) => {
                    self.meter.measured(Some(backlog));
                    measured = Instant::now();
                }
                // a store that does not answer leaves the last figures for a while; the relay itself reports
                // it
                Err(_) if measured.elapsed() > MEASURED_AGE_MAX => self.meter.measured(None),
                Err(_) => {}
            }
            shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    /// The wait after so many failures in a row: doubled each time, and anywhere between its half and its
    /// whole.
    fn backoff(&self, failed: u32) -> Duration {
        let doubled = self.options.backoff_min.saturating_mul(1 << failed.saturating_sub(1).min(16));
        jittered(doubled.min(self.options.backoff_max))
    }
}

/// Between a half and the whole of a time, so that relays do not act in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// A batch that was published and is yet to be confirmed.
struct Published {
    ids: Vec<Uuid>,
    /// When it was asked for.
    claimed_at: Instant,
}

/// What one step did.
struct Step {
    /// How many events it moved.
    events: usize,
    /// Whether events wait that another owner holds.
    blocked: bool,
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Bus(#[from] super::BusError),
    #[error("the claim came back too late: it ends before a publish may")]
    Late,
}

#[cfg(test)]
mod tests;
