//! Joins the parts of ingestion: the way in, the log, the workers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use crds::{pool::Entity, service::messaging::Ingest};
use prometheus::{
    IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde_json::{Value as Tree, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::serve::World;
use crate::{
    config::Loaded,
    domain::{price_event::PriceEvent, record::Record, value::Value},
    events::intake::Unreadable,
    http::ingest::Ingress,
    service::{
        dead_letters::{DeadLetters, Letter, Source},
        error::ServiceError,
        failure::{Class, Failure},
        ingest::{
            IngestFigures, Ingestor, Rejects,
            queue::{IngestQueue, QueueFigures},
            workers::Workers,
        },
    },
};

/// How long the batches that are under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// The stage of dead letters.
const STAGE: &str = "ingest";

/// The ingestion of one process.
pub struct Ingestion {
    /// Lets events in.
    pub queue: Arc<IngestQueue>,
    /// Applies them.
    pub ingestor: Arc<Ingestor>,
    ingress: Arc<Ingress>,
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
        let ingestor = Arc::new(Ingestor::new(products.resource.records.clone(), Arc::new(Letters(letters.clone()))));
        letters.serve(STAGE, Arc::new(Replays { letters: letters.clone(), ingestor: ingestor.clone() }));
        let ingress = Arc::new(Ingress::new(products.resource.clone(), queue.clone()));
        world.registry.register(Box::new(IngestMetrics::new(queue.clone(), ingestor.clone())?))?;
        Ok(Some(Self { queue, ingestor, ingress, stop: CancellationToken::new(), tasks: TaskTracker::new() }))
    }

    /// The handler of `POST /events`.
    pub fn ingress(&self) -> Arc<Ingress> {
        self.ingress.clone()
    }

    /// Starts the workers once the stores are prepared.
    pub fn start(&self, mut prepared: watch::Receiver<bool>, mut loaded: watch::Receiver<Arc<Loaded>>) {
        let (sender, settings) = watch::channel(loaded.borrow_and_update().settings.ingest.clone());
        let workers = Workers { queue: self.queue.clone(), ingestor: self.ingestor.clone(), settings };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
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
                () = workers.run(stop) => {}
            }
        });
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
    events: IntGaugeVec,
    waiting: IntGauge,
}

impl IngestMetrics {
    fn new(queue: Arc<IngestQueue>, ingestor: Arc<Ingestor>) -> Result<Self, prometheus::Error> {
        let events = Opts::new("flyweight_ingest_events_total", "Events from outside, by what became of them.");
        Ok(Self {
            queue,
            ingestor,
            events: IntGaugeVec::new(events, &["outcome"])?,
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
            self.events.with_label_values(&[outcome]).set(events as i64);
        }
        let waiting = waiting.map(|waiting| {
            self.waiting.set(waiting as i64);
            self.waiting.collect()
        });
        self.events.collect().into_iter().chain(waiting.into_iter().flatten()).collect()
    }
}

/// Events that can never be applied are dead letters: the newest of each product.
struct Letters(Arc<DeadLetters>);

#[async_trait]
impl Rejects for Letters {
    async fn put(&self, event: &PriceEvent, why: String) -> Result<(), ServiceError> {
        let letter = Letter {
            stage: STAGE.to_owned(),
            subject: event.product_id.clone(),
            failure: Failure::new(Class::NotRetryable, why),
            attempts: 1,
            trace: event.id.to_string(),
            payload: serde_json::to_value(event).map_err(|error| ServiceError::Internal(error.to_string()))?,
        };
        // events come in no order: a late one must not take the place of a newer one
        let newer = |held: &Record| {
            event_of(&self.0, held).is_none_or(|held| event.id == held.id || event.is_newer_than(&held))
        };
        self.0.put_where(letter, newer).await
    }

    async fn put_unreadable(&self, record: &Unreadable) -> Result<(), ServiceError> {
        let Unreadable { place, text, error } = record;
        let letter = Letter {
            stage: STAGE.to_owned(),
            subject: place.clone(),
            failure: Failure::new(Class::Validation, format!("it is no event: {error}")),
            attempts: 1,
            trace: String::new(),
            payload: json!({ "text": text }),
        };
        self.0.put(letter).await.map(drop)
    }
}

/// The event of a letter; none where it never was one.
fn event_of(letters: &DeadLetters, letter: &Record) -> Option<PriceEvent> {
    match letters.records().schema().get(&letter.values, "payload") {
        Value::Json(payload) => {
            let payload: Tree = serde_json::from_str(payload.as_str()).ok()?;
            match payload["text"].as_str() {
                Some(text) => serde_json::from_str(text).ok(),
                None => serde_json::from_value(payload).ok(),
            }
        }
        _ => None,
    }
}

/// Applies the events of dead letters again.
struct Replays {
    letters: Arc<DeadLetters>,
    ingestor: Arc<Ingestor>,
}

#[async_trait]
impl Source for Replays {
    async fn replay(&self, letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        let unreadable = || ServiceError::Conflict("what it holds is no event of price and stock".to_owned());
        let event = event_of(&self.letters, letter).ok_or_else(unreadable)?;
        self.ingestor.replay(&event).await
    }

    async fn dropped(&self, _letter: &Record, _actor: &str) -> Result<(), ServiceError> {
        Ok(())
    }
}
