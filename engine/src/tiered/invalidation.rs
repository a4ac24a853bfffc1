//! The invalidation queue of a shared tier: committed versions that it has not taken yet. They go out in
//! order for each key, many at once, and again until it took them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::AbortHandle,
};

use super::stats::TierCounters;
use crate::shared::{Order, SharedCache};
use model::key::{Key, Version};
use runtime::supervisor;

/// Tells one shared cache of the commits of one pool, as long as it is not dropped.
pub struct InvalidationQueue {
    queue: Arc<Queue>,
    worker: AbortHandle,
}

struct Queue {
    waiting: Mutex<HashMap<Key, Pending>>,
    news: Notify,
    acknowledgements: Box<dyn Acknowledgements>,
}

struct Pending {
    order: Order,
    acknowledged: Vec<oneshot::Sender<()>>,
}

/// Who is told what the shared cache has taken, and that the queue was given up.
pub trait Acknowledgements: Send + Sync {
    /// The cache holds nothing older than this version of the key.
    fn acknowledged(&self, key: &Key, version: Version);
    /// Too much was in the queue, which was emptied: the cache may hold anything older than now.
    fn overflowed(&self);
}

/// Keys that are told of at once.
const BATCH: usize = 256;
/// Keys that may wait; beyond, all is given up at once, since trust in the whole cache is cheaper to
/// withdraw.
const WAITING_MAX: usize = 100_000;
/// The wait after a failure, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

impl InvalidationQueue {
    /// A queue that is worked off until it is dropped.
    pub fn new(
        cache: Arc<dyn SharedCache>,
        counters: Arc<TierCounters>,
        acknowledgements: Box<dyn Acknowledgements>,
    ) -> Self {
        let queue = Arc::new(Queue { waiting: Mutex::default(), news: Notify::new(), acknowledgements });
        let worker =
            supervisor::INVALIDATION_QUEUE.spawn(work(queue.clone(), cache, counters)).abort_handle();
        Self { queue, worker }
    }

    /// Adds an order for a key, in the place of an older one. The receiver hears when the cache took it or
    /// something newer.
    pub fn push(&self, key: &Key, order: Order) -> oneshot::Receiver<()> {
        let (acknowledged, receipt) = oneshot::channel();
        self.queue.add(key.clone(), Pending { order, acknowledged: vec![acknowledged] });
        self.queue.news.notify_one();
        receipt
    }

    /// How many keys wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting.lock().len()
    }
}

impl Drop for InvalidationQueue {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Queue {
    fn add(&self, key: Key, pending: Pending) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.clear();
            self.acknowledgements.overflowed();
        }
        match waiting.entry(key) {
            Entry::Vacant(vacant) => _ = vacant.insert(pending),
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                let newer = (pending.order.version, pending.order.value.is_some())
                    > (known.order.version, known.order.value.is_some());
                if newer {
                    known.order = pending.order;
                }
                // nobody waits long for a cache that is down
                known.acknowledged.retain(|acknowledged| !acknowledged.is_closed());
                known.acknowledged.extend(pending.acknowledged);
            }
        }
    }

    fn take(&self) -> Vec<(Key, Pending)> {
        let mut waiting = self.waiting.lock();
        let keys: Vec<Key> = waiting.keys().take(BATCH).cloned().collect();
        keys.into_iter().filter_map(|key| waiting.remove_entry(&key)).collect()
    }
}

async fn work(queue: Arc<Queue>, cache: Arc<dyn SharedCache>, counters: Arc<TierCounters>) {
    let mut wait = RETRY_FIRST;
    loop {
        let batch = queue.take();
        if batch.is_empty() {
            queue.news.notified().await;
        } else if tell(&queue, batch, &*cache, &counters).await {
            wait = RETRY_FIRST;
        } else {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}

/// Tells of a batch; what the cache did not take goes back into the queue. Says whether it took all.
async fn tell(
    queue: &Queue,
    batch: Vec<(Key, Pending)>,
    cache: &dyn SharedCache,
    counters: &TierCounters,
) -> bool {
    let orders: Vec<Order> = batch.iter().map(|(_, pending)| pending.order.clone()).collect();
    let answers = cache.tell(&orders).await;
    let mut all = true;
    for ((key, pending), answer) in batch.into_iter().zip(answers) {
        match answer {
            Ok(()) => {
                counters.fenced.inc();
                queue.acknowledgements.acknowledged(&key, pending.order.version);
                pending.acknowledged.into_iter().for_each(|acknowledged| _ = acknowledged.send(()));
            }
            Err(error) => {
                all = false;
                counters.failed(&error, 1);
                queue.add(key, pending);
            }
        }
    }
    all
}
