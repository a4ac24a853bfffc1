//! What is wrong, whether requests are served or not.

use crds::{
    conditions::{ConditionType, Reason},
    fault::Fault,
};

use super::causes::{blocked, exact, lost_requests, owned_by_others, told, unavailable_pools, unreachable};
use crate::{
    model::cause::Cause,
    status::{
        conditions::{Draft, Holds},
        facts::Facts,
    },
};

pub fn degraded(facts: &Facts<'_>) -> Draft {
    let yes =
        |reason: Reason, message: String| Draft::new(ConditionType::Degraded, Holds::Yes, reason, message);
    if let Some((reason, message)) = blocked(facts) {
        return yes(reason, message);
    }
    if let Some(workload) = facts.workloads().find(|workload| workload.stuck) {
        return yes(Reason::RolloutStuck, format!("{}: the rollout makes no progress", workload.name));
    }
    let failing: Vec<Cause> = facts.workloads().flat_map(|one| one.failing.clone()).collect();
    if !failing.is_empty() {
        return yes(exact(facts).unwrap_or(Reason::PodsFailing), told(&failing));
    }
    let unusable: Vec<String> =
        facts.unusable_secrets().into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
    if !unusable.is_empty() {
        let message = format!("pods go on with the former content of {}", unusable.join(", "));
        return yes(Reason::SecretNotApplied, message);
    }
    if let Some(message) = owned_by_others(facts) {
        return yes(Reason::OwnedByAnother, message);
    }
    if let Some((reason, message)) = unreachable(facts.unreachable()) {
        return yes(reason, message);
    }
    if let Some(message) = unavailable_pools(facts) {
        return yes(Reason::PoolUnavailable, message);
    }
    if let Some((reason, message)) = lost_requests(facts) {
        return yes(reason, message);
    }
    if let Some(reason) = facts.unscaled {
        let message = format!(
            "the autoscaler cannot tell how many pods are needed ({reason}): it takes a metrics server, and \
             resources.requests.cpu in every replica group"
        );
        return yes(Reason::AutoscalingInactive, message);
    }
    let inexact: Vec<String> = facts.inexact_numbers().into_iter().collect();
    if !inexact.is_empty() {
        let message = format!(
            "{} hold numbers beyond 2^53, which many readers of JSON round: say `json: String` at the field of \
             the pool",
            inexact.join(", ")
        );
        return yes(Reason::InexactNumbers, message);
    }
    Draft::new(ConditionType::Degraded, Holds::No, Reason::AsExpected, "nothing is wrong")
}

pub fn backends(facts: &Facts<'_>) -> Draft {
    let holds = |holds, reason: Reason, message: &str| {
        Draft::new(ConditionType::BackendsReachable, holds, reason, message)
    };
    if facts.settings.is_some_and(|settings| settings.backends.is_empty()) {
        return holds(Holds::Yes, Reason::NoBackends, "no backends are declared");
    }
    if facts.pods.iter().all(|pod| pod.report.is_none()) {
        return holds(Holds::Unknown, Reason::NoReports, "no pod says what it can reach");
    }
    match unreachable(facts.unreachable()) {
        None => holds(Holds::Yes, Reason::Reachable, "pods reach every backend"),
        Some((reason, message)) => holds(Holds::No, reason, &message),
    }
}

/// Backends without room: their writes are refused. It says nothing of readiness, since reads go on.
pub fn storage_full(facts: &Facts<'_>) -> Draft {
    let full: Vec<String> =
        facts.full_backends().iter().map(|(name, why)| format!("{name}: {why}")).collect();
    match full.is_empty() {
        true => Draft::new(
            ConditionType::StorageFull,
            Holds::No,
            Reason::RoomLeft,
            "no backend refuses writes for want of room",
        ),
        false => Draft::new(ConditionType::StorageFull, Holds::Yes, Reason::StorageFull, full.join("; ")),
    }
}

/// Backends that are set so that an acknowledged write can be lost. It says nothing of readiness.
pub fn durability_reduced(facts: &Facts<'_>) -> Draft {
    let risks: Vec<String> = facts.risks().iter().map(|(name, risk)| format!("{name}: {risk}")).collect();
    match risks.is_empty() {
        true => Draft::new(
            ConditionType::DurabilityReduced,
            Holds::No,
            Reason::AsExpected,
            "no setting that pods read loses a write",
        ),
        false => Draft::new(
            ConditionType::DurabilityReduced,
            Holds::Yes,
            Reason::BackendSettings,
            risks.join("; "),
        ),
    }
}

/// Passwords that others can read and the next release refuses. It says nothing of readiness.
pub fn plaintext_password(facts: &Facts<'_>) -> Draft {
    let of_backend = |name: &&str| {
        format!(
            "backend {name}: its password itself goes to another host without TLS; use TLS (tls: {{ \
             authorities: System }}, ca.crt in its Secret), or say allowPlaintext: true"
        )
    };
    let in_spec = facts.warnings.iter().map(|Fault { path, message, .. }| format!("{path} {message}"));
    let told: Vec<String> = facts.plaintext().iter().map(of_backend).chain(in_spec).collect();
    match told.is_empty() {
        true => Draft::new(
            ConditionType::PlaintextPassword,
            Holds::No,
            Reason::AsExpected,
            "no password is where others can read it",
        ),
        false => {
            let message = format!("the next release refuses this: {}", told.join("; "));
            Draft::new(ConditionType::PlaintextPassword, Holds::Yes, Reason::RefusedNextRelease, message)
        }
    }
}
