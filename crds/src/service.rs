//! `FlyweightService`: who serves the pools, over which backends, with which limits.

use serde::{Deserialize, Serialize};

use crate::{
    pool::Ref,
    service::{
        backends::Backend,
        exposure::Exposure,
        gateway::Gateway,
        groups::{ReplicaGroup, default_groups},
        limits::Limits,
        messaging::{Ingest, Pipeline, WebSocket},
        pod_template::PodTemplate,
        security::Security,
    },
    units::Span,
};

pub mod backends;
pub mod exposure;
pub mod gateway;
pub mod groups;
pub mod limits;
pub mod messaging;
pub mod payments;
pub mod pod_template;
pub mod security;
pub mod tokens;

/// Who serves, over which backends, with which limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(kube::CustomResource, schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "flyweight.dev",
        version = "v1alpha1",
        kind = "FlyweightService",
        plural = "flyweightservices",
        shortname = "fws",
        category = "flyweight",
        namespaced,
        derive = "PartialEq",
        status = "crate::status::ServiceStatus",
        doc = "Who serves: the data plane, its backends, its limits.",
        scale(
            spec_replicas_path = ".spec.replicas",
            status_replicas_path = ".status.replicas",
            label_selector_path = ".status.selector"
        ),
        printcolumn(
            name = "Ready",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].status"
        ),
        printcolumn(
            name = "Reason",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].reason"
        ),
        printcolumn(name = "Pods", type_ = "string", json_path = ".status.podsReady"),
        printcolumn(name = "Configuration", type_ = "string", json_path = ".status.configurationSummary"),
        printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "!has(self.replicas) || self.replicas == 0 || self.replicas >= size(self.replicaGroups)", "message": "replicas must be 0, or at least 1 for each replica group", "fieldPath": ".replicas" },
        { "rule": "!has(self.autoscaling) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas", "message": "minReplicas must not exceed maxReplicas", "fieldPath": ".autoscaling" },
        { "rule": "!has(self.autoscaling) || self.autoscaling.minReplicas >= size(self.replicaGroups)", "message": "minReplicas must be at least 1 for each replica group", "fieldPath": ".autoscaling" },
        { "rule": "!has(self.egressPorts) || self.networkPolicy", "message": "egressPorts are a NetworkPolicy's: set networkPolicy: true", "fieldPath": ".egressPorts" },
    ]))
)]
pub struct ServiceSpec {
    /// The image of the data plane. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub image: String,
    /// The number of data plane pods in all, shared out over the groups in proportion to their `replicas`.
    /// Set by `kubectl scale` and by autoscaling; left out, each group has its own number. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1000)))]
    pub replicas: Option<u32>,
    /// The pools that this service serves. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 64)))]
    pub pool_refs: Vec<Ref>,
    /// Groups of pods; a group may serve some pools only. Rolling.
    #[serde(default = "default_groups")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub replica_groups: Vec<ReplicaGroup>,
    /// The stores and brokers, each by a Secret. Rolling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub backends: Vec<Backend>,
    /// The order pipeline. Hot.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// The ingestion of events. Hot.
    #[serde(default)]
    pub ingest: Ingest,
    /// A gateway in front of the groups; left out, clients reach the pods through the Service. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// The Service that clients call. Hot.
    #[serde(default)]
    pub service: Exposure,
    /// Who may call, and how often. Hot, but for the Secrets.
    #[serde(default)]
    pub security: Security,
    /// The live feed. Hot.
    #[serde(default)]
    pub web_socket: WebSocket,
    /// Scales the service by CPU. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How many pods may be away at once during maintenance. Hot.
    #[serde(default)]
    pub disruption: Disruption,
    /// Whether a NetworkPolicy lets only the needed traffic to the pods. Hot.
    #[serde(default)]
    pub network_policy: bool,
    /// The TCP ports of all stores and brokers, as their own pods or hosts have them: the NetworkPolicy lets
    /// pods out to these alone, to those of the payment provider and the webhook, and to each other. Left
    /// out, to all. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 64), inner(range(min = 1)), extend("x-kubernetes-list-type" = "set")))]
    pub egress_ports: Option<Vec<u16>>,
    /// What one process may take. Hot, but for the time that calls wait for a connection.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// Logs. Hot.
    #[serde(default)]
    pub observability: Observability,
    /// The audit: who changed what and when. Hot.
    #[serde(default, skip_serializing_if = "Audit::is_default")]
    pub audit: Audit,
    /// What is merged into all pods that are made. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Stops all changes to the service's children while true. Hot.
    #[serde(default)]
    pub paused: bool,
}

/// Scales the service by CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Autoscaling {
    /// The fewest pods. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1000)))]
    pub min_replicas: u32,
    /// The most pods. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1000)))]
    pub max_replicas: u32,
    /// The CPU use to aim for, in percent of what the pods request. Hot.
    #[serde(default = "default_target_cpu")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub target_cpu_percent: u32,
    /// How much work may wait for each pod: accepted events that are not applied, and orders in the pipeline,
    /// of which a pod takes up 4,096 at most. While more waits there are more pods, and for five minutes
    /// after. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000_000)))]
    pub target_queue_depth: Option<u32>,
    /// How long a read that the cache answers may take in a pod, on average over a minute, in microseconds.
    /// While it takes longer there are more pods, and for five minutes after. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub target_hit_micros: Option<u32>,
}

/// How many pods may be away at once during maintenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Disruption {
    /// Pods of one group that may be evicted at once. Hot.
    #[serde(default = "one")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1000)))]
    pub max_unavailable: u32,
}

/// Logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Observability {
    /// The least severe entry that is logged. Hot.
    #[serde(default)]
    pub log_level: LogLevel,
}

/// The audit: who changed what and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Audit {
    /// How long its entries are kept, at least an hour, by the clock of the store; left out, for ever. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
}

impl Audit {
    /// Whether nothing is said of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How severe a log entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// What may need attention, too.
    Warn,
    /// What happens, too.
    #[default]
    Info,
    /// Why it happens, too.
    Debug,
    /// Everything.
    Trace,
}

impl Default for Disruption {
    fn default() -> Self {
        Self { max_unavailable: 1 }
    }
}

fn default_target_cpu() -> u32 {
    70
}

fn one() -> u32 {
    1
}
