//! The status of a service: its conditions and the figures, from the facts. Pure.

use std::collections::BTreeMap;

use crds::status::{ConfigurationCount, GroupStatus, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    conditions::{Draft, settle},
    facts::{Facts, Workload},
    figures,
};
use crate::model::{child::label, observed::Observed};

pub(super) mod causes;
mod health;
mod progress;
mod readiness;

use health::{backends, degraded, durability_reduced, plaintext_password, storage_full};
use progress::{configuration, draining, progressing};
use readiness::{available, ready, ready_of};

/// The API server takes this many entries.
const CONFIGURATIONS_MAX: usize = 16;

/// The whole status.
pub fn status(facts: &Facts<'_>, observed: &Observed, former: &[Condition]) -> ServiceStatus {
    let generation = observed.service.metadata.generation;
    let pods = facts.groups.iter().map(|group| group.pods).sum::<u32>();
    let (ready, wanted) = ready_of(facts);
    ServiceStatus {
        conditions: settle(conditions(facts), former, generation, observed.at),
        observed_generation: generation,
        replicas: i32::try_from(pods).ok(),
        selector: Some(format!("{}={},{}=dataplane", label::INSTANCE, observed.name, label::COMPONENT)),
        pods_ready: Some(format!("{ready}/{wanted}")),
        endpoint: Some(format!("{}://{}.{}.svc", scheme(facts), observed.name, observed.namespace)),
        configuration: facts.applied.clone(),
        configuration_summary: facts
            .applied
            .as_ref()
            .map(|hash| format!("{} of {} pods run {hash}", facts.current_pods(), facts.pods.len())),
        groups: facts.groups.iter().map(|group| group_status(group, facts)).collect(),
        pools: pools(facts),
    }
}

fn scheme(facts: &Facts<'_>) -> &'static str {
    let over_tls = facts.settings.is_some_and(|settings| settings.security.tls_secret.is_some());
    if over_tls { "https" } else { "http" }
}

/// All of them, the most important first.
fn conditions(facts: &Facts<'_>) -> Vec<Draft> {
    vec![
        ready(facts),
        available(facts),
        progressing(facts),
        degraded(facts),
        draining(facts),
        configuration(facts),
        backends(facts),
        storage_full(facts),
        durability_reduced(facts),
        plaintext_password(facts),
    ]
}

fn group_status(group: &Workload, facts: &Facts<'_>) -> GroupStatus {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    let own = facts.pods.iter().filter(|pod| pod.group.as_ref() == Some(&group.name));
    for report in own.filter_map(|pod| pod.report.as_ref()).filter(|report| !report.configuration.is_empty())
    {
        *counts.entry(&report.configuration).or_default() += 1;
    }
    GroupStatus {
        name: group.name.clone(),
        replicas: i32::try_from(group.wanted).unwrap_or(i32::MAX),
        ready: i32::try_from(group.ready).unwrap_or(i32::MAX),
        configurations: counts
            .into_iter()
            .take(CONFIGURATIONS_MAX)
            .map(|(hash, pods)| ConfigurationCount { hash: hash.to_owned(), pods })
            .collect(),
    }
}

fn pools(facts: &Facts<'_>) -> Vec<crds::status::PoolFigures> {
    let reports = || facts.pods.iter().filter_map(|pod| pod.report.as_ref());
    let pools = facts.settings.map(|settings| settings.pools.as_slice()).unwrap_or_default();
    pools.iter().filter_map(|pool| Some(figures::pool(reports(), &pool.name)?.figures(&pool.name))).collect()
}
