//! The first step: what is there. Everything that a reconcile decides on, read once.

use std::sync::{Arc, atomic::Ordering};

use crds::service::FlyweightService;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

use crate::{
    context::Context,
    model::{
        cause::Cause,
        child::{APP, ChildKind, Live, SETTINGS_KEY, annotation, label, settings_name},
        notice::{Edition, Notice},
        observed::{Observed, ObservedPod, Running},
        report::PodReport,
    },
};

/// Names the Job that a pod is of; Kubernetes sets it.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// Reads what is there: objects from the caches, reports from the pods.
pub async fn observe(service: &Arc<FlyweightService>, context: &Context) -> Observed {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let uid = service.uid().unwrap_or_default();
    let caches = &context.caches;
    let in_namespace = |object: &dyn NamespacedName| object.is_in(&namespace);
    let secrets = caches.secrets.state_filter(|secret| in_namespace(secret));
    let pods = caches.pods.state_filter(|pod| in_namespace(pod) && belongs(pod, &name));
    let children = context.memory.newest(&uid, caches.children_of(&namespace, &uid, &name), Instant::now());
    let (migrating, pods): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| pod.labels().contains_key(JOB_LABEL));
    let reports = context.poller.poll(&pods).await;
    let at = Timestamp::now();
    let mut pods: Vec<ObservedPod> =
        pods.iter().zip(reports).map(|(pod, report)| observed_pod(pod, report, at)).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Observed {
        running: running(&children, &settings_name(&name)),
        pools: caches.pools_in(&namespace),
        tiers: caches.tiers_in(&namespace),
        secrets: secrets
            .iter()
            .map(|secret| (secret.name_any(), secret.resource_version().unwrap_or_default()))
            .collect(),
        cert_manager: caches.cert_manager.load(Ordering::Relaxed),
        service: service.clone(),
        at,
        migrating: migrating.iter().map(|pod| observed_pod(pod, None, at)).collect(),
        children,
        pods,
        name,
        namespace,
        uid,
    }
}

trait NamespacedName {
    fn is_in(&self, namespace: &str) -> bool;
}

impl<K: Resource> NamespacedName for K {
    fn is_in(&self, namespace: &str) -> bool {
        self.meta().namespace.as_deref() == Some(namespace)
    }
}

fn belongs(pod: &Pod, service: &str) -> bool {
    let labels = pod.labels();
    labels.get(label::INSTANCE).is_some_and(|name| name == service)
        && labels.get(label::NAME).is_some_and(|n| n == APP)
}

fn running(children: &[Live], name: &str) -> Option<Running> {
    let live = children
        .iter()
        .find(|live| live.reference.kind == ChildKind::ConfigMap && live.reference.name == name)?;
    let text =
        live.object.data.get("data").and_then(|data| data.get(SETTINGS_KEY)).and_then(|text| text.as_str());
    Some(Running {
        hash: live.annotation(annotation::CONFIGURATION)?.to_owned(),
        rolling: live.annotation(annotation::ROLLING)?.to_owned(),
        settings: text.and_then(|text| serde_json::from_str(text).ok()).map(Arc::new),
        encryption_secret: live.annotation(annotation::ENCRYPTION).map(str::to_owned),
        secrets: live.annotation(annotation::SECRETS).and_then(Edition::parse),
    })
}

fn observed_pod(pod: &Pod, report: Option<PodReport>, now: Timestamp) -> ObservedPod {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let annotation = |name: &str| pod.annotations().get(name).map(String::as_str);
    let waiting = containers.iter().find_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.clone());
    ObservedPod {
        name: pod.name_any(),
        group: pod.labels().get(label::GROUP).cloned(),
        job: pod.labels().get(JOB_LABEL).cloned(),
        canary: pod.annotations().get(annotation::CANARY).cloned(),
        ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        started: status.and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase != "Pending"),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        rolling: pod.annotations().get(annotation::ROLLING).cloned(),
        notice: annotation(annotation::CONFIGURATION)
            .map(|hash| Notice::parse(hash, annotation(annotation::NOTICE))),
        secrets_notice: annotation(annotation::SECRETS)
            .map(|version| Notice::parse(version, annotation(annotation::SECRETS_NOTICE))),
        created: pod.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        restarts: containers.iter().filter_map(|one| u32::try_from(one.restart_count).ok()).sum(),
        waiting,
        cause: Cause::of_pod(pod, now),
        report,
    }
}
