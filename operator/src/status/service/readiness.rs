//! Whether a service is ready, and whether requests find a pod.

use crds::conditions::{ConditionType, Reason};

use super::{
    causes::{blocked, lost_requests, owned_by_others, shortage, unavailable_pools, unreachable},
    progress::configuration,
};
use crate::{
    model::plan::{Held, Migration, Trial},
    status::{
        conditions::{Draft, Holds},
        facts::Facts,
    },
};

pub fn ready(facts: &Facts<'_>) -> Draft {
    let not = |reason: Reason, message: String| Draft::new(ConditionType::Ready, Holds::No, reason, message);
    if let Some((reason, message)) = blocked(facts) {
        return not(reason, message);
    }
    let applied = configuration(facts);
    if facts.held == Some(Held::Paused) && applied.holds != Holds::Yes {
        return not(Reason::Paused, applied.message);
    }
    if let Some(Migration::Running(what)) = facts.migration {
        return not(Reason::Migrating, what.clone());
    }
    if let Some(Trial::Running(what)) = facts.trial {
        return not(Reason::Canary, what.clone());
    }
    if facts.is_stopped() {
        return not(Reason::ScaledToZero, "no pods are wanted".to_owned());
    }
    if let Some((reason, message)) = shortage(facts) {
        // a pod that lacks a store is not ready: the store is the cause
        return match unreachable_stores(facts).filter(|_| reason == Reason::PodsNotReady) {
            Some((reason, stores)) => not(reason, format!("{stores}; {message}")),
            None => not(reason, message),
        };
    }
    if let Some(workload) = facts.workloads().find(|workload| !workload.rolled_out) {
        return not(Reason::RollingOut, format!("{}: pods are being replaced", workload.name));
    }
    if applied.holds != Holds::Yes {
        return Draft { kind: ConditionType::Ready, holds: Holds::No, ..applied };
    }
    if let Some(message) = owned_by_others(facts) {
        return not(Reason::OwnedByAnother, message);
    }
    if let Some((reason, message)) = unreachable_stores(facts) {
        return not(reason, message);
    }
    if let Some(message) = unavailable_pools(facts) {
        return not(Reason::PoolUnavailable, message);
    }
    if let Some((reason, message)) = lost_requests(facts) {
        return not(reason, message);
    }
    let (ready, wanted) = ready_of(facts);
    Draft::new(
        ConditionType::Ready,
        Holds::Yes,
        Reason::Serving,
        format!("{ready} of {wanted} pods are ready"),
    )
}

/// The backends without which requests fail that pods cannot reach, and why.
fn unreachable_stores(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let vital = facts.unreachable().into_iter().filter(|(backend, _)| facts.is_vital(backend));
    unreachable(vital.collect())
}

pub fn available(facts: &Facts<'_>) -> Draft {
    let holds = |holds: bool, reason: Reason, message: String| {
        Draft::new(ConditionType::Available, holds.into(), reason, message)
    };
    if facts.groups.is_empty() || facts.is_stopped() {
        return holds(false, Reason::NoPods, "no pods are wanted".to_owned());
    }
    let without: Vec<&str> = facts
        .workloads()
        .filter(|workload| workload.wanted > 0 && workload.ready == 0)
        .map(|workload| workload.name.as_str())
        .collect();
    if without.is_empty() {
        return holds(true, Reason::PodsReady, "every group has a ready pod".to_owned());
    }
    holds(false, Reason::NoReadyPods, format!("no ready pod in {}", without.join(", ")))
}

/// Ready and wanted pods of the data plane. While pods are replaced there are more than wanted: those do not
/// make up for another group's lack.
pub fn ready_of(facts: &Facts<'_>) -> (u32, u32) {
    let ready = facts.groups.iter().map(|group| group.ready.min(group.wanted)).sum();
    (ready, facts.groups.iter().map(|group| group.wanted).sum())
}
