//! What a platform team adds to the pods that are made: where they run, what they pull with, what runs beside
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is merged into the pods that are made, as `kubectl patch --type=strategic` does it: entries of lists
/// that have a name, a mount path, a port or an address are joined one by one, other lists are taken as a
/// whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct PodTemplate {
    /// Labels and annotations. Rolling.
    #[serde(default, skip_serializing_if = "PodMetadata::is_empty")]
    pub metadata: PodMetadata,
    /// The spec of a pod, or a part of it: `imagePullSecrets`, `nodeSelector`, `tolerations`, `affinity`,
    /// `priorityClassName`, `volumes`, `initContainers`, sidecars and so on. Entries of `containers` with
    /// the names `dataplane` and `gateway` are about the containers that are made (`env`, `volumeMounts`,
    /// `securityContext`); what `dataplane` gets, the migration Job gets, too. Rolling.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "any_object"))]
    pub spec: Map<String, Value>,
}

/// Labels and annotations of pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct PodMetadata {
    /// Labels beside those that are made. Rolling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "texts"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations beside those that are made. Rolling.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "texts"))]
    pub annotations: BTreeMap<String, String>,
}

impl PodMetadata {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Any fields: the API server keeps them, and they are judged where the pods are made.
#[cfg(feature = "kube")]
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 64, "x-kubernetes-preserve-unknown-fields": true,
    })
}

#[cfg(feature = "kube")]
pub(super) fn texts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 64, "additionalProperties": { "type": "string", "maxLength": 16384 },
    })
}
