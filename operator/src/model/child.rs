//! The kinds of objects that the operator makes, and one such object as it is wanted and as it is.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta},
};
use serde_json::Value;

/// The field manager of every apply, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "flyweight-operator";
/// The value of `app.kubernetes.io/name`.
pub const APP: &str = "flyweight-dataplane";
/// The key of the ConfigMap that holds the settings.
pub const SETTINGS_KEY: &str = "settings.json";

/// The name of the ConfigMap with the settings.
pub fn settings_name(service: &str) -> String {
    format!("{service}-settings")
}

/// Labels of children.
pub mod label {
    /// What it is.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// The name of the `FlyweightService`.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// `dataplane`, `gateway` or `migration`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// Who looks after it.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The replica group.
    pub const GROUP: &str = "flyweight.dev/group";
    /// `all` on pods that serve every pool of the service, `some` on the others.
    pub const SERVES: &str = "flyweight.dev/serves";
    /// `true` on what belongs to a canary.
    pub const CANARY: &str = "flyweight.dev/canary";
}
/// Annotations of children and pods.
pub mod annotation {
    /// The hash of the settings: on the ConfigMap what it holds, on a pod what it was last told about.
    pub const CONFIGURATION: &str = "flyweight.dev/configuration";
    /// How often a pod was told about its configuration, and when last: `2@1800000000`.
    pub const NOTICE: &str = "flyweight.dev/telling";
    /// The hash of what a running process cannot take over: on the ConfigMap and on pods.
    pub const ROLLING: &str = "flyweight.dev/rolling";
    /// Which versions of the Secrets are mounted: on the ConfigMap with the moment when they were first seen,
    /// `1a2b@1800000000`, on a pod what it was last told about.
    pub const SECRETS: &str = "flyweight.dev/secrets";
    /// How often a pod was told about its Secrets, and when last: `2@1800000000`.
    pub const SECRETS_NOTICE: &str = "flyweight.dev/secrets-telling";
    /// The name of the Secret whose key encrypts fields: on the ConfigMap, once there was such a key.
    pub const ENCRYPTION: &str = "flyweight.dev/encryption-secret";
    /// The hash of the pods that a Deployment makes: what it runs, without wishes to restart.
    pub const TEMPLATE: &str = "flyweight.dev/template";
    /// Of a canary and its pods, which change it tries.
    pub const CANARY: &str = "flyweight.dev/canary";
    /// Of a canary, what has been seen of it.
    pub const CANARY_RECORD: &str = "flyweight.dev/canary-record";
    /// Of an autoscaler, the targets by which its fewest pods are moved, for whoever looks at it.
    pub const TARGETS: &str = "flyweight.dev/targets";
    /// Of an autoscaler, the fewest pods by the pods' own load, and since when fewer would do.
    pub const FLOOR: &str = "flyweight.dev/floor";
    /// The hash of the object as it was applied.
    pub const APPLIED: &str = "flyweight.dev/applied";
}

/// A kind of child, in the order in which children are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// Who the pods are.
    ServiceAccount,
    /// What cert-manager makes the API's certificate by, where it is installed.
    Certificate,
    /// The resolved settings.
    ConfigMap,
    /// Which traffic may pass: before clients are led another way.
    NetworkPolicy,
    /// What clients and the gateway connect to.
    Service,
    /// What brings the stores up to another image.
    Job,
    /// The pods.
    Deployment,
    /// How many pods maintenance may take away.
    PodDisruptionBudget,
    /// How many pods there are.
    HorizontalPodAutoscaler,
}

impl ChildKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ServiceAccount,
        Self::Certificate,
        Self::ConfigMap,
        Self::NetworkPolicy,
        Self::Service,
        Self::Job,
        Self::Deployment,
        Self::PodDisruptionBudget,
        Self::HorizontalPodAutoscaler,
    ];

    /// The API resource.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Certificate => {
                ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"))
            }
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        }
    }

    /// The kind's name: `ConfigMap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Certificate => "Certificate",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Job => "Job",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }
}

/// A child by kind and name, in the namespace of its service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildRef {
    /// The kind.
    pub kind: ChildKind,
    /// `metadata.name`.
    pub name: String,
}

/// A child as it is wanted: the complete content of the apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Kind and name.
    pub reference: ChildRef,
    /// The object.
    pub body: Value,
    /// The hash of the object, which it also carries as an annotation.
    pub hash: String,
}

/// A child as it is in the cluster.
#[derive(Clone, Debug)]
pub struct Live {
    /// Kind and name.
    pub reference: ChildRef,
    /// The object, with those of its managed fields only that may be what others added.
    pub object: Arc<DynamicObject>,
}

impl Live {
    /// The object under its kind.
    pub fn new(kind: ChildKind, object: Arc<DynamicObject>) -> Self {
        Self { reference: ChildRef { kind, name: object.name_any() }, object: complete(kind, object) }
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.object.annotations().get(name).map(String::as_str)
    }

    /// Whether the object is part of a canary.
    pub fn is_canary(&self) -> bool {
        self.object.labels().contains_key(label::CANARY)
    }
}

/// Turns what an object holds into one string, as caches keep it: as a tree it takes ten times the room.
pub fn pack(object: &mut DynamicObject) {
    if !object.data.is_string() {
        object.data = Value::String(object.data.to_string());
    }
}

/// The object unpacked, and with its type: in lists the API server leaves that out, and without it an object
/// does not look like what was applied.
fn complete(kind: ChildKind, object: Arc<DynamicObject>) -> Arc<DynamicObject> {
    let unpacked = object.data.as_str().and_then(|text| serde_json::from_str(text).ok());
    if unpacked.is_none() && object.types.is_some() {
        return object;
    }
    let types = object.types.clone().unwrap_or_else(|| {
        let ApiResource { api_version, kind, .. } = kind.resource();
        TypeMeta { api_version, kind }
    });
    let data = unpacked.unwrap_or_else(|| object.data.clone());
    Arc::new(DynamicObject { types: Some(types), metadata: object.metadata.clone(), data })
}

/// Whether the object belongs to the service with this uid and name: it says so, or it is an orphan. That is
/// what the operator made for a service of this name, and whose owner somebody took away, as `kubectl delete
/// --cascade=orphan` does: the next apply gives it its owner back.
pub fn is_child_of(object: &impl ResourceExt, uid: &str, name: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid) || orphan_of(object) == Some(name)
}

/// The name of the service that the object was made for, where it has no owner that looks after it any more.
pub fn orphan_of(object: &impl ResourceExt) -> Option<&str> {
    // first, since it is so for nearly all: every reconcile asks it of every object of the namespace
    if object.owner_references().iter().any(|owner| owner.controller == Some(true)) {
        return None;
    }
    let made = object.labels().get(label::MANAGED_BY).is_some_and(|manager| manager == MANAGER)
        && object.annotations().contains_key(annotation::APPLIED);
    object.labels().get(label::INSTANCE).filter(|_| made).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_orphan_belongs_to_the_service_of_its_name() {
        let object = |edit: Value| {
            let mut body = json!({ "apiVersion": "v1", "kind": "Service", "metadata": {
                "name": "shop",
                "labels": { label::MANAGED_BY: MANAGER, label::INSTANCE: "shop" },
                "annotations": { annotation::APPLIED: "h" },
            } });
            json_patch(&mut body["metadata"], edit);
            serde_json::from_value::<DynamicObject>(body).unwrap()
        };
        let owner = |uid: &str, controller: bool| json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": controller }] });
        for ours in [json!({}), owner("u", true), owner("other", false)] {
            assert!(is_child_of(&object(ours.clone()), "u", "shop"), "{ours}");
        }
        for foreign in [
            owner("other", true),
            json!({ "annotations": {} }),
            json!({ "labels": { label::INSTANCE: "shop" } }),
            json!({ "labels": { label::MANAGED_BY: MANAGER, label::INSTANCE: "else" } }),
        ] {
            assert!(!is_child_of(&object(foreign.clone()), "u", "shop"), "{foreign}");
        }
    }

    fn json_patch(target: &mut Value, edit: Value) {
        for (name, value) in edit.as_object().into_iter().flatten() {
            target[name] = value.clone();
        }
    }

    #[test]
    fn what_caches_keep_is_the_same_object() {
        let body = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop" }, "spec": { "ports": [80] } });
        let whole: DynamicObject = serde_json::from_value(body).unwrap();
        let mut packed = whole.clone();
        pack(&mut packed);
        pack(&mut packed);
        assert!(packed.data.is_string());
        assert_eq!(*Live::new(ChildKind::Service, Arc::new(packed.clone())).object, whole);
        assert_eq!(*Live::new(ChildKind::Service, Arc::new(whole.clone())).object, whole);
        for mut listed in [packed, whole.clone()] {
            listed.types = None;
            assert_eq!(
                *Live::new(ChildKind::Service, Arc::new(listed)).object,
                whole,
                "lists leave types out"
            );
        }
    }
}
