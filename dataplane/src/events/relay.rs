//! The relay: moves committed events from one outbox to the bus, at least once, in order for each key.
//!
//! An event is claimed, published and only then confirmed, so a crash at any step repeats it and never loses it. Several relays may serve one
//! outbox: its leases keep each key with one of them at a time. While the bus is away the backlog grows and writers are not held up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::EventBus;
use crate::domain::event::{Backlog, Envelope, Outbox, OutboxError};

/// How a relay works.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Events claimed at once.
    pub batch: usize,
    /// How long a claim lasts. Longer than a publish can take, so that a slow one is not overtaken by another relay.
    pub lease: Duration,
    /// How often the outbox is looked at when nobody pokes the relay.
    pub poll: Duration,
    /// The first wait after a failure; it doubles from one to the next.
    pub backoff_min: Duration,
    /// The longest wait after a failure.
    pub backoff_max: Duration,
    /// How often the backlog is measured.
    pub measure: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            batch: 1_000,
            lease: Duration::from_secs(30),
            poll: Duration::from_millis(500),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            measure: Duration::from_secs(1),
        }
    }
}

/// What a relay did and what waits, for metrics.
#[derive(Debug, Default)]
pub struct RelayMeter {
    published: AtomicU64,
    failures: AtomicU64,
    backlog: AtomicU64,
    oldest_ms: AtomicU64,
}

/// The meter at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayFigures {
    /// Events published, repeated ones too, since the start.
    pub published: u64,
    /// Failed claims, publishes and confirmations since the start.
    pub failures: u64,
    /// What waits in the outbox, as last measured.
    pub backlog: Backlog,
}

impl RelayMeter {
    /// The figures now.
    pub fn figures(&self) -> RelayFigures {
        RelayFigures {
            published: self.published.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            backlog: Backlog {
                events: self.backlog.load(Ordering::Relaxed),
                oldest_ms: self.oldest_ms.load(Ordering::Relaxed),
            },
        }
    }

    fn measured(&self, backlog: Backlog) {
        self.backlog.store(backlog.events, Ordering::Relaxed);
        self.oldest_ms.store(backlog.oldest_ms, Ordering::Relaxed);
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
    pub fn new(outbox: Arc<dyn Outbox>, bus: Arc<dyn EventBus>, poke: Arc<Notify>, options: RelayOptions) -> Self {
        let owner = Uuid::now_v7().to_string();
        Self { outbox, bus, poke, options, meter: Arc::default(), owner }
    }

    /// What it does and what waits, also while it runs.
    pub fn meter(&self) -> Arc<RelayMeter> {
        self.meter.clone()
    }

    /// Runs until `shutdown`, then gives up its claims. A batch that is under way is finished first.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.relay(&shutdown), self.measure(&shutdown));
        if let Err(error) = self.outbox.release(&self.owner).await {
            tracing::warn!(%error, "claims were not given up: they end with their lease");
        }
    }

    async fn relay(&self, shutdown: &CancellationToken) {
        let mut failed = 0;
        while !shutdown.is_cancelled() {
            match self.step().await {
                Ok(events) => {
                    failed = 0;
                    if events < self.options.batch {
                        shutdown.run_until_cancelled(self.idle()).await;
                    }
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
    }

    /// Waits until it is poked, or for the time between two looks.
    async fn idle(&self) {
        tokio::select! {
            () = self.poke.notified() => {}
            () = tokio::time::sleep(jittered(self.options.poll)) => {}
        }
    }

    /// Claims, publishes and confirms one batch; how many events it had.
    async fn step(&self) -> Result<usize, StepError> {
        let claimed_at = Instant::now();
        let events = self.outbox.claim(&self.owner, self.options.lease, self.options.batch).await?;
        if events.is_empty() {
            return Ok(0);
        }
        // a process that stood still may have lost its claims meanwhile: what another published is not published after it
        if claimed_at.elapsed() > self.options.lease / 2 {
            return Err(StepError::Late);
        }
        if let Err(error) = self.bus.publish(&events).await {
            // another relay may reach the bus; where the store is away too, the lease ends by itself
            _ = self.outbox.release(&self.owner).await;
            return Err(error.into());
        }
        self.meter.published.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.confirm(&events, claimed_at).await?;
        Ok(events.len())
    }

    /// Confirms published events, again and again while the claim lasts: until it is done they will be published once more.
    async fn confirm(&self, events: &[Envelope], claimed_at: Instant) -> Result<(), OutboxError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let mut failed = 0;
        loop {
            let Err(error) = self.outbox.confirm(&self.owner, &ids).await else { return Ok(()) };
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
        while !shutdown.is_cancelled() {
            // a store that does not answer leaves the last figures; the relay itself reports it
            if let Ok(backlog) = self.outbox.backlog().await {
                self.meter.measured(backlog);
            }
            shutdown.run_until_cancelled(tokio::time::sleep(self.options.measure)).await;
        }
    }

    /// The wait after so many failures in a row: doubled each time, and anywhere between its half and its whole.
    fn backoff(&self, failed: u32) -> Duration {
        let doubled = self.options.backoff_min.saturating_mul(1 << failed.saturating_sub(1).min(16));
        jittered(doubled.min(self.options.backoff_max))
    }
}

/// Between a half and the whole of a time, so that relays do not act in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Bus(#[from] super::BusError),
    #[error("the claim came back too late to be used")]
    Late,
}

#[cfg(test)]
mod tests;
