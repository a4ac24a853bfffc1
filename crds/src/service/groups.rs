//! Groups of pods: how many, which pools, how much CPU and memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::units::quantities_schema;
use crate::{pool::Ref, service::pod_template::PodTemplate, units::quantities};

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
    /// What is merged into the pods of this group, after that of the service. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
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

impl Resources {
    /// Whether nothing is said of them.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn default_groups() -> Vec<ReplicaGroup> {
    vec![ReplicaGroup {
        name: "main".to_owned(),
        replicas: default_replicas(),
        weight: default_weight(),
        resources: Resources::default(),
        pool_refs: Vec::new(),
        pod_template: None,
    }]
}

fn default_replicas() -> u32 {
    2
}

fn default_weight() -> u32 {
    1
}
