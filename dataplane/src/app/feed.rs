//! Lets every change that the bus brings reach the tiers of its pool, and forgets everything older when changes may have been missed.

use std::sync::Arc;

use tokio::sync::{broadcast::error::RecvError, watch};
use tracing::warn;

use super::pools::ServedPool;
use crate::{
    domain::record::{Key, Version},
    events::EventBus,
};

/// Follows the bus until it ends.
pub async fn invalidate(bus: Arc<dyn EventBus>, pools: Arc<Vec<ServedPool>>) {
    let mut live = bus.live();
    let mut gaps: watch::Receiver<u64> = bus.gaps();
    loop {
        tokio::select! {
            event = live.recv() => match event {
                Ok(event) => {
                    let Ok(key) = event.key.parse::<Key>() else { continue };
                    for pool in pools.iter().filter(|pool| pool.entity_name == event.entity) {
                        pool.tiered.invalidate(&key, Version(event.version));
                    }
                }
                Err(RecvError::Lagged(missed)) => forget(&pools, &format!("{missed} changes came faster than they were handled")),
                Err(RecvError::Closed) => return,
            },
            gap = gaps.changed() => match gap {
                Ok(()) => forget(&pools, "the feed had a gap"),
                Err(_) => return,
            },
        }
    }
}

fn forget(pools: &[ServedPool], why: &str) {
    warn!(why, "cached entries are loaded anew");
    pools.iter().for_each(|pool| pool.tiered.invalidate_all());
}
