//! The status of a service: its conditions and the figures, from the facts. Pure.

use std::collections::BTreeMap;

use crds::{
    annotations::TAKE_OVER_FROM,
    fault::Fault,
    service::security::IssuerRef,
    status::{ConfigurationCount, GroupStatus, ServiceStatus},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    child::label,
    desired::{Held, canary::Trial, migration::Migration},
    observe::{Observed, report::Trouble},
    status::{
        conditions::{Draft, Holds, settle},
        facts::{Facts, Spread, Workload},
        figures,
    },
};

/// What to do about a change that was held back.
const TRY_AGAIN: &str = "change the resources, or try again with kubectl flyweight restart";
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

/// What the author of the resources has to mend, whatever the pods do.
fn blocked(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    if !facts.faults.is_empty() {
        let faults: Vec<String> = facts.faults.iter().map(ToString::to_string).collect();
        return Some(("InvalidConfiguration", faults.join("; ")));
    }
    if let Some(refused) = &facts.refused {
        return Some(("ApplyFailed", refused.clone()));
    }
    if let Some(issuer) = facts.unissued {
        return Some(("CertManagerMissing", no_issuer(issuer)));
    }
    if !facts.missing.is_empty() {
        let missing =
            facts.missing.iter().map(|secret| format!("Secret \"{}\" ({})", secret.name, secret.path));
        return Some(("SecretMissing", format!("missing: {}", missing.collect::<Vec<_>>().join(", "))));
    }
    if let Some(Migration::Failed(how)) = facts.migration {
        return Some((
            "MigrationFailed",
            format!("{how}; the pods run on as before, and it is tried again: {TRY_AGAIN}"),
        ));
    }
    if let Some(Trial::Failed(how)) = facts.trial {
        return Some(("CanaryFailed", format!("{how}; the others run on as before: {TRY_AGAIN}")));
    }
    None
}

fn no_issuer(issuer: &IssuerRef) -> String {
    format!(
        "spec.security.tls.issuerRef names {:?} \"{}\", and this cluster knows no Certificate of cert-manager.io/v1: install cert-manager, or \
         name a Secret by secretRef alone",
        issuer.kind, issuer.name
    )
}

fn ready(facts: &Facts<'_>) -> Draft {
    let not = |reason: &str, message: String| Draft::new("Ready", Holds::No, reason, message);
    if let Some((reason, message)) = blocked(facts) {
        return not(reason, message);
    }
    let applied = configuration(facts);
    if facts.held == Some(Held::Paused) && applied.holds != Holds::Yes {
        return not("Paused", applied.message);
    }
    if let Some(Migration::Running(what)) = facts.migration {
        return not("Migrating", what.clone());
    }
    if let Some(Trial::Running(what)) = facts.trial {
        return not("Canary", what.clone());
    }
    if facts.is_stopped() {
        return not("ScaledToZero", "no pods are wanted".to_owned());
    }
    if let Some(message) = shortage(facts) {
        return not("PodsNotReady", message);
    }
    if let Some(workload) = facts.workloads().find(|workload| !workload.rolled_out) {
        return not("RollingOut", format!("{}: pods are being replaced", workload.name));
    }
    if applied.holds != Holds::Yes {
        return not(&applied.reason, applied.message);
    }
    if let Some(message) = owned_by_others(facts) {
        return not("OwnedByAnother", message);
    }
    let vital: Vec<&str> =
        facts.unreachable().into_iter().filter(|backend| facts.is_vital(backend)).collect();
    if !vital.is_empty() {
        return not("BackendUnreachable", format!("pods cannot reach {}", vital.join(", ")));
    }
    if let Some(message) = unavailable_pools(facts) {
        return not("PoolUnavailable", message);
    }
    if let Some((reason, message)) = lost_requests(facts) {
        return not(reason, message);
    }
    let (ready, wanted) = ready_of(facts);
    Draft::new("Ready", Holds::Yes, "Serving", format!("{ready} of {wanted} pods are ready"))
}

fn available(facts: &Facts<'_>) -> Draft {
    let holds =
        |holds: bool, reason: &str, message: String| Draft::new("Available", holds.into(), reason, message);
    if facts.groups.is_empty() || facts.is_stopped() {
        return holds(false, "NoPods", "no pods are wanted".to_owned());
    }
    let without: Vec<&str> = facts
        .workloads()
        .filter(|workload| workload.wanted > 0 && workload.ready == 0)
        .map(|workload| workload.name.as_str())
        .collect();
    if without.is_empty() {
        return holds(true, "PodsReady", "every group has a ready pod".to_owned());
    }
    holds(false, "NoReadyPods", format!("no ready pod in {}", without.join(", ")))
}

fn progressing(facts: &Facts<'_>) -> Draft {
    let holds =
        |holds: bool, reason: &str, message: &str| Draft::new("Progressing", holds.into(), reason, message);
    if let Some(failed) = &facts.failed {
        return holds(true, "Applying", &format!("{failed}; it is tried again"));
    }
    match facts.held {
        Some(Held::Paused) => {
            return holds(false, "Paused", "spec.paused is true: children stay as they are");
        }
        Some(Held::Faults) => {
            return holds(false, "InvalidConfiguration", "the last good configuration keeps running");
        }
        Some(Held::CertManager) => return holds(false, "CertManagerMissing", "pods wait for cert-manager"),
        Some(Held::Secrets) => return holds(false, "SecretMissing", "pods wait for the missing Secret"),
        Some(Held::CanaryFailed) => {
            return holds(false, "CanaryFailed", "the change is held back: its canary did worse");
        }
        Some(Held::MigrationFailed) => {
            return holds(
                false,
                "MigrationFailed",
                "the change is held back: the stores could not be prepared for it",
            );
        }
        Some(Held::Migration | Held::Canary) | None => (),
    }
    if let Some(Migration::Running(what)) = facts.migration {
        return holds(true, "Migrating", &format!("{what}; pods of the new image follow when it is done"));
    }
    if let Some(Trial::Running(what)) = facts.trial {
        return holds(true, "Canary", &format!("{what}; the others follow when it does no worse"));
    }
    if facts.refused.is_some() {
        return holds(false, "ApplyFailed", "the API server refuses a child");
    }
    if let Some(workload) = facts.workloads().find(|workload| !workload.rolled_out) {
        return holds(true, "RollingOut", &format!("{}: pods are being replaced", workload.name));
    }
    if let Some(message) = shortage(facts) {
        return holds(true, "StartingPods", &message);
    }
    match facts.spread() {
        Spread::Everywhere => holds(false, "Settled", "nothing is under way"),
        Spread::Lagging => holds(true, "ApplyingConfiguration", "some pods do not run the configuration yet"),
        Spread::Silent => holds(true, "PodsNotReporting", "some pods do not say yet what they run"),
    }
}

fn draining(facts: &Facts<'_>) -> Draft {
    match facts.ending {
        0 => Draft::new("Draining", Holds::No, "NoPodsEnding", "no pod was told to end"),
        _ => Draft::new(
            "Draining",
            Holds::Yes,
            "PodsEnding",
            "pods that were told to end finish what they began",
        ),
    }
}

fn degraded(facts: &Facts<'_>) -> Draft {
    let yes = |reason: &str, message: String| Draft::new("Degraded", Holds::Yes, reason, message);
    if let Some((reason, message)) = blocked(facts) {
        return yes(reason, message);
    }
    if let Some(workload) = facts.workloads().find(|workload| workload.stuck) {
        return yes("RolloutStuck", format!("{}: the rollout makes no progress", workload.name));
    }
    let failing: Vec<&str> = facts.workloads().flat_map(|one| &one.failing).map(String::as_str).collect();
    if !failing.is_empty() {
        return yes("PodsFailing", failing.join(", "));
    }
    let unusable: Vec<String> =
        facts.unusable_secrets().into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
    if !unusable.is_empty() {
        let message = format!("pods go on with the former content of {}", unusable.join(", "));
        return yes("SecretNotApplied", message);
    }
    if let Some(message) = owned_by_others(facts) {
        return yes("OwnedByAnother", message);
    }
    let unreachable: Vec<&str> = facts.unreachable().into_iter().collect();
    if !unreachable.is_empty() {
        return yes("BackendUnreachable", format!("pods cannot reach {}", unreachable.join(", ")));
    }
    if let Some(message) = unavailable_pools(facts) {
        return yes("PoolUnavailable", message);
    }
    if let Some((reason, message)) = lost_requests(facts) {
        return yes(reason, message);
    }
    if let Some(reason) = facts.unscaled {
        let message = format!(
            "the autoscaler cannot tell how many pods are needed ({reason}): it takes a metrics server, and resources.requests.cpu in every replica group"
        );
        return yes("AutoscalingInactive", message);
    }
    let inexact: Vec<String> = facts.inexact_numbers().into_iter().collect();
    if !inexact.is_empty() {
        let message = format!(
            "{} hold numbers beyond 2^53, which many readers of JSON round: say `json: String` at the field of the pool",
            inexact.join(", ")
        );
        return yes("InexactNumbers", message);
    }
    Draft::new("Degraded", Holds::No, "AsExpected", "nothing is wrong")
}

fn configuration(facts: &Facts<'_>) -> Draft {
    let holds =
        |holds, reason: &str, message: String| Draft::new("ConfigurationApplied", holds, reason, message);
    let Some(wanted) = facts.wanted else {
        return holds(
            Holds::No,
            "InvalidConfiguration",
            "the last good configuration keeps running".to_owned(),
        );
    };
    if let Some(issuer) = facts.unissued {
        return holds(Holds::No, "CertManagerMissing", no_issuer(issuer));
    }
    match facts.migration {
        Some(Migration::Failed(how)) => {
            return holds(Holds::No, "MigrationFailed", format!("{wanted} is held back: {how}"));
        }
        Some(Migration::Running(what)) => {
            return holds(Holds::No, "Migrating", format!("{wanted} waits: {what}"));
        }
        Some(Migration::Done) | None => (),
    }
    match facts.trial {
        Some(Trial::Failed(how)) => {
            return holds(Holds::No, "CanaryFailed", format!("{wanted} is held back: {how}"));
        }
        Some(Trial::Running(what)) => {
            return holds(Holds::No, "Canary", format!("{wanted} is tried first: {what}"));
        }
        Some(Trial::Passed(_)) | None => (),
    }
    let Some(applied) =
        facts.applied.as_deref().filter(|applied| *applied == wanted && facts.behind.is_empty())
    else {
        let (reason, message) = unapplied(facts, wanted);
        return holds(Holds::No, reason, message);
    };
    if facts.pods.is_empty() {
        return holds(Holds::Unknown, "NoPods", format!("no pod runs configuration {applied}"));
    }
    match facts.spread() {
        Spread::Everywhere if facts.current_pods() > 0 => {
            holds(Holds::Yes, "Applied", format!("every ready pod runs configuration {applied}"))
        }
        Spread::Everywhere => {
            holds(Holds::Unknown, "NoReadyPods", format!("no ready pod runs configuration {applied}"))
        }
        Spread::Lagging => {
            holds(Holds::No, "Pending", format!("some pods do not run configuration {applied} yet"))
        }
        Spread::Silent => {
            holds(Holds::Unknown, "PodsNotReporting", "some ready pods do not say what they run".to_owned())
        }
    }
}

/// What of the wanted configuration is not written, and why.
fn unapplied(facts: &Facts<'_>, wanted: &str) -> (&'static str, String) {
    let what = match facts.applied.as_deref() == Some(wanted) {
        true => format!("Deployment {} of configuration {wanted}", facts.behind.join(", ")),
        false => format!("configuration {wanted}"),
    };
    let (reason, why) = match (facts.held, &facts.refused, &facts.failed) {
        (Some(Held::Paused), ..) => ("Paused", "the service is paused"),
        (Some(Held::Secrets), ..) => ("SecretMissing", "a Secret is missing"),
        (_, Some(why), _) => ("ApplyFailed", why.as_str()),
        (_, None, Some(why)) => ("Applying", why.as_str()),
        (_, None, None) if facts.waiting => {
            ("Applying", "its pods serve what those of other groups are taking over")
        }
        (_, None, None) => ("Applying", "it is being written"),
    };
    (reason, format!("{what} is not applied: {why}"))
}

fn backends(facts: &Facts<'_>) -> Draft {
    let holds = |holds, reason: &str, message: &str| Draft::new("BackendsReachable", holds, reason, message);
    if facts.settings.is_some_and(|settings| settings.backends.is_empty()) {
        return holds(Holds::Yes, "NoBackends", "no backends are declared");
    }
    if facts.pods.iter().all(|pod| pod.report.is_none()) {
        return holds(Holds::Unknown, "NoReports", "no pod says what it can reach");
    }
    let unreachable: Vec<&str> = facts.unreachable().into_iter().collect();
    if unreachable.is_empty() {
        return holds(Holds::Yes, "Reachable", "pods reach every backend");
    }
    holds(Holds::No, "BackendUnreachable", &format!("pods cannot reach {}", unreachable.join(", ")))
}

/// Which backends hold another owner's things under the service's names, and what to do.
fn owned_by_others(facts: &Facts<'_>) -> Option<String> {
    let owned = facts.owned_by_others();
    let told = owned.iter().map(|(backend, owner)| format!("backend {backend}: {owner}")).collect::<Vec<_>>();
    (!told.is_empty()).then(|| {
        format!(
            "{}; choose another keyPrefix or topicPrefix, or say with the annotation {TAKE_OVER_FROM} whose they were",
            told.join("; ")
        )
    })
}

/// Which pools pods cannot serve, and why.
fn unavailable_pools(facts: &Facts<'_>) -> Option<String> {
    let pools = facts.unavailable_pools();
    let told = pools.iter().map(|(pool, why)| format!("pool {pool}: {} ({})", why.message, why.reason));
    (!pools.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
}

/// Backends without room: their writes are refused. It says nothing of readiness, since reads go on.
fn storage_full(facts: &Facts<'_>) -> Draft {
    let full: Vec<String> =
        facts.full_backends().iter().map(|(name, why)| format!("{name}: {why}")).collect();
    match full.is_empty() {
        true => {
            Draft::new("StorageFull", Holds::No, "RoomLeft", "no backend refuses writes for want of room")
        }
        false => Draft::new("StorageFull", Holds::Yes, "StorageFull", full.join("; ")),
    }
}

/// Backends that are set so that an acknowledged write can be lost. It says nothing of readiness.
fn durability_reduced(facts: &Facts<'_>) -> Draft {
    let risks: Vec<String> = facts.risks().iter().map(|(name, risk)| format!("{name}: {risk}")).collect();
    match risks.is_empty() {
        true => Draft::new(
            "DurabilityReduced",
            Holds::No,
            "AsExpected",
            "no setting that pods read loses a write",
        ),
        false => Draft::new("DurabilityReduced", Holds::Yes, "BackendSettings", risks.join("; ")),
    }
}

/// Passwords that others can read and the next release refuses. It says nothing of readiness.
fn plaintext_password(facts: &Facts<'_>) -> Draft {
    let of_backend = |name: &&str| {
        format!(
            "backend {name}: its password itself goes to another host without TLS; use TLS (tls: {{ authorities: System }}, ca.crt in its Secret), or \
             say allowPlaintext: true"
        )
    };
    let in_spec = facts.warnings.iter().map(|Fault { path, message, .. }| format!("{path} {message}"));
    let told: Vec<String> = facts.plaintext().iter().map(of_backend).chain(in_spec).collect();
    match told.is_empty() {
        true => Draft::new(
            "PlaintextPassword",
            Holds::No,
            "AsExpected",
            "no password is where others can read it",
        ),
        false => {
            let message = format!("the next release refuses this: {}", told.join("; "));
            Draft::new("PlaintextPassword", Holds::Yes, "RefusedNextRelease", message)
        }
    }
}

/// In which pods most requests come to nothing, and why. How many is left out: a status that changes at each
/// look would be written each time.
fn lost_requests(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let told = [
        (Trouble::Failing, "RequestsFailing", "more than half of the requests fail (5xx) in"),
        (
            Trouble::Overloaded,
            "Overloaded",
            "more than half of the requests are refused, because more come than can be done, in",
        ),
    ];
    told.into_iter().find_map(|(trouble, reason, what)| {
        let pods = facts.in_trouble(trouble);
        (!pods.is_empty()).then(|| (reason, format!("{what} {}", pods.join(", "))))
    })
}

/// Which groups have too few ready pods.
fn shortage(facts: &Facts<'_>) -> Option<String> {
    let short: Vec<String> = facts
        .workloads()
        .filter(|workload| workload.ready < workload.wanted)
        .map(|workload| {
            let Workload { name, ready, wanted, failing, .. } = workload;
            let why = if failing.is_empty() { String::new() } else { format!(" ({})", failing.join(", ")) };
            format!("{name}: {ready} of {wanted} pods are ready{why}")
        })
        .collect();
    (!short.is_empty() || facts.groups.is_empty()).then(|| short.join("; "))
}

/// Ready and wanted pods of the data plane. While pods are replaced there are more than wanted: those do not
/// make up for another group's lack.
fn ready_of(facts: &Facts<'_>) -> (u32, u32) {
    let ready = facts.groups.iter().map(|group| group.ready.min(group.wanted)).sum();
    (ready, facts.groups.iter().map(|group| group.wanted).sum())
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
