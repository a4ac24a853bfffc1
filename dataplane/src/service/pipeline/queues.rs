//! The queues of the stages: a queue and so many workers for each, which can change while they work.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crds::service::messaging::StageWorkers;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use serde_json::{Value as Tree, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Pipeline;
use events::consumer::Ticket;
use model::{key::Key, progress::Stage, record::Record};
use runtime::supervisor;

/// What can come of a step.
pub const OUTCOMES: [&str; 4] = ["done", "retried", "postponed", "dead_lettered"];

/// An order that is under way. Dropped before it is seen to, its event comes again.
pub struct Job {
    /// Its place among those that may be under way at once, with its key.
    pub place: Place,
    /// The event that it is under way for.
    pub ticket: Option<Ticket>,
    /// How often it was postponed for what it has no part in.
    pub failed: u32,
    /// The order as the worker of the stage before left it: whoever changed it since is found out by its
    /// version.
    pub seen: Option<Record>,
}

/// The limit of jobs that are in flight at once, and of those of one order.
pub struct InFlightLimit {
    free: Arc<Semaphore>,
    count: usize,
    /// The orders that have places, and how many each.
    orders: Arc<Mutex<HashMap<Key, usize>>>,
}

impl Job {
    /// Its event is seen to: what is left to do is in the order itself.
    pub fn see_to_event(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.seen_to();
        }
    }
}

/// One place, with the order that has it.
pub struct Place {
    /// The order.
    pub order: Key,
    orders: Arc<Mutex<HashMap<Key, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl InFlightLimit {
    /// So many places.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), count, orders: Arc::default() }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.count.saturating_sub(self.free.available_permits())
    }

    /// Whether more than half are taken.
    pub fn is_crowded(&self) -> bool {
        self.taken() > self.count / 2
    }

    /// A place, once there is one.
    pub async fn wait_for_one(&self, order: Key) -> Option<Place> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        *self.orders.lock().entry(order.clone()).or_insert(0) += 1;
        Some(Place { order, orders: self.orders.clone(), _permit: permit })
    }

    /// A place, if there is one and the order has none yet.
    pub fn take_one(&self, order: Key) -> Option<Place> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        let mut orders = self.orders.lock();
        if orders.contains_key(&order) {
            return None;
        }
        orders.insert(order.clone(), 1);
        drop(orders);
        Some(Place { order, orders: self.orders.clone(), _permit: permit })
    }
}

impl Place {
    /// How many places the order has, with this one.
    pub fn count(&self) -> usize {
        self.orders.lock().get(&self.order).copied().unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut orders = self.orders.lock();
        if let Some(in_flight) = orders.get_mut(&self.order) {
            *in_flight -= 1;
            if *in_flight == 0 {
                orders.remove(&self.order);
            }
        }
    }
}

/// All queues.
pub struct StageQueues {
    queues: [StageQueue; 4],
    outcomes: IntCounterVec,
    in_flight: IntGaugeVec,
    queued: IntGaugeVec,
    /// Dead letters, as last counted.
    pub letters: IntGaugeVec,
}

struct StageQueue {
    sender: mpsc::UnboundedSender<Job>,
    /// Taken when the queue starts.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
    workers: Arc<Semaphore>,
    wanted: AtomicU32,
}

impl StageQueue {
    fn new(workers: u32) -> Self {
        // bounded by the places of jobs
        let (sender, receiver) = mpsc::unbounded_channel();
        let semaphore = Arc::new(Semaphore::new(workers as usize));
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            workers: semaphore,
            wanted: AtomicU32::new(workers),
        }
    }

    fn resize(&self, wanted: u32) {
        let before = self.wanted.swap(wanted, Ordering::Relaxed);
        if wanted >= before {
            self.workers.add_permits((wanted - before) as usize);
            return;
        }
        let (workers, gone) = (self.workers.clone(), before - wanted);
        // those that work finish what they do
        tokio::spawn(async move {
            if let Ok(permits) = workers.acquire_many_owned(gone).await {
                permits.forget();
            }
        });
    }
}

impl StageQueues {
    /// Queues with so many workers each, whose counters are registered.
    pub fn new(workers: &StageWorkers, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["stage"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "Steps of the order pipeline, by stage and what came of them.";
        let outcomes =
            IntCounterVec::new(Opts::new("flyweight_pipeline_steps_total", help), &["stage", "outcome"])?;
        registry.register(Box::new(outcomes.clone()))?;
        for (stage, outcome) in
            Stage::ALL.into_iter().flat_map(|stage| OUTCOMES.map(|outcome| (stage, outcome)))
        {
            outcomes.with_label_values(&[stage.name(), outcome]);
        }
        Ok(Self {
            queues: counts(workers).map(StageQueue::new),
            outcomes,
            in_flight: gauge("flyweight_pipeline_in_flight", "Orders that workers have now, by stage.")?,
            letters: gauge(
                "flyweight_dead_letters",
                "Dead letters that wait to be replayed or dropped, by stage.",
            )?,
            queued: gauge("flyweight_pipeline_queued", "Orders that wait for a worker, by stage.")?,
        })
    }

    /// Puts a job at the end of a stage's queue.
    pub fn send(&self, stage: Stage, job: Job) {
        let Some(queue) = self.queue(stage) else { return };
        self.queued.with_label_values(&[stage.name()]).inc();
        // without a receiver the process is ending
        _ = queue.sender.send(job);
    }

    /// Changes the numbers of workers.
    pub fn resize(&self, workers: &StageWorkers) {
        for (queue, wanted) in self.queues.iter().zip(counts(workers)) {
            queue.resize(wanted);
        }
    }

    /// Counts what came of a step.
    pub fn count(&self, stage: Stage, outcome: &str) {
        self.outcomes.with_label_values(&[stage.name(), outcome]).inc();
    }

    /// What a stage did and does.
    pub fn figures(&self, stage: Stage) -> Tree {
        let name = stage.name();
        let workers = self.queue(stage).map(|queue| queue.wanted.load(Ordering::Relaxed));
        let mut figures = json!({
            "stage": name, "workers": workers,
            "queued": self.queued.with_label_values(&[name]).get(),
            "in_flight": self.in_flight.with_label_values(&[name]).get(),
        });
        for outcome in OUTCOMES {
            figures[outcome] = self.outcomes.with_label_values(&[name, outcome]).get().into();
        }
        figures
    }

    fn queue(&self, stage: Stage) -> Option<&StageQueue> {
        Stage::ALL.iter().position(|one| *one == stage).and_then(|at| self.queues.get(at))
    }
}

fn counts(workers: &StageWorkers) -> [u32; 4] {
    let StageWorkers { orders, payments, inventory, notifications } = *workers;
    [orders, payments, inventory, notifications]
}

impl Pipeline {
    /// Starts to work off the queues.
    pub(super) fn start_queues(self: &Arc<Self>) {
        for stage in Stage::ALL {
            let Some(receiver) = self.queues.queue(stage).and_then(|queue| queue.receiver.lock().take())
            else {
                continue;
            };
            let pipeline = self.clone();
            self.tasks
                .spawn(supervisor::STAGE.watch(async move { pipeline.work_off(stage, receiver).await }));
        }
    }

    async fn work_off(self: Arc<Self>, stage: Stage, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let Some(queue) = self.queues.queue(stage) else { return };
        let (queued, in_flight) = (&self.queues.queued, &self.queues.in_flight);
        let (queued, in_flight) =
            (queued.with_label_values(&[stage.name()]), in_flight.with_label_values(&[stage.name()]));
        while let Some(Some(job)) = self.stop.run_until_cancelled(jobs.recv()).await {
            let worker = self.stop.run_until_cancelled(queue.workers.clone().acquire_owned()).await;
            let Some(Ok(worker)) = worker else { return };
            queued.dec();
            in_flight.inc();
            let (pipeline, in_flight) = (self.clone(), in_flight.clone());
            self.tasks.spawn(async move {
                pipeline.handle(stage, job).await;
                in_flight.dec();
                drop(worker);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn the_number_of_workers_changes_while_they_work() {
        let queue = StageQueue::new(2);
        let working = queue.workers.clone().acquire_many_owned(2).await.unwrap();
        queue.resize(5);
        assert_eq!(queue.workers.available_permits(), 3);
        queue.resize(1);
        drop(working);
        let begun = Instant::now();
        while queue.workers.available_permits() != 1 {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{} workers",
                queue.workers.available_permits()
            );
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_order_is_taken_up_once_unless_an_event_insists() {
        let in_flight = InFlightLimit::new(2);
        let order: Key = "o1".parse().unwrap();
        let first = in_flight.take_one(order.clone()).unwrap();
        assert!(in_flight.take_one(order.clone()).is_none(), "it is under way");
        let second = in_flight.wait_for_one(order.clone()).await.unwrap();
        assert_eq!((first.count(), in_flight.taken(), in_flight.is_crowded()), (2, 2, true));
        assert!(in_flight.take_one("o2".parse().unwrap()).is_none(), "there is no room");
        drop(first);
        assert!(second.count() == 1 && !in_flight.is_crowded(), "half of them are free");
        drop(second);
        assert!(in_flight.take_one(order).is_some());
    }
}
