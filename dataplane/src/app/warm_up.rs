//! Fills memory as each pool declares before requests are welcome, within a deadline; and tells later
//! replicas what is read most.

use std::{sync::Arc, time::Duration};

use crds::{pool::WarmUp, settings::PoolSettings};
use futures::future::join_all;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::feed::Followed;
use crate::service::{factory::Factory, write_behind::WriteBehind};
use events::EventBus;

/// How long requests are kept waiting for the declared warm-ups. What is not loaded by then comes with the
/// first reads.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long the feed is waited for: what is loaded before it is followed is loaded again.
const FEED_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// The wait before a warm-up that the store failed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the keys that are read most are told, shortened at random by up to a half.
const TELL_INTERVAL: Duration = Duration::from_secs(30);

/// Warms up the pools that want it, whose changes are followed by now.
pub fn run<A: Fn(&str) -> bool + Send + Sync>(
    _: &Followed,
    pools: Vec<PoolSettings>,
    behind: Vec<(String, Arc<WriteBehind>)>,
    factory: Arc<Factory>,
    bus: Arc<dyn EventBus>,
    is_away: A,
) -> impl Future<Output = ()> + Send + use<A> {
    fill(pools, behind, factory, bus, is_away)
}

async fn fill(
    pools: Vec<PoolSettings>,
    behind: Vec<(String, Arc<WriteBehind>)>,
    factory: Arc<Factory>,
    bus: Arc<dyn EventBus>,
    is_away: impl Fn(&str) -> bool,
) {
    let caught_up = async {
        while !behind.iter().all(|(pool, behind)| behind.lag().caught_up || is_away(pool)) {
            sleep(POLL).await;
        }
    };
    if timeout(DEADLINE, caught_up).await.is_err() {
        warn!("the store has not taken all of the write-behind log: until it has, its pools answer 503");
    }
    let pools: Vec<_> = pools.into_iter().filter(|pool| pool.warm_up != WarmUp::None).collect();
    if pools.is_empty() {
        return;
    }
    let joined = async {
        while bus.head().await.is_err() {
            sleep(POLL).await;
        }
    };
    _ = timeout(FEED_DEADLINE, joined).await;
    let all = join_all(pools.iter().map(|pool| warm_up(pool, &factory, &is_away)));
    if timeout(DEADLINE, all).await.is_err() {
        warn!(
            deadline_s = DEADLINE.as_secs(),
            "not all of the declared warm-ups ended in time: the rest comes with reads"
        );
    }
}

async fn warm_up(settings: &PoolSettings, factory: &Factory, is_away: impl Fn(&str) -> bool) {
    let Some(pool) = factory.pool(&settings.name) else { return };
    while let Err(error) = pool.warm_up(settings.warm_up).await {
        if is_away(&settings.name) {
            // nobody knows when it is back: what it holds then comes with reads
            return;
        }
        warn!(pool = settings.name, %error, "the warm-up was interrupted");
        sleep(RETRY).await;
    }
    info!(pool = settings.name, mode = ?settings.warm_up, loaded = pool.warmed().loaded, "warm");
}

/// Tells other replicas through the shared tier which keys are read most here, for those that start later,
/// until the process ends.
pub async fn tell_for_ever(pools: Vec<PoolSettings>, factory: Arc<Factory>) {
    let telling: Vec<_> = pools.iter().filter(|pool| pool.warm_up == WarmUp::Peers).collect();
    while !telling.is_empty() {
        sleep(TELL_INTERVAL.mul_f64(rand::random_range(0.5..1.0))).await;
        join_all(telling.iter().filter_map(|pool| Some(factory.pool(&pool.name)?.tell_hot()))).await;
    }
}
