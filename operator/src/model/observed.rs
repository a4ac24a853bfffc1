//! What is there: a service with everything that a reconcile decides on.

use std::{collections::BTreeMap, sync::Arc};

use crds::{pool::FlyweightPool, service::FlyweightService, settings::Settings, tier::CacheTier};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::Resource;

use super::{
    cause::Cause,
    child::Live,
    notice::{Edition, Notice},
    report::PodReport,
};

/// A service with everything around it.
#[derive(Clone)]
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
    /// What it was last told of its configuration.
    pub notice: Option<Notice>,
    /// What it was last told of its Secrets.
    pub secrets_notice: Option<Notice>,
    /// When it was created.
    pub created: Timestamp,
    /// How often its containers were started again after they had ended.
    pub restarts: u32,
    /// Why its container does not run: `ImagePullBackOff`.
    pub waiting: Option<String>,
    /// Why it does not run, as far as the cluster says; none where nothing keeps it.
    pub cause: Option<Cause>,
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
