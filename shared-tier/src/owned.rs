//! A shared cache under one prefix, used only while the prefix is the service's own: a mark in the cache says
//! whose it is.
//!
//! A prefix of another owner is a miss for every read and takes nothing in: a failing cache never fails a
//! read.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::sleep};

use crate::RedisCache;
use engine::{
    clock::Clock,
    shared::{Held, Order, SharedCache, SharedError, SharedStatus},
};
use runtime::{
    owner::{Claim, Owner, Standing, Verdict},
    supervisor,
};

/// What the key of the mark ends in: no record's key can.
const MARK: &str = "flyweight!owner";
/// How long a mark outlives whoever left it, in ms: longer than anything that is kept under the prefix.
const MARK_KEEP_MS: u64 = 7 * 24 * 3_600_000;
/// How often the mark is looked at, and how often until it is found to be the service's own.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVAL_UNSETTLED: Duration = Duration::from_secs(1);
/// How long a read waits for the first verdict.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How often a mark that changes under one's hands is looked at again at once.
const RACES_MAX: u32 = 4;

/// A prefix of a shared cache.
pub struct OwnedCache {
    inner: Arc<RedisCache>,
    key: String,
    claim: Claim,
    clock: Clock,
    /// What was put in before was another's.
    own_since_ms: AtomicU64,
    /// Whether nobody has looked yet.
    first: watch::Sender<bool>,
}

impl OwnedCache {
    /// Watches the mark of a prefix until it is dropped. To be called in a tokio runtime.
    pub fn watch(
        inner: Arc<RedisCache>,
        prefix: &str,
        owner: watch::Receiver<Owner>,
        clock: Clock,
    ) -> Arc<Self> {
        let (claim, key) = (Claim::new(owner), format!("{prefix}{MARK}"));
        let first = watch::Sender::new(true);
        let cache = Arc::new(Self { inner, key, claim, clock, own_since_ms: AtomicU64::new(0), first });
        let looked = (Arc::downgrade(&cache), cache.claim.owner.clone());
        supervisor::OWNER.spawn(move || look_for_ever(looked.0.clone(), looked.1.clone()));
        cache
    }

    /// Looks whose the prefix is, and marks it where it is nobody's.
    pub(super) async fn look(&self) {
        let standing = self.verdict().await;
        if let Ok(standing) = standing {
            self.claim.settle(&self.key, standing);
        }
        self.first.send_if_modified(std::mem::take);
    }

    async fn verdict(&self) -> Result<Standing, SharedError> {
        for _ in 0..RACES_MAX {
            let found = self.inner.mark(&self.key).await?;
            let owner = self.claim.owner.borrow().clone();
            let (mark, anew) = match owner.judge(found.as_deref()) {
                Verdict::Wait => return Ok(self.claim.standing.borrow().clone()),
                Verdict::Refuse(owner) => return Ok(Standing::Another(owner)),
                Verdict::Keep => (found.clone().unwrap_or_default(), false),
                Verdict::Leave { mark, anew } => (mark, anew),
            };
            if self.inner.leave_mark(&self.key, found.as_deref(), &mark, MARK_KEEP_MS).await? {
                if anew || self.owned_by().is_some() {
                    self.own_since_ms.store(self.clock.now_ms(), Ordering::Release);
                }
                return Ok(Standing::Own);
            }
        }
        Ok(Standing::Unknown)
    }

    /// Whether the prefix may be used.
    async fn allowed(&self) -> Result<Standing, SharedError> {
        let mut first = self.first.subscribe();
        if *first.borrow() {
            _ = tokio::time::timeout(FIRST_WAIT, first.wait_for(|first| !first)).await;
        }
        match &*self.claim.standing.borrow() {
            Standing::Unknown => {
                Err(SharedError::Failed("it is not known yet whose the prefix is".to_owned()))
            }
            known => Ok(known.clone()),
        }
    }
}

async fn look_for_ever(cache: Weak<OwnedCache>, mut owner: watch::Receiver<Owner>) {
    loop {
        let Some(held) = cache.upgrade() else { return };
        owner.borrow_and_update();
        held.look().await;
        let own = *held.claim.standing.borrow() == Standing::Own;
        drop(held);
        tokio::select! {
            () = sleep(if own { INTERVAL } else { INTERVAL_UNSETTLED }) => {}
            // whoever could change has gone: the wait goes on
            () = async { if owner.changed().await.is_err() { std::future::pending::<()>().await } } => {}
        }
    }
}

#[async_trait]
impl SharedCache for OwnedCache {
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Held>>, SharedError> {
        match self.allowed().await? {
            Standing::Own => self.inner.get_many(keys).await,
            Standing::Another(_) | Standing::Unknown => Ok(vec![None; keys.len()]),
        }
    }

    async fn tell(&self, orders: &[Order]) -> Vec<Result<(), SharedError>> {
        match self.allowed().await {
            Ok(Standing::Own) => self.inner.tell(orders).await,
            // nothing is read from there, and nothing of before is believed once it is the service's own
            Ok(Standing::Another(_) | Standing::Unknown) => vec![Ok(()); orders.len()],
            Err(error) => vec![Err(error); orders.len()],
        }
    }

    async fn take(&self, key: &str) -> Result<Option<Held>, SharedError> {
        match self.allowed().await? {
            Standing::Own => self.inner.take(key).await,
            Standing::Another(_) | Standing::Unknown => Ok(None),
        }
    }

    async fn lease(&self, keys: &[String], owner: &str, keep_ms: u64) -> Result<Vec<bool>, SharedError> {
        match self.allowed().await? {
            Standing::Own => self.inner.lease(keys, owner, keep_ms).await,
            Standing::Another(_) | Standing::Unknown => Ok(vec![true; keys.len()]),
        }
    }

    async fn release(&self, keys: &[String], owner: &str) {
        if *self.claim.standing.borrow() == Standing::Own {
            self.inner.release(keys, owner).await;
        }
    }

    fn trusted_since_ms(&self) -> u64 {
        self.inner.trusted_since_ms().max(self.own_since_ms.load(Ordering::Acquire))
    }

    fn status(&self) -> SharedStatus {
        self.inner.status()
    }

    async fn ping(&self) -> Result<(), SharedError> {
        self.inner.ping().await
    }

    fn owned_by(&self) -> Option<String> {
        self.claim.standing.borrow().another()
    }
}
