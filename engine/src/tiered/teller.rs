//! What a shared tier is yet to be told of committed versions: in order for each key, together, again until
//! it took them.

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

/// Tells one shared cache of the commits of one pool.
pub struct Teller {
    debts: Arc<Debts>,
    worker: AbortHandle,
}

struct Debts {
    owed: Mutex<HashMap<Key, Debt>>,
    news: Notify,
    ledger: Box<dyn Ledger>,
}

struct Debt {
    order: Order,
    paid: Vec<oneshot::Sender<()>>,
}

/// Who is told what the shared cache has taken, and that debts were given up.
pub trait Ledger: Send + Sync {
    /// The cache holds nothing older than this version of the key.
    fn paid(&self, key: &Key, version: Version);
    /// Too much was owed: the cache may hold anything older than now.
    fn bankrupt(&self);
}

/// Keys that are told of at once.
const BATCH: usize = 256;
/// Keys that may be owed; beyond, all is given up at once, since trust in the whole cache is cheaper to
/// withdraw.
const OWED_MAX: usize = 100_000;
/// The wait after a failure, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

impl Teller {
    /// A teller that works until it is dropped.
    pub fn new(cache: Arc<dyn SharedCache>, counters: Arc<TierCounters>, ledger: Box<dyn Ledger>) -> Self {
        let debts = Arc::new(Debts { owed: Mutex::default(), news: Notify::new(), ledger });
        let worker = supervisor::TELLER.spawn(work(debts.clone(), cache, counters)).abort_handle();
        Self { debts, worker }
    }

    /// Owes an order for a key, instead of an older one. The receiver hears when the cache took it or
    /// something newer.
    pub fn owe(&self, key: &Key, order: Order) -> oneshot::Receiver<()> {
        let (paid, receipt) = oneshot::channel();
        self.debts.add(key.clone(), Debt { order, paid: vec![paid] });
        self.debts.news.notify_one();
        receipt
    }

    /// How many keys are owed.
    pub fn owed(&self) -> usize {
        self.debts.owed.lock().len()
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Debts {
    fn add(&self, key: Key, debt: Debt) {
        let mut owed = self.owed.lock();
        if owed.len() >= OWED_MAX {
            owed.clear();
            self.ledger.bankrupt();
        }
        match owed.entry(key) {
            Entry::Vacant(vacant) => _ = vacant.insert(debt),
            Entry::Occupied(mut occupied) => {
                let known = occupied.get_mut();
                let newer = (debt.order.version, debt.order.value.is_some())
                    > (known.order.version, known.order.value.is_some());
                if newer {
                    known.order = debt.order;
                }
                // nobody waits long for a cache that is down
                known.paid.retain(|paid| !paid.is_closed());
                known.paid.extend(debt.paid);
            }
        }
    }

    fn take(&self) -> Vec<(Key, Debt)> {
        let mut owed = self.owed.lock();
        let keys: Vec<Key> = owed.keys().take(BATCH).cloned().collect();
        keys.into_iter().filter_map(|key| owed.remove_entry(&key)).collect()
    }
}

async fn work(debts: Arc<Debts>, cache: Arc<dyn SharedCache>, counters: Arc<TierCounters>) {
    let mut wait = RETRY_FIRST;
    loop {
        let batch = debts.take();
        if batch.is_empty() {
            debts.news.notified().await;
        } else if tell(&debts, batch, &*cache, &counters).await {
            wait = RETRY_FIRST;
        } else {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}

/// Tells of a batch; what the cache did not take is owed again. Says whether it took all.
async fn tell(
    debts: &Debts,
    batch: Vec<(Key, Debt)>,
    cache: &dyn SharedCache,
    counters: &TierCounters,
) -> bool {
    let orders: Vec<Order> = batch.iter().map(|(_, debt)| debt.order.clone()).collect();
    let answers = cache.tell(&orders).await;
    let mut all = true;
    for ((key, debt), answer) in batch.into_iter().zip(answers) {
        match answer {
            Ok(()) => {
                counters.fenced.inc();
                debts.ledger.paid(&key, debt.order.version);
                debt.paid.into_iter().for_each(|paid| _ = paid.send(()));
            }
            Err(error) => {
                all = false;
                counters.failed(&error, 1);
                debts.add(key, debt);
            }
        }
    }
    all
}
