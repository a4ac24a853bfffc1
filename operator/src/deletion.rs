//! Deleting a service: its pods stay until the events of acknowledged writes are published, but not for ever.
//!
//! The events are in the stores and stay there; a service that is made again publishes what was left. So
//! waiting is a courtesy to consumers, and it ends after [`WAIT_MAX`], when nobody is there to publish, or
//! when the author of the service says so.

use std::sync::Arc;

use crds::{
    annotations::{DRAIN_FINALIZER, FORCE_DELETION, NAMES, NAMESPACED, PLAINTEXT, REFUSED},
    conditions::{ConditionType, Reason},
    service::FlyweightService,
    status::ServiceStatus,
};
use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    model::{child::MANAGER, error::Error, observed::Observed, report::PodReport},
    observe::observe,
    pace::{STATUS_EVERY, UNDER_WAY},
    publish,
    status::conditions::{Draft, Holds, settle},
};

/// How long events may keep a deleted service.
const WAIT_MAX: SignedDuration = SignedDuration::from_secs(60);

/// What is to be done about a service that is being deleted.
#[derive(Debug, PartialEq)]
enum Step {
    /// Its pods are still needed, for this reason.
    Wait(String),
    /// It may go.
    LetGo,
    /// It may go, although this many events are not published.
    GiveUp(u64),
}

/// Whether the service has the finalizer.
pub fn is_guarded(service: &FlyweightService) -> bool {
    service.finalizers().iter().any(|one| one == DRAIN_FINALIZER)
}

/// Puts the finalizer on the service, and on a new one what holds of new ones alone. The change wakes the
/// next reconcile.
///
/// # Errors
/// When the API server refuses or fails.
pub async fn guard(service: &FlyweightService, context: &Context) -> Result<Action, Error> {
    let mut finalizers = service.finalizers().to_vec();
    finalizers.push(DRAIN_FINALIZER.to_owned());
    set_metadata(
        service,
        json!({ "finalizers": finalizers, "annotations": annotations_if_new(service) }),
        context,
    )
    .await
}

/// What holds of a new service alone: what its names are made of, and that passwords which others can read
/// are refused. Nothing where it ran before, whatever was taken off it since; what is there already stays.
fn annotations_if_new(service: &FlyweightService) -> Value {
    if service.status.as_ref().is_some_and(|status| *status != ServiceStatus::default()) {
        return json!({});
    }
    let all = [(NAMES, NAMESPACED), (PLAINTEXT, REFUSED)];
    let unsaid = all.into_iter().filter(|(annotation, _)| !service.annotations().contains_key(*annotation));
    unsaid
        .map(|(annotation, value)| (annotation.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Lets a deleted service go once its events are published.
///
/// # Errors
/// When the API server refuses or fails.
pub async fn finish(service: &Arc<FlyweightService>, context: &Context) -> Result<Action, Error> {
    if !is_guarded(service) {
        return Ok(Action::await_change());
    }
    let observed = observe(service, context).await;
    match step(&observed) {
        Step::Wait(why) => {
            let former = service.status.clone().unwrap_or_default();
            let mut status = former.clone();
            let draft = Draft::new(ConditionType::Draining, Holds::Yes, Reason::Deleting, why);
            let draining = settle(vec![draft], &former.conditions, service.meta().generation, observed.at);
            status.conditions.retain(|one| one.type_ != ConditionType::Draining.as_str());
            status.conditions.extend(draining);
            publish::write(&**service, &former, &status, context).await?;
            return Ok(Action::requeue(UNDER_WAY));
        }
        Step::GiveUp(events) => {
            let note = format!("{events} events were not published in time: they stay in the stores");
            context.events.warning(&observed.reference(), "BacklogLeft", note).await;
        }
        Step::LetGo => (),
    }
    let others: Vec<String> =
        service.finalizers().iter().filter(|one| *one != DRAIN_FINALIZER).cloned().collect();
    set_metadata(service, json!({ "finalizers": others }), context).await
}

fn step(observed: &Observed) -> Step {
    let service = &observed.service;
    let force = service.annotations().get(FORCE_DELETION).is_some_and(|value| value == "true");
    let waited = service.meta().deletion_timestamp.as_ref().map(|since| observed.at.duration_since(since.0));
    let pods: Vec<_> = observed.pods.iter().filter(|pod| pod.group.is_some()).collect();
    let reports = pods.iter().filter_map(|pod| pod.report.as_ref());
    // An outbox is shared: every pod reports all of it.
    let backlog =
        reports.map(|report| report.pools.iter().map(|pool| pool.backlog).sum::<u64>()).max().unwrap_or(0);
    let knows = |report: &PodReport| report.pools.iter().all(|pool| !pool.backlog_unknown);
    let silent = pods.iter().any(|pod| pod.ready && !pod.report.as_ref().is_some_and(knows));
    let late = force || waited.is_some_and(|waited| waited >= WAIT_MAX);
    match (backlog, silent, late) {
        (0, false, _) | (0, true, true) => Step::LetGo,
        (events, _, true) => Step::GiveUp(events),
        (0, true, false) => Step::Wait("waits for pods to say whether events are left to publish".to_owned()),
        (_, _, false) => Step::Wait("waits for the events of acknowledged writes to be published".to_owned()),
    }
}

/// Not over a change that somebody else made since: that is a failure, and the next look, after its pause,
/// decides.
async fn set_metadata(
    service: &FlyweightService,
    mut metadata: Value,
    context: &Context,
) -> Result<Action, Error> {
    let name = service.name_any();
    let uid = service.uid().unwrap_or_default();
    // A view that lags behind shows it without what was just written.
    let what = format!("{uid} finalizers");
    if let Some(rest) = context.memory.until_report(&what, STATUS_EVERY) {
        return Ok(Action::requeue(rest));
    }
    let api: Api<FlyweightService> =
        Api::namespaced(context.client.clone(), &service.namespace().unwrap_or_default());
    let version = service.resource_version();
    metadata["resourceVersion"] = json!(version);
    metadata["uid"] = json!(uid);
    let patch = json!({ "metadata": metadata });
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(&patch);
    let request = api.patch_metadata(&name, &parameters, &patch);
    let written = context.writer.write("patch", "FlyweightService", &name, request).await;
    context.memory.reported(&what);
    match written {
        Ok(_) => Ok(Action::await_change()),
        Err(error) if error.is_not_found() => Ok(Action::await_change()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        fixture::{now, observed, settle as settled},
        model::report::PoolReport,
    };

    /// A service that was deleted so many seconds ago, with so many events to publish.
    fn deleted(seconds: i64, backlog: u64, change: impl FnOnce(&mut Observed)) -> Step {
        let mut observed = observed();
        settled(&mut observed);
        let mut service = (*observed.service).clone();
        service.metadata.deletion_timestamp = Some(Time(now() - SignedDuration::from_secs(seconds)));
        observed.service = Arc::new(service);
        let pool = PoolReport { name: "products".to_owned(), backlog, ..PoolReport::default() };
        for report in observed.pods.iter_mut().filter_map(|pod| pod.report.as_mut()) {
            report.pools = vec![pool.clone()];
        }
        change(&mut observed);
        step(&observed)
    }

    #[test]
    fn it_waits_for_the_backlog_and_for_silent_pods() {
        assert_eq!(deleted(1, 0, |_| ()), Step::LetGo);
        assert!(matches!(deleted(1, 7, |_| ()), Step::Wait(_)));
        assert!(matches!(deleted(1, 0, |observed| observed.pods[0].report = None), Step::Wait(_)));
        let unknown = |observed: &mut Observed| {
            let report = observed.pods[0].report.get_or_insert_default();
            report.pools.iter_mut().for_each(|pool| pool.backlog_unknown = true);
        };
        assert!(matches!(deleted(1, 0, unknown), Step::Wait(_)), "it has not looked yet");
        assert_eq!(deleted(60, 0, unknown), Step::LetGo);
    }

    #[test]
    fn it_does_not_wait_for_ever_nor_for_nobody() {
        assert_eq!(deleted(60, 7, |_| ()), Step::GiveUp(7));
        assert_eq!(deleted(60, 0, |observed| observed.pods[0].report = None), Step::LetGo);
        assert_eq!(deleted(1, 7, |observed| observed.pods.clear()), Step::LetGo);
        let not_started = |observed: &mut Observed| {
            observed.pods.iter_mut().for_each(|pod| (pod.ready, pod.report) = (false, None));
        };
        assert_eq!(deleted(1, 7, not_started), Step::LetGo);
        let databases_down = |observed: &mut Observed| {
            observed
                .pods
                .iter_mut()
                .for_each(|pod| (pod.ready, pod.report) = (false, Some(PodReport::default())));
        };
        assert_eq!(deleted(1, 7, databases_down), Step::LetGo);
    }

    #[test]
    fn only_a_service_that_never_ran_gets_names_of_its_own_and_has_passwords_refused() {
        let mut service = (*observed().service).clone();
        let news = json!({ "flyweight.dev/names": "namespaced", "flyweight.dev/plaintext": "refused" });
        assert_eq!(annotations_if_new(&service), news);
        service.status =
            Some(ServiceStatus { pods_ready: Some("0/1".to_owned()), ..ServiceStatus::default() });
        assert_eq!(
            annotations_if_new(&service),
            json!({}),
            "it ran before: it keeps its names, and its passwords are warned of"
        );
        service.status = None;
        service.annotations_mut().insert(NAMES.to_owned(), "chosen".to_owned());
        assert_eq!(
            annotations_if_new(&service),
            json!({ "flyweight.dev/plaintext": "refused" }),
            "they were chosen already"
        );
    }

    #[test]
    fn its_author_can_have_it_gone_at_once() {
        let force = |observed: &mut Observed| {
            let mut service = (*observed.service).clone();
            service.annotations_mut().insert(FORCE_DELETION.to_owned(), "true".to_owned());
            observed.service = Arc::new(service);
        };
        assert_eq!(deleted(1, 7, force), Step::GiveUp(7));
    }
}
