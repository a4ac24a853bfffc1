//! The relays of all stores, and what waits for them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use events::relay::{Relay, RelayMeter, RelayOptions};
use runtime::supervisor;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::world::World;
use crate::service::ingest::queue::IngestQueue;

/// How long relays may take to give up their claims at the end.
const RELAY_GRACE: Duration = Duration::from_secs(5);

/// The relays of all stores.
pub struct Relays {
    /// By the backends of their outboxes.
    pub meters: BTreeMap<String, Arc<RelayMeter>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Relays {
    /// Starts the relays once their outboxes are there.
    pub fn start(world: &World, prepared: &watch::Receiver<bool>, options: &RelayOptions) -> Self {
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

    /// Lets them give up their claims.
    pub async fn stop(&self) {
        self.stop.cancel();
        _ = tokio::time::timeout(RELAY_GRACE, self.tasks.wait()).await;
    }
}

/// What waits, for `/health`: in the outbox of each store, and in the log of events; null until it was
/// measured.
pub fn queues(
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
