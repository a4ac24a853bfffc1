//! How clients find the service: the Service that is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The Service that clients call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Exposure {
    /// Whether it is reached within the cluster, at a port of every node, or through a load balancer. Hot.
    #[serde(default, rename = "type")]
    pub kind: ExposureType,
    /// Annotations, as cloud providers and DNS controllers read them. Hot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "super::pod_template::texts"))]
    pub annotations: BTreeMap<String, String>,
    /// Who makes the load balancer; left out, the cluster's own. Hot, but fixed once the Service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub load_balancer_class: Option<String>,
}

/// From where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ExposureType {
    /// Within the cluster.
    #[default]
    ClusterIP,
    /// At a port of every node, too.
    NodePort,
    /// Through a load balancer, too.
    LoadBalancer,
}

impl ExposureType {
    /// As a Service has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}
