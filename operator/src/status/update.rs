//! What a service says about its pools and tiers, after its own status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{conditions::ConditionType, service::FlyweightService, status::ServiceStatus};
use kube::{Resource, ResourceExt};

use super::{conditions::find, facts::Facts};
use crate::model::{observed::Observed, update::StatusUpdate};

/// The update of the service.
pub fn update(observed: &Observed, facts: &Facts<'_>, status: &ServiceStatus) -> StatusUpdate {
    let ready = find(&status.conditions, ConditionType::Ready);
    StatusUpdate {
        service: observed.name.clone(),
        available: find(&status.conditions, ConditionType::Available).is_some_and(|one| one.status == "True"),
        applied: find(&status.conditions, ConditionType::ConfigurationApplied)
            .is_some_and(|one| one.status == "True"),
        seen: seen(observed),
        trouble: ready.filter(|one| one.status != "True").map(|one| one.reason.clone()).unwrap_or_default(),
        faults: facts.faults.to_vec(),
        settings: facts.settings.cloned().map(Arc::new),
        reports: facts.pods.iter().filter_map(|pod| pod.report.clone()).collect(),
    }
}

/// The generations of the pools that the service names, and of their tiers.
fn seen(observed: &Observed) -> BTreeMap<String, i64> {
    let pools = observed.pools.iter().filter(|pool| serves(&observed.service, &pool.name_any()));
    let of_pools = pools.clone().map(|pool| (label(&**pool), pool.metadata.generation));
    let used: BTreeSet<&str> =
        pools.flat_map(|pool| &pool.spec.tier_refs).map(|tier| tier.name.as_str()).collect();
    let tiers = observed.tiers.iter().filter(|tier| used.contains(tier.name_any().as_str()));
    let all = of_pools.chain(tiers.map(|tier| (label(&**tier), tier.metadata.generation)));
    all.filter_map(|(resource, generation)| Some((resource, generation?))).collect()
}

/// Whether the service names the pool.
pub fn serves(service: &FlyweightService, pool: &str) -> bool {
    service.spec.pool_refs.iter().any(|one| one.name == pool)
}

/// As faults name it.
pub fn label<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}", K::kind(&()), object.name_any())
}
