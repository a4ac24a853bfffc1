//! The order pipeline: orders -> payments -> inventory -> notifications.
//!
//! The order's own record says how far it is, and each step changes that and the order's status in one
//! guarded update. Events only say when to look; whatever is lost, repeated or frozen on the way, the record
//! decides, and a sweep finds orders that nobody looked at. The effects outside the record can be repeated:
//! holds are named by the order, charges by a key made of it.

mod cancel;
mod charges;
mod locks;
mod queues;
mod stages;
mod sweep;
mod texts;
mod work;

pub use charges::{is_charge_of, new_charge_key};

use std::{collections::HashSet, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use crds::service::messaging::{Pipeline as Settings, Retry};
use parking_lot::Mutex;
use prometheus::Registry;
use reqwest::Client;
use serde_json::{Value as Tree, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    locks::KeyLocks,
    queues::{InFlightLimit, Job, StageQueues},
    texts::Texts,
};
use super::{
    dead_letters::DeadLetters,
    dependency::Dependency,
    error::ServiceError,
    notify::{Address, LogNotifier, Notifier, Webhook},
    payment::{
        PaymentProvider,
        http::{HttpProvider, SigningKey},
        simulator::Simulator,
    },
    records::Records,
};
use events::consumer::Ticket;
use model::{
    actor,
    key::Key,
    progress::{Progress, Stage},
    query::{Filter, Position},
    record::Record,
    schema::FieldRef,
    value::{Timestamp, Value},
};
use runtime::supervisor;
use store::clock::ServerClock;

/// Who changes records here.
const ACTOR: &str = actor::PIPELINE;
/// How long an order may stand still before a sweep looks after it.
const STUCK_AFTER: Duration = Duration::from_secs(15);
/// Orders that may be under way at once in one process.
const IN_FLIGHT_MAX: usize = 4_096;

/// The pools and files that the pipeline works with.
pub struct Parts {
    /// Orders.
    pub orders: Arc<Records>,
    /// Products; without them nothing is held.
    pub products: Option<Arc<Records>>,
    /// Payments; without them charges leave no record here.
    pub payments: Option<Arc<Records>>,
    /// Templates of messages; without them messages have a text of our own.
    pub templates: Option<Arc<Records>>,
    /// What could not be done.
    pub letters: Arc<DeadLetters>,
    /// Signs calls of the payment provider.
    pub signing_key: SigningKey,
    /// Where messages are posted, where that is a secret.
    pub webhook: Address,
    /// Where the payment provider is, where that is a secret.
    pub provider: Address,
    /// Calls what is outside.
    pub client: Client,
}

/// The order pipeline of this process.
pub struct Pipeline {
    parts: Parts,
    tools: ArcSwap<Tools>,
    bank: Dependency,
    messenger: Dependency,
    queues: StageQueues,
    /// Orders that a worker has at this moment.
    busy: Mutex<HashSet<Key>>,
    in_flight: InFlightLimit,
    locks: KeyLocks,
    texts: Texts,
    /// Where the next sweep over due orders goes on; at the oldest where there is none.
    swept: Mutex<Option<Position>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What follows from the settings.
struct Tools {
    settings: Settings,
    provider: Arc<dyn PaymentProvider>,
    notifier: Arc<dyn Notifier>,
}

/// When an order that is left alone from now on is looked after, by the clock of the orders' server: every
/// process sweeps by it.
pub fn due_later(clock: &ServerClock) -> Timestamp {
    after(clock, STUCK_AFTER)
}

fn after(clock: &ServerClock, time: Duration) -> Timestamp {
    Timestamp(clock.now().0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
}

/// A random wait before attempt `failed + 1`: anywhere up to a bound that doubles with each ("full jitter").
fn backoff(retry: &Retry, failed: u32) -> Duration {
    let doubled = retry.initial_delay.0.saturating_mul(1 << failed.saturating_sub(1).min(20));
    doubled.min(retry.max_delay.0).mul_f64(rand::random_range(0.0..=1.0))
}

/// Whether an address holds what belongs into a Secret: a name with a password, or a query, as tokens are
/// written.
fn holds_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || rest.contains('?')
}

impl Tools {
    fn of(settings: &Settings, parts: &Parts) -> Self {
        let payments = &settings.payments;
        let addresses = [
            ("spec.pipeline.payments.http.url", payments.http.as_ref().map(|http| &http.url)),
            ("spec.pipeline.notifications.webhookUrl", settings.notifications.webhook_url.as_ref()),
        ];
        for (field, _) in addresses.iter().filter(|(_, url)| url.is_some_and(|url| holds_credentials(url))) {
            tracing::warn!(
                field,
                "holds credentials, which everybody sees who reads the resource: use secretRef"
            );
        }
        let provider: Arc<dyn PaymentProvider> = match &payments.http {
            Some(http) => {
                let (client, secret) = (parts.client.clone(), parts.provider.clone());
                Arc::new(HttpProvider::new(client, &http.url, secret, parts.signing_key.clone()))
            }
            None => Arc::new(Simulator::new(payments.simulator.clone())),
        };
        let notifications = &settings.notifications;
        let address = match (&notifications.secret_ref, &notifications.webhook_url) {
            (Some(_), _) => Some(parts.webhook.clone()),
            (None, Some(url)) => Some(Address::new(ArcSwapOption::from_pointee(url.clone()))),
            (None, None) => None,
        };
        let notifier: Arc<dyn Notifier> = match address {
            Some(address) => Arc::new(Webhook { client: parts.client.clone(), address }),
            None => Arc::new(LogNotifier),
        };
        Self { settings: settings.clone(), provider, notifier }
    }
}

impl Pipeline {
    /// A pipeline that does nothing yet.
    ///
    /// # Errors
    /// A metric of the same name is there already.
    pub fn new(
        parts: Parts,
        settings: &Settings,
        registry: &Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let breaker = &settings.breaker;
        let dependency = |name| Dependency::new(name, breaker.threshold, breaker.timeout.0);
        let pipeline = Arc::new(Self {
            tools: ArcSwap::from_pointee(Tools::of(settings, &parts)),
            bank: dependency("the payment provider"),
            messenger: dependency("the notification sender"),
            queues: StageQueues::new(&settings.workers, registry)?,
            busy: Mutex::default(),
            in_flight: InFlightLimit::new(IN_FLIGHT_MAX),
            locks: KeyLocks::default(),
            texts: Texts::default(),
            swept: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            parts,
        });
        for stage in Stage::ALL {
            pipeline.parts.letters.serve(stage.name(), pipeline.clone());
        }
        pipeline.parts.orders.keep(pipeline.clone());
        Ok(pipeline)
    }

    fn clock(&self) -> &ServerClock {
        self.parts.orders.clock()
    }

    fn due_later(&self) -> Timestamp {
        due_later(self.clock())
    }

    /// Starts the workers and the sweep. `alone` says that no other process serves these orders, so that all
    /// that is open is taken up at once.
    pub fn start(self: &Arc<Self>, alone: bool) {
        self.start_queues();
        let sweep = self.clone();
        self.tasks.spawn(supervisor::SWEEP.watch(move || sweep.clone().sweep_until_stopped(alone)));
    }

    /// Takes no more work, and waits until what is under way has ended. What is left in queues is found again
    /// by events or a sweep.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs something on the side, whose end `finish` waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Does some work unless the pipeline stops first.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    /// Orders that have a worker or wait for one.
    pub fn under_way(&self) -> usize {
        self.in_flight.taken()
    }

    /// The text that a dead letter keeps.
    pub fn letter_text(&self, letter: &Record) -> String {
        match self.parts.letters.records().schema().get(&letter.values, "payload") {
            Value::Json(payload) => payload.to_value()["text"].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    /// Takes new settings.
    pub fn apply(&self, settings: &Settings) {
        let before = self.tools.load_full();
        if before.settings == *settings {
            return;
        }
        if before.settings.breaker != settings.breaker {
            let breaker = &settings.breaker;
            for one in [&self.bank, &self.messenger] {
                one.configure(breaker.threshold, breaker.timeout.0);
            }
        }
        self.queues.resize(&settings.workers);
        self.tools.store(Arc::new(Tools::of(settings, &self.parts)));
    }

    /// Takes up an order that an event speaks of, unless it has ended; waits while too many are under way.
    /// `status` is the order's, as the event has it.
    pub async fn offer(&self, order: Key, status: &str, ticket: Ticket) {
        let stage = Stage::of_status(status);
        if stage == Stage::Done {
            return ticket.seen_to();
        }
        if let Some(place) = self.in_flight.wait_for_one(order).await {
            self.queues.send(stage, Job { place, ticket: Some(ticket), failed: 0, seen: None });
        }
    }

    /// Looks at an order soon, unless it is under way or there is no room; else a sweep does.
    pub fn hint(&self, stage: Stage, order: Key) {
        if let Some(place) = self.in_flight.take_one(order) {
            self.queues.send(stage, Job { place, ticket: None, failed: 0, seen: None });
        }
    }

    /// The timeline of an order, as the API shows it.
    ///
    /// # Errors
    /// `NotFound`, or what the store says.
    pub async fn timeline(&self, order: &Key) -> Result<Tree, ServiceError> {
        let record = self.parts.orders.find_one(order).await?.ok_or(ServiceError::NotFound)?;
        let schema = self.parts.orders.schema();
        let Progress {
            stage,
            ending,
            reason,
            sold: _,
            attempts,
            parked,
            trace,
            charge: _,
            charged_as: _,
            timeline,
        } = Progress::of(schema, &record.values);
        Ok(json!({
            "order_id": record.key.as_str(), "version": record.version.0,
            "status": schema.get(&record.values, "status").as_text(), "stage": stage.name(),
            "ending": ending, "reason": reason, "attempts": attempts, "dead_letter": parked,
            "trace_id": trace, "steps": timeline,
        }))
    }

    /// How many products have stock that is held for orders.
    async fn holding(&self) -> Result<u64, ServiceError> {
        let Some(products) = &self.parts.products else { return Ok(0) };
        let Some(index) = products.schema().internal_index_of("held_since") else { return Ok(0) };
        products.count(Filter::Not(Box::new(Filter::IsNull(FieldRef::Field(index))))).await
    }

    /// What the pipeline did and does, as the API shows it.
    ///
    /// # Errors
    /// What the store of dead letters says.
    pub async fn figures(&self) -> Result<Tree, ServiceError> {
        let mut stages = Vec::new();
        for stage in Stage::ALL {
            let mut figures = self.queues.figures(stage);
            figures["dead_letters"] = self.parts.letters.count(stage.name()).await?.into();
            stages.push(figures);
        }
        Ok(json!({
            "stages": stages,
            "under_way": self.under_way(), "places": IN_FLIGHT_MAX, "holding": self.holding().await?,
            "dependencies": { "payments": self.bank.figures(), "notifications": self.messenger.figures() },
        }))
    }
}

#[cfg(test)]
mod tests;
