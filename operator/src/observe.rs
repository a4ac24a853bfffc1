//! The first step: what is there. Everything that a reconcile decides on, read once.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use crds::{pool::FlyweightPool, service::FlyweightService, settings::Settings, tier::CacheTier};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod},
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

use crate::{
    child::{APP, ChildKind, Live, annotation, label},
    context::Context,
    desired::telling::{Edition, Told},
    observe::report::PodReport,
};

mod failures;
pub mod poll;
pub mod report;

/// The key of the ConfigMap that holds the settings.
pub const SETTINGS_KEY: &str = "settings.json";

/// Names the Job that a pod is of; Kubernetes sets it.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// A service with everything around it.
pub struct Observed {
    /// The service.
    pub service: Arc<FlyweightService>,
    /// When it was looked at.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// The pools of the namespace, by name.
    pub pools: Vec<Arc<FlyweightPool>>,
    /// The tiers of the namespace, by name.
    pub tiers: Vec<Arc<CacheTier>>,
    /// The namespace's Secrets: their names and resource versions. What is in them the operator never sees.
    pub secrets: BTreeMap<String, String>,
    /// Whether cert-manager's Certificates can be asked for.
    pub cert_manager: bool,
    /// The children of the service.
    pub children: Vec<Live>,
    /// The pods of the data plane and the gateway, by name.
    pub pods: Vec<ObservedPod>,
    /// The pods of migrations.
    pub migrating: Vec<ObservedPod>,
    /// What the ConfigMap holds: the last settings without a fault.
    pub running: Option<Running>,
}

/// The settings that pods run by.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// [`Settings::hash`].
    pub hash: String,
    /// [`Settings::rolling_hash`].
    pub rolling: String,
    /// The settings themselves; none when another version of the operator wrote them in a form unknown to
    /// this one.
    pub settings: Option<Arc<Settings>>,
    /// The Secret that encrypts fields, once there was one.
    pub encryption_secret: Option<String>,
    /// The versions of the Secrets, and since when.
    pub secrets: Option<Edition>,
}

/// A pod of the service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Its group; none for the gateway.
    pub group: Option<String>,
    /// The Job that it is of, where it migrates.
    pub job: Option<String>,
    /// The change that it tries, where it is a canary.
    pub canary: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether one of its containers runs, or has run.
    pub started: bool,
    /// Whether it was told to end.
    pub terminating: bool,
    /// The rolling hash that it was started with.
    pub rolling: Option<String>,
    /// The configuration that it was last told about.
    pub told: Option<Told>,
    /// The Secrets that it was last told about.
    pub told_secrets: Option<Told>,
    /// When it was created.
    pub created: Timestamp,
    /// How often its containers were started again after they had ended.
    pub restarts: u32,
    /// Why its container does not run: `ImagePullBackOff`.
    pub waiting: Option<String>,
    /// What it says of itself; none when it does not answer.
    pub report: Option<PodReport>,
}

/// Why a container waits when it will not start by waiting.
const FAILING: [&str; 8] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

impl ObservedPod {
    /// Whether its container will not start by waiting.
    pub fn is_failing(&self) -> bool {
        self.waiting.as_deref().is_some_and(|reason| FAILING.contains(&reason))
    }
}

impl Observed {
    /// The service in events.
    pub fn reference(&self) -> ObjectReference {
        self.service.object_ref(&())
    }
}

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
    let mut pods: Vec<ObservedPod> =
        pods.iter().zip(reports).map(|(pod, report)| observed_pod(pod, report)).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Observed {
        running: running(&children, &crate::desired::settings_name(&name)),
        pools: caches.pools_in(&namespace),
        tiers: caches.tiers_in(&namespace),
        secrets: secrets
            .iter()
            .map(|secret| (secret.name_any(), secret.resource_version().unwrap_or_default()))
            .collect(),
        cert_manager: caches.cert_manager.load(Ordering::Relaxed),
        service: service.clone(),
        at: Timestamp::now(),
        migrating: migrating.iter().map(|pod| observed_pod(pod, None)).collect(),
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

fn observed_pod(pod: &Pod, report: Option<PodReport>) -> ObservedPod {
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
        told: annotation(annotation::CONFIGURATION)
            .map(|hash| Told::parse(hash, annotation(annotation::TELLING))),
        told_secrets: annotation(annotation::SECRETS)
            .map(|version| Told::parse(version, annotation(annotation::SECRETS_TELLING))),
        created: pod.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        restarts: containers.iter().filter_map(|one| u32::try_from(one.restart_count).ok()).sum(),
        waiting,
        report,
    }
}
