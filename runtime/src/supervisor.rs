//! Background tasks: this is the list of them, and what becomes of one that panics. It is told in the log and
//! counted; then it is begun again, or the process ends, so that another one takes its place.
//!
//! A task is [`Vital`] where the process would be wrong without it, or hold what only the task knows. It is
//! [`Restarted`] where it looks at things anew each time. Tasks of one request are no background tasks: their
//! panics end the request.

use std::{
    any::Any,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
    time::Duration,
};

use futures::FutureExt;
use prometheus::{IntCounterVec, Opts};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::error;

/// The wait before a task is begun again: the first, and the longest. It doubles from one panic to the next.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A task that went on for so long begins with the first wait.
const STEADY: Duration = Duration::from_secs(60);

/// A task whose end by a panic ends the process.
#[derive(Clone, Copy, Debug)]
pub struct Vital(&'static str);

/// A task that is begun again after a panic.
#[derive(Clone, Copy, Debug)]
pub struct Restarted(&'static str);

/// Says that requests are welcome.
pub const ANNOUNCEMENT: Vital = Vital("announcement");
/// The admin port.
pub const ADMIN: Vital = Vital("admin");
/// Lets changes reach the tiers.
pub const INVALIDATION: Vital = Vital("invalidation");
/// Reads the feed from the broker.
pub const FOLLOWER: Vital = Vital("follower");
/// Tells the clients of the live feed.
pub const LIVE: Vital = Vital("live");
/// Moves events from an outbox to the bus.
pub const RELAY: Vital = Vital("relay");
/// Applies events from outside.
pub const INGESTION: Vital = Vital("ingestion");
/// Puts events from outside into the embedded log, or makes the topic for them.
pub const INTAKE: Vital = Vital("intake");
/// Puts entries into a log in a store.
pub const LOG_WRITER: Vital = Vital("log-writer");
/// Takes events of orders to the pipeline.
pub const ORDERS: Vital = Vital("orders");
/// Gives orders of one stage to workers.
pub const STAGE: Vital = Vital("stage");
/// Prepares the stores, and says when the process is ready.
pub const READINESS: Vital = Vital("readiness");
/// Reads changed settings.
pub const CONFIGURATION: Vital = Vital("configuration");
/// Lets changed settings act.
pub const SETTINGS: Vital = Vital("settings");
/// Follows a mounted Secret.
pub const SECRETS: Vital = Vital("secrets");
/// Puts writes into the log before a store.
pub const WRITE_BEHIND_LOG: Vital = Vital("write-behind-log");
/// Learns what the log before a store has.
pub const WRITE_BEHIND_LEDGER: Vital = Vital("write-behind-ledger");
/// Settles in the store what the log has.
pub const WRITE_BEHIND_SETTLE: Vital = Vital("write-behind-settle");
/// Tells the shared tier what was committed.
pub const INVALIDATION_QUEUE: Vital = Vital("invalidation-queue");

/// Shows that the threads that serve turn.
pub const PULSE: Restarted = Restarted("pulse");
/// Finds the pods behind the gateway.
pub const DISCOVERY: Restarted = Restarted("discovery");
/// Asks the pods behind the gateway how they are.
pub const POD_CHECKS: Restarted = Restarted("pod-checks");
/// Asks each part how it is.
pub const CHECKS: Restarted = Restarted("checks");
/// Reads the settings of each part.
pub const PART_SETTINGS: Restarted = Restarted("part-settings");
/// Prepares again what is away.
pub const PREPARATION: Restarted = Restarted("preparation");
/// Learns which database it is.
pub const IDENTITY: Restarted = Restarted("identity");
/// Looks whose a prefix is.
pub const OWNER: Restarted = Restarted("owner");
/// Drops what is older than its retention.
pub const UPKEEP: Restarted = Restarted("upkeep");
/// Drops idle entries.
pub const CLEAN_UP: Restarted = Restarted("clean-up");
/// Watches how much memory is used.
pub const MEMORY: Restarted = Restarted("memory");
/// Measures the load.
pub const LOAD: Restarted = Restarted("load");
/// Compares the tiers with the stores.
pub const STALENESS: Restarted = Restarted("staleness");
/// Tells other replicas which keys are read most.
pub const POPULAR: Restarted = Restarted("popular");
/// Follows the clock of Redis.
pub const REDIS_CLOCK: Restarted = Restarted("redis-clock");
/// Looks who the nodes of a Redis cluster are.
pub const REDIS_NODES: Restarted = Restarted("redis-nodes");
/// Finds orders that stand still.
pub const SWEEP: Restarted = Restarted("sweep");
/// Shares a log in a store out over the replicas.
pub const GROUP_MEMBER: Restarted = Restarted("group-member");
/// Drops old events of the feed in a store or a file.
pub const FEED_UPKEEP: Restarted = Restarted("feed-upkeep");
/// Fetches the keys of an issuer of tokens.
pub const ISSUER: Restarted = Restarted("issuer");

/// What became of the tasks of this process.
static PROCESS: LazyLock<Supervisor> = LazyLock::new(Supervisor::default);

/// What became of tasks.
struct Supervisor {
    panics: IntCounterVec,
    /// The vital task that panicked first.
    ended: watch::Sender<Option<&'static str>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let help = "Panics of background tasks since the start, by task.";
        let panics = IntCounterVec::new(Opts::new("flyweight_task_panics_total", help), &["task"]);
        // a name and a label that are written here are valid
        let panics = panics.unwrap_or_else(|error| unreachable!("{error}"));
        Self { panics, ended: watch::Sender::new(None) }
    }
}

/// How often each task panicked, for Prometheus.
pub fn panics() -> IntCounterVec {
    PROCESS.panics.clone()
}

/// Returns when a vital task has panicked, with its name: the process is to end.
pub async fn ended() -> &'static str {
    PROCESS.ended().await
}

/// The vital task that panicked, where one did.
pub fn ended_by() -> Option<&'static str> {
    *PROCESS.ended.borrow()
}

impl Vital {
    /// Runs a task in the background.
    pub fn spawn(self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(self.watch(task))
    }

    /// Runs a task here.
    pub async fn watch(self, task: impl Future<Output = ()>) {
        PROCESS.vital(self.0, task).await;
    }

    /// Runs what has a thread of its own.
    pub fn run(self, task: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(task)) {
            PROCESS.end(self.0, &*panic);
        }
    }
}

impl Restarted {
    /// Runs a task in the background, from its beginning after each panic.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        self,
        begin: impl Fn() -> F + Send + Sync + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.watch(begin))
    }

    /// Runs a task here, from its beginning after each panic.
    pub async fn watch<F: Future<Output = ()>>(self, begin: impl Fn() -> F) {
        PROCESS.restarted(self.0, begin).await;
    }
}

impl Supervisor {
    async fn vital(&self, name: &'static str, task: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
            self.end(name, &*panic);
        }
    }

    async fn restarted<F: Future<Output = ()>>(&self, name: &'static str, begin: impl Fn() -> F) {
        let mut wait = WAIT_MIN;
        loop {
            let began = Instant::now();
            // what begins it is part of it
            let Err(panic) = AssertUnwindSafe(async { begin().await }).catch_unwind().await else { return };
            if began.elapsed() > STEADY {
                wait = WAIT_MIN;
            }
            self.count(name);
            error!(
                task = name,
                panic = text(&*panic),
                wait_ms = wait.as_millis() as u64,
                "a background task panicked and is begun again"
            );
            sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn ended(&self) -> &'static str {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.map(|ended| *ended);
        match ended {
            Ok(Some(name)) => name,
            // the sender lives as long as this
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn end(&self, name: &'static str, panic: &(dyn Any + Send)) {
        self.count(name);
        error!(
            task = name,
            panic = text(panic),
            "a background task panicked: the process ends, since it would be wrong without it"
        );
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(name);
            first
        });
    }

    fn count(&self, name: &str) {
        self.panics.with_label_values(&[name]).inc();
    }
}

/// What a panic said.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("something that is no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn panics(supervisor: &Supervisor, name: &str) -> u64 {
        supervisor.panics.with_label_values(&[name]).get()
    }

    #[tokio::test]
    async fn a_task_that_panics_is_counted_and_begun_again_until_it_ends() {
        let (supervisor, begun) = (Supervisor::default(), AtomicU32::new(0));
        let start = Instant::now();
        supervisor
            .restarted("one", || {
                // also where it does not come to its first wait
                let before = begun.fetch_add(1, Ordering::Relaxed);
                assert!(before != 0, "at once");
                async move { assert!(before > 2, "later") }
            })
            .await;
        assert_eq!((begun.into_inner(), panics(&supervisor, "one"), panics(&supervisor, "two")), (4, 3, 0));
        assert!(start.elapsed() >= WAIT_MIN * 7, "each wait is twice the one before: {:?}", start.elapsed());
        assert_eq!(*supervisor.ended.borrow(), None, "the process goes on");
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_ends_the_process_and_one_that_returns_does_not() {
        let supervisor = Supervisor::default();
        supervisor.vital("well", async {}).await;
        assert_eq!((*supervisor.ended.borrow(), panics(&supervisor, "well")), (None, 0));
        let ended = supervisor.ended();
        supervisor.vital("first", async { panic!("at the disk") }).await;
        supervisor.vital("second", async { panic!("at the disk") }).await;
        assert_eq!(ended.await, "first");
        assert_eq!((panics(&supervisor, "first"), panics(&supervisor, "second")), (1, 1));
    }
}
