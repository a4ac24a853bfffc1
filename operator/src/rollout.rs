//! The third step: what to do to the cluster. A change goes out by stages: the stores' migration, a canary,
//! the handover of pools, then all pods. What is held back meanwhile stays as it last was good. Pure.

use crds::fault::Fault;
use serde_json::Value;

use crate::{
    children::{children, target::Target},
    model::{
        child::{Child, ChildKind, ChildRef},
        observed::Observed,
        plan::{Held, Migration, Plan, Trial},
        validated::Validated,
    },
    rollout::{
        canary::Canary,
        migration::Migrating,
        notification::{lagging, unaware},
        prune::superfluous,
    },
};

mod canary;
mod handover;
mod last_good;
mod migration;
mod notification;
mod pods;
mod prune;
#[cfg(test)]
mod tests;

/// What to do to the cluster for this verdict.
pub fn plan(observed: &Observed, verdict: &Result<Validated, Vec<Fault>>) -> Plan {
    let Ok(validated) = verdict else {
        let restore = if observed.service.spec.paused { Vec::new() } else { last_good::children(observed) };
        return Plan { held: Some(Held::Faults), restore, ..Plan::default() };
    };
    if validated.paused {
        return Plan { held: Some(Held::Paused), ..Plan::default() };
    }
    let target = Target { observed, validated };
    let same_pods = observed.running.as_ref().is_some_and(|running| running.rolling == validated.rolling);
    let waits = match (has_no_issuer(&target), validated.missing.is_empty()) {
        _ if same_pods => None,
        (true, _) => Some(Held::CertManager),
        (false, false) => Some(Held::Secrets),
        (false, true) => None,
    };
    let migrating = if waits.is_some() { None } else { migration::migration(&target) };
    let waits = waits.or_else(|| match migrating.as_ref()?.migration {
        Migration::Running(_) => Some(Held::Migration),
        Migration::Failed(_) => Some(Held::MigrationFailed),
        Migration::Done => None,
    });
    let canary = if waits.is_some() { None } else { canary::canary(&target) };
    let held = waits.or_else(|| match canary.as_ref()?.trial {
        Trial::Running(_) => Some(Held::Canary),
        Trial::Failed(_) => Some(Held::CanaryFailed),
        Trial::Passed(_) => None,
    });
    let waiting = if held.is_some() { Vec::new() } else { handover::waiting(&target) };
    let mut children = children(&target);
    let (mut restore, mut trial, mut migration) = (Vec::new(), None, None);
    let resize = if held.is_some() {
        restore = last_good::scaled(&target);
        children.retain(|child| may_change(&target, child, waits.is_some(), &restore));
        restore.retain(|child| !is_among(&child.reference, &children));
        resize(&target, |deployment, _| !is_among(deployment, &restore))
    } else {
        children.retain(|child| !waiting.contains(&child.reference));
        children.extend(last_good::child_beside(&target, &children, &waiting));
        // fewer only once others serve
        resize(&target, |deployment, more| more && waiting.contains(deployment))
    };
    // what a change went through stays until all of it is done, or it would be gone through again
    let under_way = held.is_some() || !waiting.is_empty();
    if let Some(Migrating { migration: found, children: own }) = migrating {
        children.extend(under_way.then_some(own).into_iter().flatten());
        migration = Some(found);
    }
    if let Some(Canary { trial: found, children: own }) = canary {
        children.extend(under_way.then_some(own).into_iter().flatten());
        trial = Some(found);
    }
    children.sort_by(|a, b| a.reference.cmp(&b.reference));
    Plan {
        held,
        key_to_make: validated.key_to_make.clone(),
        replicas_to_seed: validated.replicas_to_seed,
        prune: superfluous(&target, &children, held, &waiting),
        notifications: match held {
            Some(_) => Vec::new(),
            None => {
                let mut all = lagging(observed, &validated.hash, &validated.rolling);
                all.extend(unaware(observed, validated.secrets.as_deref()));
                all
            }
        },
        children,
        restore,
        resize,
        waiting,
        migration,
        trial,
    }
}

/// Whether a certificate is to be issued and nobody is there to do so.
fn has_no_issuer(target: &Target<'_>) -> bool {
    target.validated.issuer.is_some() && !target.observed.cert_manager
}

/// Whether the child may change while pods are left as they are. While they `wait`, the Services that
/// lead to them stay, too: a change of the port or the protocol belongs to pods that are not there yet.
fn may_change(target: &Target<'_>, child: &Child, wait: bool, last_good: &[Child]) -> bool {
    let mut live = target.observed.children.iter();
    match child.reference.kind {
        ChildKind::ConfigMap | ChildKind::Deployment => false,
        ChildKind::Service => {
            !wait
                || !(is_among(&child.reference, last_good)
                    || live.any(|live| live.reference == child.reference))
        }
        _ => true,
    }
}

/// Those of these Deployments of groups that have another number of pods than is wanted; `of` is told
/// whether more are.
fn resize(target: &Target<'_>, of: impl Fn(&ChildRef, bool) -> bool) -> Vec<(ChildRef, u32)> {
    let groups = target.validated.groups.iter();
    let wrong = groups.filter_map(|group| {
        let reference = ChildRef { kind: ChildKind::Deployment, name: target.name_of(&group.name) };
        let live = target.observed.children.iter().find(|live| live.reference == reference)?;
        let replicas = live.object.data.pointer("/spec/replicas").and_then(Value::as_u64);
        let is_wrong = replicas != Some(group.replicas.into());
        let more = replicas < Some(group.replicas.into());
        (is_wrong && of(&reference, more)).then_some((reference, group.replicas))
    });
    wrong.collect()
}

fn is_among(reference: &ChildRef, children: &[Child]) -> bool {
    children.iter().any(|child| child.reference == *reference)
}
