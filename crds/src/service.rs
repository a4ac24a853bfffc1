//! `FlyweightService`: who serves the pools, over which backends, with which limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::units::quantities_schema;
use crate::{
    pool::Ref,
    units::{Span, quantities},
};

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
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
        printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
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
    ]))
)]
pub struct ServiceSpec {
    /// The image of the data plane. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub image: String,
    /// The number of data plane pods in all, shared out over the groups in proportion to their `replicas`. Set by `kubectl scale` and by autoscaling; left out, each group has its own number. Hot.
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
    /// Logs. Hot.
    #[serde(default)]
    pub observability: Observability,
    /// Stops all changes to the service's children while true. Hot.
    #[serde(default)]
    pub paused: bool,
}

/// Pods that serve the same pools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct ReplicaGroup {
    /// The group's name, unique in the service. Fixed (another name is another group).
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 24), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// How many pods. Hot.
    #[serde(default = "default_replicas")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1000)))]
    pub replicas: u32,
    /// The group's share of the gateway's traffic, against the other groups. Hot.
    #[serde(default = "default_weight")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1000)))]
    pub weight: u32,
    /// CPU and memory of each pod. Rolling.
    #[serde(default)]
    pub resources: Resources,
    /// The pools that this group serves; none means all of the service. Rolling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64)))]
    pub pool_refs: Vec<Ref>,
}

/// CPU and memory of a pod, as in a container's `resources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Resources {
    /// What is set aside for the pod: `cpu`, `memory`. Rolling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "quantities")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "quantities_schema"))]
    pub requests: BTreeMap<String, String>,
    /// What the pod may use at most. Rolling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "quantities")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "quantities_schema"))]
    pub limits: BTreeMap<String, String>,
}

/// A store or broker: exactly one of `mysql`, `mongodb`, `redis` and `kafka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "[has(self.mysql), has(self.mongodb), has(self.redis), has(self.kafka)].filter(x, x).size() == 1", "message": "name exactly one of mysql, mongodb, redis and kafka" },
    ]))
)]
pub struct Backend {
    /// The backend's name, which pools and tiers refer to.
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// MySQL 8 or later, or MariaDB 10.11 or later. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlBackend>,
    /// MongoDB 5 or later, or a server of its wire protocol. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongodbBackend>,
    /// Redis 6.2 or later, standalone or cluster. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisBackend>,
    /// Kafka 3 or later. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaBackend>,
}

/// A MySQL backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct MysqlBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
    /// The most connections that one pod opens. Rolling.
    #[serde(default = "default_max_connections")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000)))]
    pub max_connections: u32,
}

/// A MongoDB backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct MongodbBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
    /// The database. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$")))]
    pub database: String,
}

/// A Redis backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct RedisBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
}

/// A Kafka backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct KafkaBackend {
    /// The Secret with the key `url` (the bootstrap brokers), and `ca.crt`, `tls.crt`, `tls.key`, `username`, `password` where they are used. Rolling.
    pub secret_ref: Ref,
    /// What every topic's name starts with. Rolling.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9._-]*$")))]
    pub topic_prefix: String,
}

/// The order pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Pipeline {
    /// Workers per stage. Hot.
    #[serde(default)]
    pub workers: StageWorkers,
    /// How failed steps are tried again. Hot.
    #[serde(default)]
    pub retry: Retry,
    /// When a failing dependency is left alone for a while. Hot.
    #[serde(default)]
    pub breaker: Breaker,
}

/// Workers per stage of the order pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct StageWorkers {
    /// Takes orders and holds stock. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub orders: u32,
    /// Charges. Hot.
    #[serde(default = "two")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub payments: u32,
    /// Commits or releases holds. Hot.
    #[serde(default = "two")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub inventory: u32,
    /// Tells the customer. Hot.
    #[serde(default = "one")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub notifications: u32,
}

/// How failed steps are tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Retry {
    /// Attempts in all, the first included. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub max_attempts: u32,
    /// The wait before the second attempt; it doubles with each. Hot.
    #[serde(default = "default_initial_delay")]
    pub initial_delay: Span,
    /// The longest wait between two attempts. Hot.
    #[serde(default = "default_max_delay")]
    pub max_delay: Span,
}

/// When a failing dependency is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Breaker {
    /// Failures in a row that open the breaker. Hot.
    #[serde(default = "five")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1000)))]
    pub threshold: u32,
    /// How long it stays open before one call is let through. Hot.
    #[serde(default = "default_breaker_timeout")]
    pub timeout: Span,
}

/// The ingestion of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Ingest {
    /// Events that may wait; beyond it the answer is 503. Hot.
    #[serde(default = "thousand")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub queue_size: u32,
    /// Workers that apply batches. Hot.
    #[serde(default = "three")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 256)))]
    pub workers: u32,
    /// The most events in one batch. Hot.
    #[serde(default = "thousand")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100_000)))]
    pub batch_size: u32,
    /// The longest that an event waits for its batch to fill. Hot.
    #[serde(default = "default_flush_interval")]
    pub batch_flush_interval: Span,
}

/// A gateway in front of the groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Gateway {
    /// How many gateway pods. Hot.
    #[serde(default = "one")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub replicas: u32,
    /// Which pod gets the next request. Hot.
    #[serde(default)]
    pub strategy: BalanceStrategy,
    /// How the gateway finds out which pods serve. Hot.
    #[serde(default)]
    pub health_check: HealthCheck,
}

/// Which pod gets the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum BalanceStrategy {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way.
    #[default]
    LeastConnections,
    /// One after the other, in proportion to the weights of their groups.
    WeightedRoundRobin,
    /// By the record's key, so that a key is cached in one pod.
    ConsistentHash,
}

/// How the gateway finds out which pods serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct HealthCheck {
    /// How often each pod is asked. Hot.
    #[serde(default = "default_health_interval")]
    pub interval: Span,
    /// How long a pod may take to answer. Hot.
    #[serde(default = "default_health_timeout")]
    pub timeout: Span,
}

/// Who may call, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Security {
    /// Callers show a JSON Web Token; left out, everybody may call. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<SecretUse>,
    /// The Secret with the key `key` (32 bytes in base64) for encrypted fields; left out, the operator makes `<service>-encryption` once. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<SecretUse>,
    /// Requests per caller; left out, there is no limit. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Which web pages may call from a browser. Hot.
    #[serde(default)]
    pub cors: Cors,
}

/// A Secret that is used by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct SecretUse {
    /// The Secret in the same namespace. For `jwt` it has the key `secret` (HS256) or `public.pem` (RS256, ES256). Rolling.
    pub secret_ref: Ref,
}

/// Requests per caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct RateLimit {
    /// The lasting rate. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000_000)))]
    pub requests_per_second: u32,
    /// How many may come at once. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000_000)))]
    pub burst: u32,
}

/// Which web pages may call from a browser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Cors {
    /// Origins such as `https://shop.example.com`; `*` is every page. Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), inner(length(max = 256))))]
    pub allow_origins: Vec<String>,
}

/// The live feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct WebSocket {
    /// Clients that one pod takes. Hot.
    #[serde(default = "default_ws_connections")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1_000_000)))]
    pub max_connections: u32,
    /// Events that may wait for one slow client before it is told to start over. Hot.
    #[serde(default = "thousand")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub queue_size: u32,
    /// How often a silent client is pinged. Hot.
    #[serde(default = "default_ping_interval")]
    pub ping_interval: Span,
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

impl Default for StageWorkers {
    fn default() -> Self {
        Self { orders: 3, payments: 2, inventory: 2, notifications: 1 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, initial_delay: default_initial_delay(), max_delay: default_max_delay() }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { threshold: 5, timeout: default_breaker_timeout() }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self { queue_size: 1000, workers: 3, batch_size: 1000, batch_flush_interval: default_flush_interval() }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { interval: default_health_interval(), timeout: default_health_timeout() }
    }
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            max_connections: default_ws_connections(),
            queue_size: thousand(),
            ping_interval: default_ping_interval(),
        }
    }
}

impl Default for Disruption {
    fn default() -> Self {
        Self { max_unavailable: 1 }
    }
}

fn default_groups() -> Vec<ReplicaGroup> {
    vec![ReplicaGroup {
        name: "main".to_owned(),
        replicas: default_replicas(),
        weight: default_weight(),
        resources: Resources::default(),
        pool_refs: Vec::new(),
    }]
}

fn default_replicas() -> u32 {
    2
}

fn default_weight() -> u32 {
    1
}

fn default_max_connections() -> u32 {
    100
}

fn default_initial_delay() -> Span {
    Span::from_millis(100)
}

fn default_max_delay() -> Span {
    Span::from_secs(30)
}

fn default_breaker_timeout() -> Span {
    Span::from_secs(60)
}

fn default_flush_interval() -> Span {
    Span::from_secs(1)
}

fn default_health_interval() -> Span {
    Span::from_secs(5)
}

fn default_health_timeout() -> Span {
    Span::from_secs(1)
}

fn default_ws_connections() -> u32 {
    10_000
}

fn default_ping_interval() -> Span {
    Span::from_secs(20)
}

fn default_target_cpu() -> u32 {
    70
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}

fn five() -> u32 {
    5
}

fn thousand() -> u32 {
    1000
}
