//! How far a change has come.

use crds::conditions::{ConditionType, Reason};

use super::causes::{no_issuer, shortage};
use crate::{
    model::plan::{Held, Migration, Trial},
    status::{
        conditions::{Draft, Holds},
        facts::{Facts, Spread},
    },
};

pub fn progressing(facts: &Facts<'_>) -> Draft {
    let holds = |holds: bool, reason: Reason, message: &str| {
        Draft::new(ConditionType::Progressing, holds.into(), reason, message)
    };
    if let Some(failed) = &facts.failed {
        return holds(true, Reason::Applying, &format!("{failed}; it is tried again"));
    }
    match facts.held {
        Some(Held::Paused) => {
            return holds(false, Reason::Paused, "spec.paused is true: children stay as they are");
        }
        Some(Held::Faults) => {
            return holds(false, Reason::InvalidConfiguration, "the last good configuration keeps running");
        }
        Some(Held::CertManager) => {
            return holds(false, Reason::CertManagerMissing, "pods wait for cert-manager");
        }
        Some(Held::Secrets) => {
            return holds(false, Reason::SecretMissing, "pods wait for the missing Secret");
        }
        Some(Held::CanaryFailed) => {
            return holds(false, Reason::CanaryFailed, "the change is held back: its canary did worse");
        }
        Some(Held::MigrationFailed) => {
            return holds(
                false,
                Reason::MigrationFailed,
                "the change is held back: the stores could not be prepared for it",
            );
        }
        Some(Held::Migration | Held::Canary) | None => (),
    }
    if let Some(Migration::Running(what)) = facts.migration {
        return holds(
            true,
            Reason::Migrating,
            &format!("{what}; pods of the new image follow when it is done"),
        );
    }
    if let Some(Trial::Running(what)) = facts.trial {
        return holds(true, Reason::Canary, &format!("{what}; the others follow when it does no worse"));
    }
    if facts.refused.is_some() {
        return holds(false, Reason::ApplyFailed, "the API server refuses a child");
    }
    if let Some(workload) = facts.workloads().find(|workload| !workload.rolled_out) {
        return holds(true, Reason::RollingOut, &format!("{}: pods are being replaced", workload.name));
    }
    if let Some((_, message)) = shortage(facts) {
        return holds(true, Reason::StartingPods, &message);
    }
    match facts.spread() {
        Spread::Everywhere => holds(false, Reason::Settled, "nothing is under way"),
        Spread::Lagging => {
            holds(true, Reason::ApplyingConfiguration, "some pods do not run the configuration yet")
        }
        Spread::Silent => holds(true, Reason::PodsNotReporting, "some pods do not say yet what they run"),
    }
}

pub fn draining(facts: &Facts<'_>) -> Draft {
    match facts.ending {
        0 => Draft::new(ConditionType::Draining, Holds::No, Reason::NoPodsEnding, "no pod was told to end"),
        _ => Draft::new(
            ConditionType::Draining,
            Holds::Yes,
            Reason::PodsEnding,
            "pods that were told to end finish what they began",
        ),
    }
}

pub fn configuration(facts: &Facts<'_>) -> Draft {
    let holds = |holds, reason: Reason, message: String| {
        Draft::new(ConditionType::ConfigurationApplied, holds, reason, message)
    };
    let Some(wanted) = facts.wanted else {
        return holds(
            Holds::No,
            Reason::InvalidConfiguration,
            "the last good configuration keeps running".to_owned(),
        );
    };
    if let Some(issuer) = facts.unissued {
        return holds(Holds::No, Reason::CertManagerMissing, no_issuer(issuer));
    }
    match facts.migration {
        Some(Migration::Failed(how)) => {
            return holds(Holds::No, Reason::MigrationFailed, format!("{wanted} is held back: {how}"));
        }
        Some(Migration::Running(what)) => {
            return holds(Holds::No, Reason::Migrating, format!("{wanted} waits: {what}"));
        }
        Some(Migration::Done) | None => (),
    }
    match facts.trial {
        Some(Trial::Failed(how)) => {
            return holds(Holds::No, Reason::CanaryFailed, format!("{wanted} is held back: {how}"));
        }
        Some(Trial::Running(what)) => {
            return holds(Holds::No, Reason::Canary, format!("{wanted} is tried first: {what}"));
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
        return holds(Holds::Unknown, Reason::NoPods, format!("no pod runs configuration {applied}"));
    }
    match facts.spread() {
        Spread::Everywhere if facts.current_pods() > 0 => {
            holds(Holds::Yes, Reason::Applied, format!("every ready pod runs configuration {applied}"))
        }
        Spread::Everywhere => {
            holds(Holds::Unknown, Reason::NoReadyPods, format!("no ready pod runs configuration {applied}"))
        }
        Spread::Lagging => {
            holds(Holds::No, Reason::Pending, format!("some pods do not run configuration {applied} yet"))
        }
        Spread::Silent => holds(
            Holds::Unknown,
            Reason::PodsNotReporting,
            "some ready pods do not say what they run".to_owned(),
        ),
    }
}

/// What of the wanted configuration is not written, and why.
fn unapplied(facts: &Facts<'_>, wanted: &str) -> (Reason, String) {
    let what = match facts.applied.as_deref() == Some(wanted) {
        true => format!("Deployment {} of configuration {wanted}", facts.behind.join(", ")),
        false => format!("configuration {wanted}"),
    };
    let (reason, why) = match (facts.held, &facts.refused, &facts.failed) {
        (Some(Held::Paused), ..) => (Reason::Paused, "the service is paused"),
        (Some(Held::Secrets), ..) => (Reason::SecretMissing, "a Secret is missing"),
        (_, Some(why), _) => (Reason::ApplyFailed, why.as_str()),
        (_, None, Some(why)) => (Reason::Applying, why.as_str()),
        (_, None, None) if facts.waiting => {
            (Reason::Applying, "its pods serve what those of other groups are taking over")
        }
        (_, None, None) => (Reason::Applying, "it is being written"),
    };
    (reason, format!("{what} is not applied: {why}"))
}
