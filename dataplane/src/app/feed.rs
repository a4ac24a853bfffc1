//! Lets every change that the bus brings reach the tiers of its pool, and forgets everything older when
//! changes may have been missed.

use std::sync::Arc;

use tokio::sync::{broadcast::error::RecvError, watch};
use tracing::warn;

use super::pools::ServedPool;
use events::EventBus;
use model::{
    event::Envelope,
    key::{Key, Version},
};
use runtime::supervisor;

/// Says that the changes of some pools are followed: whatever fills or serves their tiers comes after it.
pub struct Followed(());

/// Follows the bus until it ends. It is subscribed when this returns, so a change or a gap that comes after
/// is not missed, however late the task begins. To be called before anything fills a tier: what was kept
/// before is not covered.
#[must_use]
pub fn follow(bus: &Arc<dyn EventBus>, pools: Arc<Vec<ServedPool>>) -> Followed {
    let (mut live, mut gaps): (_, watch::Receiver<u64>) = (bus.live(), bus.gaps());
    // the bus must live as long as it is followed
    let bus = bus.clone();
    supervisor::INVALIDATION.spawn(async move {
        let _bus = bus;
        loop {
            tokio::select! {
                event = live.recv() => match event {
                    Ok(event) => invalidate(&pools, &event),
                    Err(RecvError::Lagged(missed)) => forget(&pools, &format!("{missed} changes came faster than they were handled")),
                    Err(RecvError::Closed) => return,
                },
                gap = gaps.changed() => match gap {
                    Ok(()) => forget(&pools, "the feed had a gap"),
                    Err(_) => return,
                },
            }
        }
    });
    Followed(())
}

fn invalidate(pools: &[ServedPool], event: &Envelope) {
    let Ok(key) = event.key.parse::<Key>() else { return };
    for pool in pools.iter().filter(|pool| pool.entity_name == event.entity) {
        pool.tiered.invalidate(&key, Version(event.version));
    }
}

fn forget(pools: &[ServedPool], why: &str) {
    warn!(why, "cached entries are loaded anew");
    pools.iter().for_each(|pool| pool.tiered.invalidate_all());
}

#[cfg(test)]
mod tests {
    use crds::pool::Entity;

    use super::*;
    use crate::app::world::World;
    use ::testing::{Folder, until};

    use crate::testing::events::{FakeBus, event};

    #[tokio::test]
    async fn what_comes_right_after_the_subscription_is_followed() {
        let folder = Folder::new();
        let world = World::embedded(folder.path()).await;
        let fake = Arc::new(FakeBus::new());
        let bus: Arc<dyn EventBus> = fake.clone();
        let pool = world.pools.iter().find(|pool| pool.entity == Entity::Product).unwrap();
        let begun = pool.tiered.generation();
        let _followed = follow(&bus, world.pools.clone());
        // no other task has run since
        fake.send_live(event("lamp", 2));
        until("the change is known", async || pool.tiered.generation() > begun).await;
        let before = pool.tiered.generation();
        fake.gap();
        until("the gap is known", async || pool.tiered.generation() > before).await;
    }

    #[tokio::test]
    async fn a_process_follows_changes_before_it_serves() {
        let folder = Folder::new();
        let world = World::embedded(folder.path()).await;
        let pool = world.pools.iter().find(|pool| pool.entity == Entity::Product).unwrap();
        let begun = pool.tiered.generation();
        world.backends.bus.1.publish(&[event("lamp", 2)]).await.unwrap();
        until("the change is known", async || pool.tiered.generation() > begun).await;
    }
}
