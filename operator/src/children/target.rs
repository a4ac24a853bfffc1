//! What every child is made by: the service and what it should become, and what all children have in common.

use std::collections::BTreeMap;

use crds::settings::Settings;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::{
    child::{APP, Child, ChildKind, ChildRef, MANAGER, annotation, label},
    observed::Observed,
    validated::Validated,
};

/// Labels, or annotations, by name.
pub type Labels = BTreeMap<String, String>;

/// The service and what it should become.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// What is there.
    pub observed: &'a Observed,
    /// What shall run.
    pub validated: &'a Validated,
}

impl Target<'_> {
    /// The name of the service.
    pub fn name(&self) -> &str {
        &self.observed.name
    }

    /// The settings of the data plane.
    pub fn settings(&self) -> &Settings {
        &self.validated.settings
    }

    /// `<service>-<suffix>`.
    pub fn name_of(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name())
    }

    /// The labels that select pods: they never change.
    pub fn selector(&self, component: Component<'_>) -> Labels {
        let group = match component {
            Component::Group(group) => Some((label::GROUP, group)),
            Component::Dataplane | Component::Gateway | Component::Migration => None,
        };
        let all = [(label::NAME, APP), (label::INSTANCE, self.name()), (label::COMPONENT, component.name())];
        labels(all.into_iter().chain(group))
    }

    /// What all children have: identity, labels, owner, and no annotations yet.
    pub fn metadata(&self, name: String, component: Component<'_>) -> ObjectMeta {
        let mut labels = self.selector(component);
        labels.insert(label::MANAGED_BY.to_owned(), MANAGER.to_owned());
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.observed.namespace.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::new()),
            owner_references: self.observed.service.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

/// What a child is part of.
#[derive(Clone, Copy)]
pub enum Component<'a> {
    /// The data plane as a whole.
    Dataplane,
    /// One group of it.
    Group(&'a str),
    /// The gateway.
    Gateway,
    /// What prepares the stores for it.
    Migration,
}

impl Component<'_> {
    /// The value of its label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dataplane | Self::Group(_) => "dataplane",
            Self::Gateway => "gateway",
            Self::Migration => "migration",
        }
    }
}

/// These as labels, or as annotations.
pub fn labels<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Selects by these labels.
pub fn matching(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// A number as Kubernetes has it.
pub fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The complete object as a child.
pub fn child<K: Resource + Serialize>(kind: ChildKind, object: &K) -> Child {
    // An object is plain data: its serialisation cannot fail.
    let body = serde_json::to_value(object).unwrap_or_default();
    seal(ChildRef { kind, name: object.name_any() }, body)
}

/// The child with its hash, instead of another that it may carry.
pub fn seal(reference: ChildRef, mut body: Value) -> Child {
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(annotation::APPLIED);
    }
    let hash = digest(&body);
    body["metadata"]["annotations"][annotation::APPLIED] = hash.clone().into();
    Child { reference, body, hash }
}

/// A short hash of an object.
pub fn digest(body: &Value) -> String {
    Sha256::digest(body.to_string()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
