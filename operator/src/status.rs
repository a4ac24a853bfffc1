//! The fifth step: says how things are. One writer, nothing written that is already said, at most one write a
//! second, figures at most every half minute.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use crds::{
    fault::Fault,
    status::{PoolStatus, ServiceStatus, TierStatus},
};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    apply::Applied,
    child::MANAGER,
    context::Context,
    desired::{Plan, canary::Trial},
    error::Error,
    observe::Observed,
    shares::{Share, label, serves},
    status::{conditions::find, facts::Facts},
    validate::Validated,
};

pub mod conditions;
pub mod facts;
pub mod figures;
pub mod service;
#[cfg(test)]
mod tests;

const FIGURES_EVERY: Duration = Duration::from_secs(30);
/// How often a status may be written, or tried to be.
pub const ANYTHING_EVERY: Duration = Duration::from_secs(1);

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It says something new, and was written.
    Written,
    /// It is said already, or what is new are figures that may wait.
    Said,
    /// It says something new, but the last write is too recent, or the object changed meanwhile: look again.
    Later,
}

/// Writes the service's status, hands the figures on to its pools and tiers, and reports changes as events.
/// Says whether all is settled.
///
/// # Errors
/// When the status cannot be written.
pub async fn report(
    observed: &Observed,
    verdict: &Result<Validated, Vec<Fault>>,
    plan: &Plan,
    applied: &Applied,
    context: &Context,
) -> Result<bool, Error> {
    let facts = facts::gather(observed, verdict, plan, applied);
    let former = observed.service.status.clone().unwrap_or_default();
    let status = service::status(&facts, observed, &former.conditions);
    let share = Share::new(observed, &facts, &status);
    let settled = find(&status.conditions, "Progressing").is_some_and(|one| one.status == "False");
    let changed = context.shares.put(&observed.namespace, &observed.name, share);
    let is_new = former.conditions.is_empty() && context.memory.may_report(&observed.uid, Duration::MAX);
    if is_new && applied.changed && applied.outcome.is_ok() {
        // What controllers make of new children is told with them, not in another status a moment later.
        context.memory.reported(&observed.uid);
    }
    let published = publish(&*observed.service, &former, &status, context).await?;
    if published == Published::Written {
        announce(observed, &former.conditions, &status.conditions, plan, context).await;
    }
    if changed {
        context.shares.wake(observed, context).await;
    }
    Ok(settled && published != Published::Later)
}

/// A status, and what of it may wait.
pub trait Status: Clone + PartialEq + Serialize {
    /// The same without figures.
    fn essence(&self) -> Self;
}

impl Status for ServiceStatus {
    fn essence(&self) -> Self {
        Self { pools: Vec::new(), ..self.clone() }
    }
}

impl Status for PoolStatus {
    fn essence(&self) -> Self {
        Self {
            conditions: self.conditions.clone(),
            observed_generation: self.observed_generation,
            ..Self::default()
        }
    }
}

impl Status for TierStatus {
    fn essence(&self) -> Self {
        Self { entries: None, hit_ratio: None, ..self.clone() }
    }
}

/// Writes the status where it says something new.
///
/// # Errors
/// When the API server refuses or fails; an object that is gone is no error.
pub async fn publish<K, S>(object: &K, former: &S, status: &S, context: &Context) -> Result<Published, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Status,
{
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let essential = former.essence() != status.essence();
    if former == status
        || !context.memory.may_report(&uid, if essential { ANYTHING_EVERY } else { FIGURES_EVERY })
    {
        return Ok(if essential { Published::Later } else { Published::Said });
    }
    let api: Api<K> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let kind = K::kind(&());
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        // Not for another object that took the name in the meantime.
        "metadata": { "name": name, "uid": uid },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&body);
    let request = api.patch_status(&name, &parameters, &patch);
    match context.writer.write("status", &kind, &name, request).await {
        Ok(_) => {
            context.memory.reported(&uid);
            Ok(Published::Written)
        }
        // Gone: there is nobody to tell.
        Err(error) if error.is_not_found() => Ok(Published::Said),
        // Replaced by another of its name, or the API server was busy with it: the next look knows, and is no
        // sooner than after a write.
        Err(error) if error.is_conflict() => {
            context.memory.reported(&uid);
            Ok(Published::Later)
        }
        Err(error) => Err(error),
    }
}

/// An event for what `kubectl describe` should show: that the service became ready, or why it is not.
async fn announce(
    observed: &Observed,
    former: &[Condition],
    conditions: &[Condition],
    plan: &Plan,
    context: &Context,
) {
    let reference = observed.reference();
    let tried = |conditions| find(conditions, "Progressing").is_some_and(|one| one.reason == "Canary");
    match &plan.trial {
        Some(Trial::Running(what)) if !tried(former) => {
            context
                .events
                .normal(&reference, "CanaryStarted", format!("{what}: the other pods wait for it"))
                .await;
        }
        Some(Trial::Passed(what)) if tried(former) => {
            context.events.normal(&reference, "CanaryPassed", format!("{what}: the other pods follow")).await;
        }
        _ => (),
    }
    let Some(ready) = find(conditions, "Ready") else { return };
    let before = find(former, "Ready");
    if before.is_some_and(|before| before.reason == ready.reason && before.message == ready.message) {
        return;
    }
    match (ready.status.as_str(), ready.reason.as_str()) {
        ("True", _) if before.is_none_or(|before| before.status != "True") => {
            context.events.normal(&reference, "Ready", ready.message.clone()).await;
        }
        (
            _,
            reason @ ("InvalidConfiguration"
            | "CertManagerMissing"
            | "SecretMissing"
            | "ApplyFailed"
            | "BackendUnreachable"
            | "PoolUnavailable"
            | "RequestsFailing"
            | "Overloaded"
            | "MigrationFailed"
            | "CanaryFailed"),
        ) => {
            context.events.warning(&reference, reason, ready.message.clone()).await;
        }
        _ => (),
    }
}

impl Share {
    fn new(observed: &Observed, facts: &Facts<'_>, status: &ServiceStatus) -> Self {
        let ready = find(&status.conditions, "Ready");
        Self {
            service: observed.name.clone(),
            available: find(&status.conditions, "Available").is_some_and(|one| one.status == "True"),
            applied: find(&status.conditions, "ConfigurationApplied").is_some_and(|one| one.status == "True"),
            seen: seen(observed),
            trouble: ready
                .filter(|one| one.status != "True")
                .map(|one| one.reason.clone())
                .unwrap_or_default(),
            faults: facts.faults.to_vec(),
            settings: facts.settings.cloned().map(Arc::new),
            reports: facts.pods.iter().filter_map(|pod| pod.report.clone()).collect(),
        }
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
