//! What is wrong with a service, as several conditions say it.

use std::collections::BTreeMap;

use crds::{annotations::TAKE_OVER_FROM, conditions::Reason, service::security::IssuerRef};

use crate::{
    model::{
        cause::Cause,
        plan::{Migration, Trial},
        report::{ProblemReport, Trouble},
    },
    status::facts::{Facts, Workload},
};

/// What to do about a change that was held back.
const TRY_AGAIN: &str = "change the resources, or try again with kubectl flyweight restart";

/// What the author of the resources has to mend, whatever the pods do.
pub fn blocked(facts: &Facts<'_>) -> Option<(Reason, String)> {
    if !facts.faults.is_empty() {
        let faults: Vec<String> = facts.faults.iter().map(ToString::to_string).collect();
        return Some((Reason::InvalidConfiguration, faults.join("; ")));
    }
    if let Some(refused) = &facts.refused {
        return Some((Reason::ApplyFailed, refused.clone()));
    }
    if let Some(issuer) = facts.unissued {
        return Some((Reason::CertManagerMissing, no_issuer(issuer)));
    }
    if !facts.missing.is_empty() {
        let missing =
            facts.missing.iter().map(|secret| format!("Secret \"{}\" ({})", secret.name, secret.path));
        return Some((Reason::SecretMissing, format!("missing: {}", missing.collect::<Vec<_>>().join(", "))));
    }
    if let Some(Migration::Failed(how)) = facts.migration {
        return Some((
            Reason::MigrationFailed,
            format!("{how}; the pods run on as before, and it is tried again: {TRY_AGAIN}"),
        ));
    }
    if let Some(Trial::Failed(how)) = facts.trial {
        return Some((Reason::CanaryFailed, format!("{how}; the others run on as before: {TRY_AGAIN}")));
    }
    None
}

pub fn no_issuer(issuer: &IssuerRef) -> String {
    format!(
        "spec.security.tls.issuerRef names {:?} \"{}\", and this cluster knows no Certificate of \
         cert-manager.io/v1: install cert-manager, or name a Secret by secretRef alone",
        issuer.kind, issuer.name
    )
}

/// Which groups have too few ready pods, and why, as exactly as anybody says it.
pub fn shortage(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let short: Vec<String> = facts
        .workloads()
        .filter(|workload| workload.ready < workload.wanted)
        .map(|workload| {
            let Workload { name, ready, wanted, failing, .. } = workload;
            let why = if failing.is_empty() { String::new() } else { format!(" ({})", told(failing)) };
            format!("{name}: {ready} of {wanted} pods are ready{why}")
        })
        .collect();
    let reason = exact(facts).unwrap_or(Reason::PodsNotReady);
    (!short.is_empty() || facts.groups.is_empty()).then(|| (reason, short.join("; ")))
}

/// The word for what keeps pods from being ready; none where nothing more is known of it.
pub fn exact(facts: &Facts<'_>) -> Option<Reason> {
    let mut causes = facts.workloads().flat_map(|one| &one.failing).map(|cause| cause.reason);
    causes.find(|reason| *reason != Reason::PodsFailing)
}

/// What keeps these pods, in a sentence.
pub fn told(causes: &[Cause]) -> String {
    causes.iter().map(|cause| cause.message.as_str()).collect::<Vec<_>>().join(", ")
}

/// Which backends pods cannot reach, and why, as far as they say.
pub fn unreachable(backends: BTreeMap<&str, Option<&ProblemReport>>) -> Option<(Reason, String)> {
    let known = backends.values().flatten().find_map(|problem| Reason::parse(&problem.reason));
    let told: Vec<String> = backends
        .iter()
        .map(|(name, problem)| match problem {
            Some(problem) => format!("{name} ({})", problem.message),
            None => (*name).to_owned(),
        })
        .collect();
    let reason = known.unwrap_or(Reason::BackendUnreachable);
    (!told.is_empty()).then(|| (reason, format!("pods cannot reach {}", told.join(", "))))
}

/// Which backends hold another owner's things under the service's names, and what to do.
pub fn owned_by_others(facts: &Facts<'_>) -> Option<String> {
    let owned = facts.owned_by_others();
    let told = owned.iter().map(|(backend, owner)| format!("backend {backend}: {owner}")).collect::<Vec<_>>();
    (!told.is_empty()).then(|| {
        format!(
            "{}; choose another keyPrefix or topicPrefix, or say with the annotation {TAKE_OVER_FROM} whose \
             they were",
            told.join("; ")
        )
    })
}

/// Which pools pods cannot serve, and why.
pub fn unavailable_pools(facts: &Facts<'_>) -> Option<String> {
    let pools = facts.unavailable_pools();
    let told = pools.iter().map(|(pool, why)| format!("pool {pool}: {} ({})", why.message, why.reason));
    (!pools.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
}

/// In which pods most requests come to nothing, and why. How many is left out: a status that changes at each
/// look would be written each time.
pub fn lost_requests(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let told = [
        (Trouble::Failing, Reason::RequestsFailing, "more than half of the requests fail (5xx) in"),
        (
            Trouble::Overloaded,
            Reason::Overloaded,
            "more than half of the requests are refused, because more come than can be done, in",
        ),
    ];
    told.into_iter().find_map(|(trouble, reason, what)| {
        let pods = facts.in_trouble(trouble);
        (!pods.is_empty()).then(|| (reason, format!("{what} {}", pods.join(", "))))
    })
}
