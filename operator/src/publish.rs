//! The fifth step, its second half: writes the statuses. One writer, nothing written that is already said, at
//! most one write a second, figures at most every half minute.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use crds::{
    conditions::{ConditionType, Reason},
    fault::Fault,
    pool::FlyweightPool,
    service::FlyweightService,
    tier::CacheTier,
};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    context::Context,
    model::{
        applied::Applied,
        child::MANAGER,
        error::Error,
        observed::Observed,
        plan::{Plan, Trial},
        update::StatusUpdate,
        validated::Validated,
    },
    pace::{FIGURES_EVERY, RECHECK, SOON, STATUS_EVERY},
    status::{self, conditions::find, essence::Status, update::serves},
    wake::Request,
};

/// Why a service is not ready where somebody should do something about it.
const WARNED_OF: [Reason; 23] = [
    Reason::InvalidConfiguration,
    Reason::CertManagerMissing,
    Reason::SecretMissing,
    Reason::ApplyFailed,
    Reason::BackendUnreachable,
    Reason::PoolUnavailable,
    Reason::RequestsFailing,
    Reason::Overloaded,
    Reason::MigrationFailed,
    Reason::CanaryFailed,
    Reason::Unschedulable,
    Reason::ImageNotPulled,
    Reason::ContainerNotCreated,
    Reason::OutOfMemory,
    Reason::CrashLooping,
    Reason::QuotaExceeded,
    Reason::PodsRefused,
    Reason::WrongPassword,
    Reason::MissingRight,
    Reason::UnknownHost,
    Reason::ConnectionRefused,
    Reason::NotTrusted,
    Reason::DatabaseMissing,
];

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
pub async fn service(
    observed: &Observed,
    verdict: &Result<Validated, Vec<Fault>>,
    plan: &Plan,
    applied: &Applied,
    context: &Context,
) -> Result<bool, Error> {
    let facts = status::facts::gather(observed, verdict, plan, applied);
    let former = observed.service.status.clone().unwrap_or_default();
    let status = status::service::status(&facts, observed, &former.conditions);
    let update = status::update::update(observed, &facts, &status);
    let settled =
        find(&status.conditions, ConditionType::Progressing).is_some_and(|one| one.status == "False");
    let changed = context.updates.put(&observed.namespace, &observed.name, update);
    let is_new = former.conditions.is_empty() && context.memory.may_report(&observed.uid, Duration::MAX);
    if is_new && applied.changed && applied.outcome.is_ok() {
        // What controllers make of new children is told with them, not in another status a moment later.
        context.memory.reported(&observed.uid);
    }
    let published = write(&*observed.service, &former, &status, context).await?;
    if published == Published::Written {
        announce(observed, &former.conditions, &status.conditions, plan, context).await;
    }
    if changed {
        wake_served(observed, context).await;
    }
    Ok(settled && published != Published::Later)
}

/// Writes the status where it says something new.
///
/// # Errors
/// When the API server refuses or fails; an object that is gone is no error.
pub async fn write<K, S>(object: &K, former: &S, status: &S, context: &Context) -> Result<Published, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: Status,
{
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let essential = former.essence() != status.essence();
    if former == status
        || !context.memory.may_report(&uid, if essential { STATUS_EVERY } else { FIGURES_EVERY })
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
    let tried = |conditions| {
        find(conditions, ConditionType::Progressing).is_some_and(|one| one.reason == Reason::Canary.as_str())
    };
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
    let Some(ready) = find(conditions, ConditionType::Ready) else { return };
    let before = find(former, ConditionType::Ready);
    if before.is_some_and(|before| before.reason == ready.reason && before.message == ready.message) {
        return;
    }
    match (ready.status.as_str(), Reason::parse(&ready.reason)) {
        ("True", _) if before.is_none_or(|before| before.status != "True") => {
            context.events.normal(&reference, ConditionType::Ready.as_str(), ready.message.clone()).await;
        }
        (_, Some(reason)) if WARNED_OF.contains(&reason) => {
            context.events.warning(&reference, reason.as_str(), ready.message.clone()).await;
        }
        _ => (),
    }
}

/// Wakes the pools and tiers that the service reaches.
async fn wake_served(observed: &Observed, context: &Context) {
    let pools = observed.pools.iter().filter(|pool| serves(&observed.service, &pool.name_any()));
    for pool in pools.clone() {
        context.wake.send(Request::Pool(ObjectRef::from_obj(&**pool))).await;
    }
    let used: BTreeSet<&str> =
        pools.flat_map(|pool| &pool.spec.tier_refs).map(|tier| tier.name.as_str()).collect();
    for tier in observed.tiers.iter().filter(|tier| used.contains(tier.name_any().as_str())) {
        context.wake.send(Request::Tier(ObjectRef::from_obj(&**tier))).await;
    }
}

/// Writes the status of a pool.
///
/// # Errors
/// When it cannot be written.
pub async fn pool(pool: &Arc<FlyweightPool>, context: &Context) -> Result<Action, Error> {
    if let Some(rest) = too_soon(&**pool, context) {
        return Ok(Action::requeue(rest));
    }
    let name = pool.name_any();
    let services = context.caches.services_in(&pool.namespace().unwrap_or_default());
    let Some(updates) = updates_of(&services, context, |service| serves(service, &name)) else {
        return Ok(Action::requeue(SOON));
    };
    let former = pool.status.clone().unwrap_or_default();
    let status = status::pool::status(pool, &updates, &former, Timestamp::now());
    Ok(again(write(&**pool, &former, &status, context).await?))
}

/// Writes the status of a tier.
///
/// # Errors
/// When it cannot be written.
pub async fn tier(tier: &Arc<CacheTier>, context: &Context) -> Result<Action, Error> {
    if let Some(rest) = too_soon(&**tier, context) {
        return Ok(Action::requeue(rest));
    }
    let (name, namespace) = (tier.name_any(), tier.namespace().unwrap_or_default());
    let pools = context.caches.pools_in(&namespace);
    let users: Vec<String> = pools
        .iter()
        .filter(|pool| pool.spec.tier_refs.iter().any(|one| one.name == name))
        .map(|pool| pool.name_any())
        .collect();
    let services = context.caches.services_in(&namespace);
    let uses = |service: &FlyweightService| users.iter().any(|pool| serves(service, pool));
    let Some(updates) = updates_of(&services, context, uses) else { return Ok(Action::requeue(SOON)) };
    let former = tier.status.clone().unwrap_or_default();
    let status = status::tier::status(tier, &updates, &former, Timestamp::now());
    Ok(again(write(&**tier, &former, &status, context).await?))
}

fn again(published: Published) -> Action {
    Action::requeue(if published == Published::Later { SOON } else { RECHECK })
}

/// How long a status that was just written stays as it is. Every service that shares a pool wakes it, and
/// there may be many.
fn too_soon(object: &impl ResourceExt, context: &Context) -> Option<Duration> {
    context.memory.until_report(&object.uid()?, STATUS_EVERY)
}

/// The updates of the services that match; none while one of them has not been reconciled.
fn updates_of(
    services: &[Arc<FlyweightService>],
    context: &Context,
    matches: impl Fn(&FlyweightService) -> bool,
) -> Option<Vec<Arc<StatusUpdate>>> {
    services.iter().filter(|service| matches(service)).map(|service| context.updates.of(service)).collect()
}
