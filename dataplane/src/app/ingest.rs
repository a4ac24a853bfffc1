//! Joins the parts of ingestion: the way in, the log, the workers.

use std::{sync::Arc, time::Duration};

use crds::{pool::Entity, service::messaging::Ingest};
use prometheus::{
    IntCounterVec, IntGauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::world::World;
use crate::{
    config::Loaded,
    http::ingest::Ingress,
    service::{
        dead_letters::DeadLetters,
        ingest::{
            IngestFigures, Ingestor,
            letters::{Letters, Replays, STAGE},
            queue::{IngestQueue, QueueFigures},
            waiting::Waiting,
            workers::Workers,
        },
        records::Records,
    },
};
use runtime::supervisor;

/// How long the batches that are under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// The ingestion of one process.
pub struct Ingestion {
    /// Lets events in.
    pub queue: Arc<IngestQueue>,
    /// Applies them.
    pub ingestor: Arc<Ingestor>,
    ingress: Arc<Ingress>,
    letters: Arc<DeadLetters>,
    products: Arc<Records>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Ingestion {
    /// The ingestion into the products that are served here; none where none are, or they cannot be written.
    ///
    /// # Errors
    /// Other metrics have the same names.
    pub fn of(world: &World, settings: &Ingest) -> Result<Option<Self>, prometheus::Error> {
        let mut pools = world.pools.iter();
        let products = pools.find(|pool| pool.entity == Entity::Product && pool.resource.is_writable());
        let Some(products) = products else { return Ok(None) };
        let letters = &world.orders.letters;
        let queue = Arc::new(IngestQueue::new(world.backends.intake.clone(), settings.queue_size.into()));
        let ingestor = Arc::new(Ingestor::new(
            products.resource.records.clone(),
            Arc::new(Letters::new(letters.clone())),
        ));
        letters.serve(STAGE, Arc::new(Replays::new(letters.clone(), ingestor.clone())));
        let ingress = Arc::new(Ingress::new(products.resource.clone(), queue.clone()));
        queue.set_unknown(settings.unknown_products);
        ingestor.set_unknown(settings.unknown_products);
        world.registry.register(Box::new(IngestMetrics::new(queue.clone(), ingestor.clone())?))?;
        let (letters, products) = (letters.clone(), products.resource.records.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Ok(Some(Self { queue, ingestor, ingress, letters, products, stop, tasks }))
    }

    /// The handler of `POST /events`.
    pub fn ingress(&self) -> Arc<Ingress> {
        self.ingress.clone()
    }

    /// Starts the workers once the stores are prepared.
    pub fn start(&self, mut prepared: watch::Receiver<bool>, mut loaded: watch::Receiver<Arc<Loaded>>) {
        let (sender, settings) = watch::channel(loaded.borrow_and_update().settings.ingest.clone());
        let workers = Workers { queue: self.queue.clone(), ingestor: self.ingestor.clone(), settings };
        let waiting = Waiting::new(self.letters.clone(), self.products.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(supervisor::INGESTION.watch(async move {
            if stop.run_until_cancelled(prepared.wait_for(|prepared| *prepared)).await.is_none() {
                return;
            }
            let follow = async {
                while loaded.changed().await.is_ok() {
                    let new = loaded.borrow_and_update().settings.ingest.clone();
                    sender.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = follow => {}
                ((), ()) = async { tokio::join!(workers.run(stop.clone()), waiting.run(stop)) } => {}
            }
        }));
        self.tasks.close();
    }

    /// Finishes the batches that are under way; what waits stays in the log.
    pub async fn stop(&self) {
        self.stop.cancel();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            warn!("batches of events did not end in time: they are applied after the next start");
        }
    }
}

/// Tells Prometheus what ingestion did and what waits.
struct IngestMetrics {
    queue: Arc<IngestQueue>,
    ingestor: Arc<Ingestor>,
    events: IntCounterVec,
    waiting: IntGauge,
}

impl IngestMetrics {
    fn new(queue: Arc<IngestQueue>, ingestor: Arc<Ingestor>) -> Result<Self, prometheus::Error> {
        let events =
            Opts::new("flyweight_ingest_events_total", "Events from outside, by what became of them.");
        Ok(Self {
            queue,
            ingestor,
            events: IntCounterVec::new(events, &["outcome"])?,
            waiting: IntGauge::new("flyweight_ingest_waiting", "Accepted events that are not yet applied.")?,
        })
    }
}

impl Collector for IngestMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.events.desc().into_iter().chain(self.waiting.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let QueueFigures { waiting, accepted, refused } = self.queue.figures();
        let IngestFigures { applied, outdated, rejected, failures } = self.ingestor.figures();
        let outcomes = [
            ("accepted", accepted),
            ("refused", refused),
            ("applied", applied),
            ("outdated", outdated),
            ("rejected", rejected),
            ("failed_batches", failures),
        ];
        for (outcome, events) in outcomes {
            let counter = self.events.with_label_values(&[outcome]);
            counter.inc_by(events.saturating_sub(counter.get()));
        }
        let waiting = waiting.map(|waiting| {
            self.waiting.set(waiting as i64);
            self.waiting.collect()
        });
        self.events.collect().into_iter().chain(waiting.into_iter().flatten()).collect()
    }
}
