//! One load per key at a time across replicas: who has the lease in the shared tier loads, the others wait
//! until the tier has the record.
//!
//! The lease only saves loads. Where the shared tier fails, or the owner is slow or gone, everybody loads;
//! versions keep it right.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{super::layers::SharedLayer, Fetch};
use crate::shared::SharedCache;

/// The right to load some keys.
pub struct Lease {
    cache: Arc<dyn SharedCache>,
    keys: Vec<String>,
    owner: Arc<str>,
}

/// How long a lease lasts: about what a slow load takes. Also the longest wait for another replica.
const LEASE_MS: u64 = 1_000;
/// The wait before the shared tier is asked again, doubled up to the longest.
const ASK_FIRST: Duration = Duration::from_millis(2);
const ASK_MAX: Duration = Duration::from_millis(32);

impl Lease {
    /// Lets other replicas load.
    pub async fn give_back(self) {
        self.cache.release(&self.keys, &self.owner).await;
    }
}

impl Fetch {
    /// Loads what no other replica loads just now, and waits for the rest.
    pub(super) async fn load_once(mut self, layer: &SharedLayer) {
        let owner: Arc<str> = uuid::Uuid::now_v7().to_string().into();
        let (deadline, mut wait) = (Instant::now() + Duration::from_millis(LEASE_MS), ASK_FIRST);
        while !self.leaders.is_empty() {
            let keys: Vec<String> =
                self.leaders.iter().map(|leader| layer.shared_key(leader.flight().key())).collect();
            let given = match layer.cache.lease(&keys, &owner, LEASE_MS).await {
                Ok(given) if Instant::now() < deadline => given,
                Ok(_) => return self.load().await,
                Err(error) => {
                    layer.counters.failed(&error, keys.len());
                    return self.load().await;
                }
            };
            let mine: HashSet<String> =
                keys.into_iter().zip(given).filter(|(_, given)| *given).map(|(key, _)| key).collect();
            // who loaded meanwhile filled the tier before the lease was given back, and maybe after it was
            // asked
            let has_waited = wait > ASK_FIRST;
            if mine.len() == self.leaders.len() {
                self.lease =
                    Some(Lease { cache: layer.cache.clone(), keys: mine.into_iter().collect(), owner });
                if has_waited {
                    self.ask_again(layer).await;
                }
                return self.load().await;
            }
            if !mine.is_empty() {
                let mut part = self.part(layer, mine, owner.clone());
                if has_waited {
                    part.ask_again(layer).await;
                }
                tokio::spawn(part.load());
            }
            sleep(wait).await;
            wait = (wait * 2).min(ASK_MAX);
            self.ask_again(layer).await;
        }
    }

    /// Lands what another replica has loaded.
    async fn ask_again(&mut self, layer: &SharedLayer) {
        let waiting = self.leaders.len();
        self.ask(layer).await;
        self.inner.counters.awaited.add(waiting - self.leaders.len());
    }

    /// The part of this load whose keys were given.
    fn part(&mut self, layer: &SharedLayer, given: HashSet<String>, owner: Arc<str>) -> Self {
        let is_given =
            |leader: &crate::flight::Leader<_>| given.contains(&layer.shared_key(leader.flight().key()));
        let (leaders, rest) = std::mem::take(&mut self.leaders).into_iter().partition(is_given);
        self.leaders = rest;
        let fallbacks = self.fallbacks.extract_if(|key, _| given.contains(&layer.shared_key(key))).collect();
        let lease = Lease { cache: layer.cache.clone(), keys: given.into_iter().collect(), owner };
        Self {
            inner: self.inner.clone(),
            leaders,
            load: self.load.clone(),
            began_ms: self.began_ms,
            fallbacks,
            lease: Some(lease),
        }
    }
}
