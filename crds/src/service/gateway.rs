//! The gateway in front of the groups.

use serde::{Deserialize, Serialize};

use crate::{
    service::{groups::Resources, pod_template::PodTemplate},
    units::Span,
};

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
    /// Proxies before the gateway, as networks such as `10.0.0.0/8`: only what they say of a client's address
    /// is believed. Hot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), inner(length(max = 64))))]
    pub trusted_proxies: Vec<String>,
    /// CPU and memory of each gateway pod; left out, 50m and 64Mi are set aside, and 2 and 512Mi are the
    /// most. Rolling.
    #[serde(default, skip_serializing_if = "Resources::is_default")]
    pub resources: Resources,
    /// What is merged into the gateway's pods, after that of the service. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl Gateway {
    /// What the data plane knows of it: the rest is about its pods.
    #[must_use]
    pub fn without_pods(self) -> Self {
        Self { resources: Resources::default(), pod_template: None, ..self }
    }
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

impl Default for HealthCheck {
    fn default() -> Self {
        Self { interval: default_health_interval(), timeout: default_health_timeout() }
    }
}

fn default_health_interval() -> Span {
    Span::from_secs(5)
}

fn default_health_timeout() -> Span {
    Span::from_secs(1)
}

fn one() -> u32 {
    1
}
