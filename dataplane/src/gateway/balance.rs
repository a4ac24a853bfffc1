//! Which pod gets the next request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crds::{service::gateway::BalanceStrategy, settings::Settings};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::registry::Upstream;

/// Chooses among the pods that can take a request.
#[derive(Debug, Default)]
pub struct Balancer {
    turn: AtomicUsize,
    credits: Mutex<hashbrown::HashMap<std::net::SocketAddr, i64>>,
}

impl Balancer {
    /// Chooses one of the candidates; `affinity` is what consistent hashing keeps together.
    pub fn choose(
        &self,
        candidates: &[Arc<Upstream>],
        settings: &Settings,
        affinity: &str,
    ) -> Option<Arc<Upstream>> {
        if candidates.is_empty() {
            return None;
        }
        let strategy = settings.gateway.as_ref().map(|gateway| gateway.strategy).unwrap_or_default();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let among = |candidates: &[Arc<Upstream>]| match strategy {
            BalanceStrategy::RoundRobin => Some(candidates[turn % candidates.len()].clone()),
            BalanceStrategy::LeastConnections => least_loaded(candidates, turn),
            BalanceStrategy::WeightedRoundRobin => self.weighted(candidates, settings),
            BalanceStrategy::ConsistentHash => rendezvous(candidates, affinity),
        };
        let chosen = among(candidates)?;
        let share = chosen.share();
        if share >= 1.0 || candidates.len() == 1 || draw(turn) < share {
            return Some(chosen);
        }
        // a pod that has just come back leaves a part of its requests to the others
        let others: Vec<_> = candidates.iter().filter(|other| other.addr != chosen.addr).cloned().collect();
        among(&others)
    }

    /// Smooth weighted round robin, as nginx does it: each gains its weight, the richest is chosen and pays
    /// the total.
    fn weighted(&self, candidates: &[Arc<Upstream>], settings: &Settings) -> Option<Arc<Upstream>> {
        let weight_of = |upstream: &Upstream| {
            let group = settings.groups.iter().find(|group| group.name == upstream.group);
            let pods = candidates.iter().filter(|other| other.group == upstream.group).count().max(1) as i64;
            // A group's weight is shared by its pods; the factor keeps the shares whole numbers that differ.
            i64::from(group.map_or(1, |group| group.weight)) * 10_000 / pods
        };
        let mut credits = self.credits.lock();
        credits.retain(|addr, _| candidates.iter().any(|upstream| upstream.addr == *addr));
        let mut total = 0;
        let mut best: Option<(&Arc<Upstream>, i64)> = None;
        for upstream in candidates {
            let weight = weight_of(upstream);
            total += weight;
            let credit = credits.entry(upstream.addr).or_insert(0);
            *credit += weight;
            if best.is_none_or(|(_, richest)| *credit > richest) {
                best = Some((upstream, *credit));
            }
        }
        let (chosen, _) = best?;
        if let Some(credit) = credits.get_mut(&chosen.addr) {
            *credit -= total;
        }
        Some(chosen.clone())
    }
}

/// A number from 0 to 1 for each turn, evenly spread.
fn draw(turn: usize) -> f64 {
    xxh3_64_with_seed(&turn.to_le_bytes(), 0) as f64 / u64::MAX as f64
}

/// The fewest requests under way; ties go round.
fn least_loaded(candidates: &[Arc<Upstream>], turn: usize) -> Option<Arc<Upstream>> {
    let count = candidates.len();
    (0..count)
        .map(|step| &candidates[(turn + step) % count])
        .min_by_key(|upstream| upstream.in_flight())
        .cloned()
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): a pod that comes or goes moves only its own share of
/// the keys.
fn rendezvous(candidates: &[Arc<Upstream>], affinity: &str) -> Option<Arc<Upstream>> {
    let key = xxh3_64_with_seed(affinity.as_bytes(), 0);
    candidates
        .iter()
        .max_by_key(|upstream| xxh3_64_with_seed(upstream.addr.to_string().as_bytes(), key))
        .cloned()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::SocketAddr};

    use super::*;

    fn settings(strategy: &str, groups: &[(&str, u32)]) -> Settings {
        let groups: Vec<_> = groups
            .iter()
            .map(|(name, weight)| serde_json::json!({ "name": name, "pools": [], "weight": weight }))
            .collect();
        serde_json::from_value(serde_json::json!({
            "service": "shop", "pools": [], "groups": groups, "backends": [],
            "pipeline": {}, "ingest": {}, "gateway": { "strategy": strategy },
            "security": { "jwtSecret": null, "encryptionSecret": null, "rateLimit": null, "corsAllowOrigins": [] },
            "webSocket": {}, "observability": {}
        }))
        .unwrap()
    }

    fn pods(spec: &[(&str, u16)]) -> Vec<Arc<Upstream>> {
        spec.iter()
            .map(|(group, port)| Arc::new(Upstream::new(SocketAddr::from(([10, 0, 0, 1], *port)), group)))
            .collect()
    }

    fn shares(candidates: &[Arc<Upstream>], settings: &Settings, rounds: usize) -> HashMap<u16, usize> {
        let balancer = Balancer::default();
        let mut shares = HashMap::new();
        for round in 0..rounds {
            let chosen = balancer.choose(candidates, settings, &round.to_string()).unwrap();
            *shares.entry(chosen.addr.port()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn round_robin_is_even_and_weights_are_kept() {
        let candidates = pods(&[("main", 1), ("main", 2), ("catalog", 3)]);
        let even = shares(&candidates, &settings("RoundRobin", &[("main", 1), ("catalog", 2)]), 300);
        assert_eq!(even, HashMap::from([(1, 100), (2, 100), (3, 100)]));
        let weighted =
            shares(&candidates, &settings("WeightedRoundRobin", &[("main", 1), ("catalog", 2)]), 300);
        assert_eq!(weighted, HashMap::from([(1, 50), (2, 50), (3, 200)]));
    }

    #[test]
    fn a_pod_that_is_back_begins_slowly() {
        let candidates = pods(&[("main", 1), ("main", 2)]);
        candidates[0].eject();
        candidates[0].checked(Some(true));
        for strategy in ["RoundRobin", "LeastConnections", "WeightedRoundRobin", "ConsistentHash"] {
            let shares = shares(&candidates, &settings(strategy, &[("main", 1)]), 1000);
            let back = shares.get(&1).copied().unwrap_or_default();
            assert!((10..200).contains(&back), "{strategy}: {back} of 1000 requests");
        }
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        let candidates = pods(&[("main", 1), ("main", 2), ("main", 3)]);
        let _busy = [candidates[0].start(), candidates[2].start()];
        let settings = settings("LeastConnections", &[("main", 1)]);
        let balancer = Balancer::default();
        for _ in 0..10 {
            assert_eq!(balancer.choose(&candidates, &settings, "").unwrap().addr.port(), 2);
        }
        assert!(balancer.choose(&[], &settings, "").is_none());
    }

    #[test]
    fn a_pod_that_goes_moves_only_its_own_keys() {
        let settings = settings("ConsistentHash", &[("main", 1)]);
        let candidates = pods(&[("main", 1), ("main", 2), ("main", 3), ("main", 4)]);
        let balancer = Balancer::default();
        let keys: Vec<_> = (0..1000).map(|n| format!("products/{n}")).collect();
        let home = |candidates: &[Arc<Upstream>]| -> Vec<u16> {
            keys.iter().map(|key| balancer.choose(candidates, &settings, key).unwrap().addr.port()).collect()
        };
        let (before, after) = (home(&candidates), home(&candidates[..3]));
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == 4);
        }
        let on_first = before.iter().filter(|port| **port == 1).count();
        assert!((150..350).contains(&on_first), "{on_first} of 1000 keys on one of four pods");
    }
}
