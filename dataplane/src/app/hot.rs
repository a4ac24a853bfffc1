//! Lets settings that change act in the running process, and drops idle entries on schedule.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{memory, pools::ServedPool};
use crate::{config::Loaded, http::guard::Guard, security::policy::Policies, telemetry::LogControl};
use engine::clock::Clock;

/// How often the schedules of cleanups are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Follows the settings until the process ends.
pub async fn follow(
    mut settings: watch::Receiver<Arc<Loaded>>,
    policies: Arc<Policies>,
    pools: Arc<Vec<ServedPool>>,
    guard: Arc<Guard>,
    log: LogControl,
    live: impl Fn(&Loaded) + Send + 'static,
) {
    while settings.changed().await.is_ok() {
        let loaded = settings.borrow_and_update().clone();
        // before all else: nobody waits for rights to end
        policies.apply(&loaded.settings.pools);
        for pool in pools.iter() {
            if let Some(settings) = loaded.settings.pools.iter().find(|settings| settings.name == pool.name) {
                pool.apply(settings);
            }
        }
        guard.apply(&loaded.settings);
        log.set(loaded.settings.observability.log_level);
        live(&loaded);
    }
}

/// Drops idle entries of each pool at its interval, until the process ends. Where memory is not short, only
/// those that are too old to be given out.
pub async fn clean_up(settings: watch::Receiver<Arc<Loaded>>, pools: Arc<Vec<ServedPool>>, clock: Clock) {
    let mut waited = vec![Duration::ZERO; pools.len()];
    loop {
        tokio::time::sleep(TICK).await;
        let loaded = settings.borrow().clone();
        for (pool, waited) in pools.iter().zip(&mut waited) {
            let wanted = loaded.settings.pools.iter().find(|settings| settings.name == pool.name);
            let Some(interval) = wanted.map(|settings| settings.cleanup.interval.0) else { continue };
            *waited += TICK;
            if *waited >= interval {
                *waited = Duration::ZERO;
                let idle_after_ms = if memory::wants_room(&loaded) { None } else { Some(u64::MAX) };
                for (_, tier, id) in &pool.memory {
                    tier.remove_idle(*id, idle_after_ms, clock.now_ms());
                }
            }
        }
    }
}
