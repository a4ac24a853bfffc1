//! ConfigMap: the resolved settings. Mounted as a folder, so that a change reaches running pods.

use k8s_openapi::api::core::v1::ConfigMap;

use super::target::{self, Component, Labels, Target, labels};
use crate::model::{
    child::{Child, ChildKind, SETTINGS_KEY, annotation, settings_name},
    notice::Edition,
    observed::Observed,
};

/// The settings with their hashes.
pub fn child(target: &Target<'_>) -> Child {
    let edition = edition(target.observed, target.validated.secrets.as_deref());
    named(target, settings_name(target.name()), Labels::new(), edition)
}

/// The same under another name, with further labels; pods that mount it are new, and need not be told of an
/// edition of the Secrets.
pub fn named(target: &Target<'_>, name: String, more: Labels, edition: Option<Edition>) -> Child {
    let settings = target.settings();
    let mut annotations = labels([
        (annotation::CONFIGURATION, target.validated.hash.as_str()),
        (annotation::ROLLING, &target.validated.rolling),
    ]);
    if let Some(secret) = &settings.security.encryption_secret {
        annotations.insert(annotation::ENCRYPTION.to_owned(), secret.clone());
    }
    if let Some(edition) = edition {
        annotations.insert(annotation::SECRETS.to_owned(), edition.to_string());
    }
    // Settings are plain data: their serialisation cannot fail.
    let text = serde_json::to_string_pretty(settings).unwrap_or_default();
    let mut metadata = target.metadata(name, Component::Dataplane);
    metadata.labels.get_or_insert_default().extend(more);
    metadata.annotations = Some(annotations);
    let data = Some([(SETTINGS_KEY.to_owned(), text)].into());
    target::child(ChildKind::ConfigMap, &ConfigMap { metadata, data, ..ConfigMap::default() })
}

/// The edition of the Secrets to write down: a new one from now on, the same as before where they did not
/// change or one is missing.
pub fn edition(observed: &Observed, secrets: Option<&str>) -> Option<Edition> {
    let before = observed.running.as_ref().and_then(|running| running.secrets.clone());
    match secrets {
        Some(version) if before.as_ref().is_none_or(|before| before.version != version) => {
            Some(Edition { version: version.to_owned(), since: observed.at })
        }
        _ => before,
    }
}
