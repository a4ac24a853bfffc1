//! Keeps the process within its limit of memory: the caches give back first; answers under way may hold what
//! is left, and a quarter of the limit at most; when that is not enough, writes are refused.

use std::{sync::Arc, time::Duration};

use crds::settings::TierKind;
use tokio::sync::watch;
use tracing::warn;

use super::pools::{Gates, ServedPool};
use crate::config::Loaded;
use model::budget::Budgets;

/// How often the memory is looked at.
const TICK: Duration = Duration::from_millis(500);
/// The least share of their memory that caches are left with.
const SHARE_MIN: f64 = 0.05;

/// The part of the limit that answers under way may hold.
const ANSWERS_PART: u64 = 4;
/// The part of it that is left free.
const MARGIN_PART: u64 = 8;
/// The part of it that they are left with.
const ANSWERS_PART_MIN: u64 = 32;

/// Which share of their memory the caches get, and whether writes are refused.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    share: f64,
    refuse: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { share: 1.0, refuse: false }
    }
}

impl Plan {
    /// The plan after a look: caches shrink above nine tenths of the limit and grow again below three
    /// quarters; writes are refused above the limit.
    fn next(self, resident: u64, limit: u64) -> Self {
        let used = resident as f64 / limit.max(1) as f64;
        let share = match used {
            used if used > 0.9 => (self.share * 0.8).max(SHARE_MIN),
            used if used < 0.75 => (self.share * 1.1).min(1.0),
            _ => self.share,
        };
        Self { share, refuse: if self.refuse { used > 0.95 } else { used > 1.0 } }
    }
}

/// Watches the memory until the process ends. Without a limit everybody gets what they ask for.
pub async fn watch(
    settings: watch::Receiver<Arc<Loaded>>,
    pools: Arc<Vec<ServedPool>>,
    (gates, budgets): (Arc<Gates>, Budgets),
) {
    let first = settings.borrow().memory_max;
    first.into_iter().for_each(|limit| budgets.set(limit / ANSWERS_PART));
    let (mut plan, mut bounded) = (Plan::default(), first.is_some());
    loop {
        tokio::time::sleep(TICK).await;
        let loaded = settings.borrow().clone();
        let next = match (loaded.memory_max, resident_bytes()) {
            (_, None) => continue,
            (None, _) => {
                if bounded {
                    budgets.set(Budgets::default().answers.capacity());
                }
                Plan::default()
            }
            (Some(limit), Some(resident)) => {
                budgets.set(for_answers(limit, resident, budgets.answers.used() + budgets.bodies.used()));
                plan.next(resident, limit)
            }
        };
        if next.refuse != plan.refuse {
            let (resident, limit) = (resident_bytes(), loaded.memory_max);
            warn!(resident, limit, refused = next.refuse, "writes for want of memory");
            gates.values().for_each(|gate| gate.set_out_of_memory(next.refuse));
        }
        if next.share < 1.0 || plan.share < 1.0 {
            resize(&loaded, &pools, next.share);
        }
        (plan, bounded) = (next, loaded.memory_max.is_some());
    }
}

/// Keeps what requests and answers hold within the limit, where there is nothing else that could give back:
/// at the gateway.
pub async fn watch_held(settings: watch::Receiver<Arc<Loaded>>, budgets: Budgets) {
    settings.borrow().memory_max.into_iter().for_each(|limit| budgets.set(limit / ANSWERS_PART));
    loop {
        tokio::time::sleep(TICK).await;
        let limit = settings.borrow().memory_max;
        if let (Some(limit), Some(resident)) = (limit, resident_bytes()) {
            budgets.set(for_answers(limit, resident, budgets.answers.used() + budgets.bodies.used()));
        }
    }
}

/// Whether so much memory is in use that entries which nobody asks for are to go: always, unless a share of
/// the limit is declared and less than it is in use.
pub fn wants_room(loaded: &Loaded) -> bool {
    is_above(loaded, resident_bytes())
}

fn is_above(loaded: &Loaded, resident: Option<u64>) -> bool {
    match (loaded.settings.limits.cleanup_threshold, loaded.memory_max, resident) {
        (Some(threshold), Some(limit), Some(resident)) => resident > threshold.of(limit),
        _ => true,
    }
}

/// The bytes that answers may hold: their part of what the process does not use for anything else, less a
/// margin for what is counted nowhere, within bounds. Bodies get half as much, so both together hold no more
/// than is left. Above its limit a few small ones still go on.
fn for_answers(limit: u64, resident: u64, held: u64) -> u64 {
    let left = (limit - limit / MARGIN_PART).saturating_add(held).saturating_sub(resident);
    (left - left / 3).clamp(limit / ANSWERS_PART_MIN, limit / ANSWERS_PART)
}

fn resize(loaded: &Loaded, pools: &[ServedPool], share: f64) {
    let tiers = loaded.settings.pools.iter().flat_map(|pool| &pool.tiers);
    let declared = |name: &str| {
        tiers.clone().find_map(|tier| match &tier.kind {
            TierKind::Memory { max_bytes, .. } if tier.name == name => Some(max_bytes.0),
            _ => None,
        })
    };
    for (name, tier, _) in pools.iter().flat_map(|pool| &pool.memory) {
        if let Some(bytes) = declared(name) {
            tier.resize((bytes as f64 * share) as u64);
        }
    }
}

/// The resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_give_back_first_and_writes_are_refused_last() {
        let mut plan = Plan { share: 1.0, refuse: false };
        for _ in 0..3 {
            plan = plan.next(95, 100);
        }
        assert!(plan.share < 0.6 && !plan.refuse);
        for _ in 0..30 {
            plan = plan.next(101, 100);
        }
        assert_eq!(plan, Plan { share: SHARE_MIN, refuse: true });
        assert!(plan.next(97, 100).refuse, "no to and fro at the limit");
        plan = plan.next(80, 100);
        assert_eq!(plan, Plan { share: SHARE_MIN, refuse: false });
        for _ in 0..50 {
            plan = plan.next(10, 100);
        }
        assert_eq!(plan.share, 1.0);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn what_is_idle_goes_above_the_declared_share_of_the_limit() {
        let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/samples");
        let settings = crds::manifest::load(std::path::Path::new(samples), None).unwrap();
        let mut loaded = Loaded {
            settings,
            hash: String::new(),
            rolling_hash: String::new(),
            memory_max: Some(1_000),
            deprecated: None,
        };
        assert!(is_above(&loaded, Some(1)), "nothing is declared");
        loaded.settings.limits.cleanup_threshold = Some("0.8".parse().unwrap());
        assert!(!is_above(&loaded, Some(800)));
        assert!(is_above(&loaded, Some(801)));
        loaded.memory_max = None;
        assert!(is_above(&loaded, Some(1)), "there is no limit to have a share of");
    }

    #[test]
    fn answers_hold_what_is_left_within_bounds() {
        assert_eq!(for_answers(320, 100, 0), 80, "a quarter at most");
        assert_eq!(
            for_answers(320, 260, 10),
            20,
            "what they hold already is theirs; a margin and bodies need the rest"
        );
        assert_eq!(for_answers(320, 400, 0), 10, "a few small ones go on");
    }
}
