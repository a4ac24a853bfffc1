//! ConfigMap: the resolved settings. Mounted as a folder, so that a change reaches running pods.

use serde_json::{Value, json};

use super::{
    Component, Target, settings_name,
    telling::{Edition, edition},
};
use crate::{
    child::{Child, ChildKind, annotation},
    observe::SETTINGS_KEY,
};

/// The settings with their hashes.
pub(super) fn child(target: &Target<'_>) -> Child {
    let edition = edition(target.observed, target.validated.secrets.as_deref());
    named(target, settings_name(target.name()), &json!({}), edition)
}

/// The same under another name, with further labels; pods that mount it are new, and need not be told of an
/// edition of the Secrets.
pub(super) fn named(target: &Target<'_>, name: String, labels: &Value, edition: Option<Edition>) -> Child {
    let settings = target.settings();
    let mut annotations = json!({
        annotation::CONFIGURATION: target.validated.hash,
        annotation::ROLLING: target.validated.rolling,
    });
    if let Some(secret) = &settings.security.encryption_secret {
        annotations[annotation::ENCRYPTION] = secret.clone().into();
    }
    if let Some(edition) = edition {
        annotations[annotation::SECRETS] = edition.to_string().into();
    }
    // Settings are plain data: their serialisation cannot fail.
    let text = serde_json::to_string_pretty(settings).unwrap_or_default();
    let content = json!({ "data": { SETTINGS_KEY: text } });
    target.labelled(ChildKind::ConfigMap, name, Component::Dataplane, labels, annotations, content)
}
