//! Deployment: the pods of one group, with the Secrets of the backends as files.

use std::collections::BTreeMap;

use crds::{annotations::RESTARTED_AT, service::groups::Resources};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{PodTemplateSpec, ResourceRequirements, SecretVolumeSource, Volume, VolumeMount},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::json;

use super::{
    pod,
    target::{self, Component, Target, digest, labels},
};
use crate::model::{
    child::{Child, ChildKind, annotation, label, settings_name},
    validated::Group,
};

pub const BACKENDS_FOLDER: &str = "/etc/flyweight/backends";
pub const SECURITY_FOLDER: &str = "/etc/flyweight/security";

const VOLUME_NAME_MAX: usize = 63;

/// The pods of one group.
pub fn child(target: &Target<'_>, group: &Group) -> Child {
    let component = Component::Group(&group.name);
    let template = template(target, group, &settings_name(target.name()));
    let mut metadata = target.metadata(target.name_of(&group.name), component);
    metadata.annotations = Some(labels([(annotation::TEMPLATE, identity(&template).as_str())]));
    let spec = pod::deployment_spec(target, component, group.replicas, template);
    target::child(ChildKind::Deployment, &Deployment { metadata, spec: Some(spec), ..Deployment::default() })
}

/// Identifies the pods of a Deployment: a change of it replaces them. A wish to restart them is no change of
/// what they run.
pub fn identity(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    if let Some(annotations) = template.metadata.as_mut().and_then(|metadata| metadata.annotations.as_mut()) {
        annotations.remove(RESTARTED_AT);
    }
    digest(&json!(template))
}

/// A pod of the group, which runs by the settings in this ConfigMap.
pub fn template(target: &Target<'_>, group: &Group, settings: &str) -> PodTemplateSpec {
    let component = Component::Group(&group.name);
    let args = [
        "serve",
        "--config",
        &pod::settings_path(),
        "--backends",
        BACKENDS_FOLDER,
        "--security",
        SECURITY_FOLDER,
    ]
    .into_iter()
    .chain(["--group", &group.name])
    .map(str::to_owned)
    .collect();
    pod::template(
        target,
        pod::Pod {
            component,
            settings,
            container: "dataplane",
            args,
            resources: requirements(&group.resources),
            labels: labels([(label::SERVES, if group.serves_all { "all" } else { "some" })]),
            volumes: secrets(target),
            own: group.pod_template.as_ref(),
        },
    )
}

/// CPU and memory as a container has them.
pub fn requirements(resources: &Resources) -> ResourceRequirements {
    let quantities = |amounts: &BTreeMap<String, String>| {
        let amounts = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone())));
        (amounts.len() > 0).then(|| amounts.collect())
    };
    let Resources { requests, limits } = resources;
    ResourceRequirements { requests: quantities(requests), limits: quantities(limits), claims: None }
}

/// Each Secret as (volume, mount): `backends/<name>`, `security/jwt`, `security/encryption`,
/// `security/payments`, `security/notifications`, `security/tls`.
pub fn secrets(target: &Target<'_>) -> Vec<(Volume, VolumeMount)> {
    let settings = target.settings();
    let backends = settings.backends.iter().map(|backend| {
        let name = &backend.name;
        secret(&volume_name(name), &backend.secret, &format!("{BACKENDS_FOLDER}/{name}"))
    });
    let security = [
        ("jwt", &settings.security.jwt_secret),
        ("encryption", &settings.security.encryption_secret),
        ("payments", &settings.security.payments_secret),
        ("notifications", &settings.security.notifications_secret),
        ("tls", &settings.security.tls_secret),
    ];
    let security = security.into_iter().filter_map(|(name, used)| {
        Some(secret(&format!("security-{name}"), used.as_ref()?, &format!("{SECURITY_FOLDER}/{name}")))
    });
    backends.chain(security).collect()
}

fn volume_name(backend: &str) -> String {
    let name = format!("backend-{backend}");
    if name.len() <= VOLUME_NAME_MAX { name } else { format!("backend-{}", digest(&backend.into())) }
}

/// Readable by whichever user the cluster chooses for the pod: nobody else is in it but what its owner puts
/// there.
pub fn secret(volume: &str, name: &str, path: &str) -> (Volume, VolumeMount) {
    let source = SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        default_mode: Some(0o444),
        ..SecretVolumeSource::default()
    };
    let secret = Volume { name: volume.to_owned(), secret: Some(source), ..Volume::default() };
    (secret, pod::mount(volume, path))
}
