//! ConfigMap: the resolved settings. Mounted as a folder, so that a change reaches running pods.

use serde_json::{Value, json};

use super::{Component, Target, settings_name};
use crate::{
    child::{Child, ChildKind, annotation},
    observe::SETTINGS_KEY,
};

/// The settings with their hashes.
pub(super) fn child(target: &Target<'_>) -> Child {
    named(target, settings_name(target.name()), &json!({}))
}

/// The same under another name, with further labels.
pub(super) fn named(target: &Target<'_>, name: String, labels: &Value) -> Child {
    let settings = target.settings();
    let mut annotations = json!({
        annotation::CONFIGURATION: target.validated.hash,
        annotation::ROLLING: target.validated.rolling,
    });
    if let Some(secret) = &settings.security.encryption_secret {
        annotations[annotation::ENCRYPTION] = secret.clone().into();
    }
    // Settings are plain data: their serialisation cannot fail.
    let text = serde_json::to_string_pretty(settings).unwrap_or_default();
    let content = json!({ "data": { SETTINGS_KEY: text } });
    target.labelled(ChildKind::ConfigMap, name, Component::Dataplane, labels, annotations, content)
}
