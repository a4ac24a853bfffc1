//! Deployment: the pods of one group, with the Secrets of the backends as files.

use serde_json::{Value, json};

use super::{Component, Target, canary, digest, gateway, pod, settings_name};
use crate::{
    child::{Child, ChildKind, Live, annotation, label},
    observe::Observed,
    validate::{Group, Validated},
};

pub(super) const BACKENDS_FOLDER: &str = "/etc/flyweight/backends";
pub(super) const SECURITY_FOLDER: &str = "/etc/flyweight/security";

const VOLUME_NAME_MAX: usize = 63;

/// The pods of one group.
pub(super) fn child(target: &Target<'_>, group: &Group) -> Child {
    let component = Component::Group(&group.name);
    let template = template(target, group, &settings_name(target.name()));
    let annotations = json!({ annotation::TEMPLATE: canary::identity(&template) });
    let content = pod::deployment_spec(target, component, group.replicas, template);
    target.child(ChildKind::Deployment, target.name_of(&group.name), component, annotations, content)
}

/// The Deployments that are not yet as they should be, among the children as they are now. Whatever holds
/// them back, the author waits for them.
pub fn behind(observed: &Observed, validated: &Validated, children: &[Live]) -> Vec<String> {
    let target = Target { observed, validated };
    let groups = validated.groups.iter().map(|group| child(&target, group));
    let gateway = validated.gateway.map(|replicas| gateway::child(&target, replicas));
    let is_there = |wanted: &Child| {
        let live = children.iter().find(|live| live.reference == wanted.reference);
        live.is_some_and(|live| live.annotation(annotation::APPLIED) == Some(&wanted.hash))
    };
    groups.chain(gateway).filter(|wanted| !is_there(wanted)).map(|wanted| wanted.reference.name).collect()
}

/// A pod of the group, which runs by the settings in this ConfigMap.
pub(super) fn template(target: &Target<'_>, group: &Group, settings: &str) -> Value {
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
            resources: json!(group.resources),
            labels: json!({ label::SERVES: if group.serves_all { "all" } else { "some" } }),
            volumes: secrets(target),
        },
    )
}

/// Each Secret as (volume, mount): `backends/<name>`, `security/jwt`, `security/encryption`,
/// `security/payments`, `security/notifications`, `security/tls`.
pub(super) fn secrets(target: &Target<'_>) -> Vec<(Value, Value)> {
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

/// Readable by the process' own user (through `fsGroup`) and by nobody else.
pub(super) fn secret(volume: &str, name: &str, path: &str) -> (Value, Value) {
    let mount = json!({ "name": volume, "mountPath": path, "readOnly": true });
    (json!({ "name": volume, "secret": { "secretName": name, "defaultMode": 0o440 } }), mount)
}
