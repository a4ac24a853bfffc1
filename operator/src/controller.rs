//! The wiring: watches wake reconciles, failures are retried per object with a growing pause, and only so
//! many run at once.

use std::{collections::HashSet, convert::Infallible, fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream::poll_fn};
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        Config,
        controller::{Action, Error as RuntimeError, applier},
        reflector::{ObjectRef, Store},
    },
};
use tokio::{
    sync::mpsc::{Receiver, channel},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tracing::Instrument;

use crate::{
    caches::Caches, context::Context, events::Events, memory::Memory, metrics::Metrics, model::error::Error,
    poller::Poller, reconcile, updates::StatusUpdates, wake::Wake, watches::Links, writer::Writer,
};

/// Requests that may wait to be scheduled; watches pause while it is full.
const QUEUE: usize = 1024;
/// The longest that one reconcile may take, all its requests together.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often what was remembered about deleted resources is dropped.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What all namespaces share.
#[derive(Clone)]
pub struct Shared {
    /// The connection to the API server.
    pub client: Client,
    /// The gate that every write passes.
    pub writer: Writer,
    /// Events for `kubectl describe`.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Metrics,
    /// How many objects of one kind are reconciled at once.
    pub concurrency: u16,
}

/// Reconciles one namespace, or all, until it is dropped. `ready` is called once everything has been seen.
pub async fn run(shared: Shared, namespace: Option<String>, ready: impl FnOnce()) {
    let Shared { client, writer, events, metrics, concurrency } = shared;
    let (services, services_due) = channel(QUEUE);
    let (pools, pools_due) = channel(QUEUE);
    let (tiers, tiers_due) = channel(QUEUE);
    let wake = Wake { services, pools, tiers };
    let (caches, feeds) = Caches::new();
    let caches = Arc::new(caches);
    let mut tasks = JoinSet::new();
    let links = Links {
        client: client.clone(),
        namespace,
        caches: caches.clone(),
        wake: wake.clone(),
        metrics: metrics.clone(),
    };
    links.start(feeds, &mut tasks);
    let context = Arc::new(Context {
        client,
        writer,
        caches: caches.clone(),
        wake,
        memory: Memory::default(),
        updates: StatusUpdates::default(),
        poller: Poller::new(metrics.clone()),
        events,
        metrics,
    });
    let announce = async {
        if caches.filled().await {
            ready();
        }
    };
    let reconciles = async {
        tokio::join!(
            drive(caches.services.clone(), services_due, reconcile::service, context.clone(), concurrency),
            drive(caches.pools.clone(), pools_due, reconcile::pool, context.clone(), concurrency),
            drive(caches.tiers.clone(), tiers_due, reconcile::tier, context.clone(), concurrency),
        )
    };
    tokio::join!(announce, reconciles, forget(&context));
}

async fn forget(context: &Context) {
    let mut due = interval(FORGET_EVERY);
    loop {
        due.tick().await;
        if context.caches.filled().await {
            let caches = &context.caches;
            let (services, pools, tiers) =
                (caches.services.state(), caches.pools.state(), caches.tiers.state());
            let mut living: HashSet<String> = services.iter().filter_map(|one| one.uid()).collect();
            living.extend(pools.iter().filter_map(|one| one.uid()));
            living.extend(tiers.iter().filter_map(|one| one.uid()));
            context.memory.retain(&living);
            caches.forget_children();
            context.updates.retain(|namespace, name| {
                services
                    .iter()
                    .any(|one| one.name_any() == name && one.namespace().as_deref() == Some(namespace))
            });
        }
    }
}

/// Runs the reconciles of one kind. The same object is never reconciled twice at once.
async fn drive<K, F>(
    store: Store<K>,
    mut due: Receiver<ObjectRef<K>>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F + Copy + Send + 'static,
    context: Arc<Context>,
    concurrency: u16,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send,
{
    let queue = poll_fn(move |cx| due.poll_recv(cx)).map(Ok::<_, Infallible>);
    let step = move |object, context| one(object, context, reconcile).boxed();
    let config = Config::default().concurrency(concurrency);
    let results = applier(step, retry, context, store, queue, config);
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            // Gone in the meantime: its children go by their owner references.
            Ok(_) | Err(RuntimeError::ObjectNotFound(_) | RuntimeError::ReconcilerFailed(..)) => (),
            Err(error) => tracing::error!(%error, "the controller stumbled"),
        }
    }
}

async fn one<K, F>(
    object: Arc<K>,
    context: Arc<Context>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action, Error>>,
{
    if !context.caches.filled().await {
        return Ok(Action::await_change());
    }
    if let Some(rest) = context.memory.rest(&object.uid().unwrap_or_default()) {
        return Ok(Action::requeue(rest));
    }
    let started = Instant::now();
    let kind = K::kind(&());
    let (namespace, name) = (object.meta().namespace.as_deref(), object.meta().name.as_deref());
    let span = tracing::debug_span!("reconcile", %kind, namespace, name);
    let work = reconcile(object.clone(), context.clone()).instrument(span);
    let outcome = timeout(RECONCILE_TIMEOUT, work).await.unwrap_or_else(|_| {
        let object = format!("{kind} {}", object.meta().name.as_deref().unwrap_or_default());
        Err(Error::Timeout { verb: "reconcile", object, seconds: RECONCILE_TIMEOUT.as_secs() })
    });
    context.metrics.reconciled(&kind, outcome.is_ok(), started.elapsed());
    if outcome.is_ok() {
        context.memory.succeeded(&object.uid().unwrap_or_default());
    }
    outcome
}

fn retry<K: Resource<DynamicType = ()>>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    let wait = context.memory.backoff(&object.uid().unwrap_or_default());
    let namespace = object.namespace().unwrap_or_default();
    tracing::warn!(kind = %K::kind(&()), namespace, name = object.name_any(), %error, ?wait, "a reconcile failed");
    Action::requeue(wait)
}
