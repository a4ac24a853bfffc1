//! The status of a tier: whether it is used, by whom, and its figures over all its services. Pure.

use std::sync::Arc;

use crds::{settings::TierKind, status::TierStatus, tier::CacheTier};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::{
    conditions::settle,
    figures,
    readiness::{Acknowledgement, is_late, ready},
    update::label,
};
use crate::model::update::StatusUpdate;

/// The status of the tier, from what the services say that use it.
pub fn status(
    tier: &CacheTier,
    updates: &[Arc<StatusUpdate>],
    former: &TierStatus,
    now: Timestamp,
) -> TierStatus {
    let name = tier.name_any();
    let runs = |update: &StatusUpdate| {
        let pools = update.settings.as_ref().map(|settings| settings.pools.as_slice()).unwrap_or_default();
        let tier = pools.iter().flat_map(|pool| &pool.tiers).find(|one| one.name == name)?;
        Some(match &tier.kind {
            TierKind::Redis { backend, .. } => vec![backend.clone()],
            TierKind::Memory { .. } => Vec::new(),
        })
    };
    let needed = Acknowledgement::of(tier, former.observed_generation, &former.conditions);
    let resource = label(tier);
    let ready = ready(&resource, updates, (needed, is_late(&resource, tier.meta().generation)), runs);
    let sum = figures::tier(updates.iter().flat_map(|update| &update.reports), &name);
    let in_memory = tier.spec.memory.is_some();
    TierStatus {
        conditions: settle(vec![ready], &former.conditions, tier.meta().generation, now),
        observed_generation: tier.meta().generation,
        kind: Some(if in_memory { "memory" } else { "redis" }.to_owned()),
        entries: sum.filter(|_| in_memory).map(|sum| figures::count(sum.entries)),
        hit_ratio: sum.and_then(|sum| figures::ratio(sum.hits, sum.misses)),
    }
}
