//! What a pod template must be: fields that pods have, and none of those that are made.

use serde_json::{Map, Value};

use super::Report;
use crate::service::{ServiceSpec, pod_template::PodTemplate};

/// The containers that are made, in the data plane's pods, the gateway's and the migration's.
pub const CONTAINERS: [&str; 3] = ["dataplane", "gateway", "migrate"];
/// What is made of them, and by which field it is chosen.
const MADE: [(&str, &str); 4] = [
    ("image", "it is that of spec.image"),
    ("args", "they are made of the resources"),
    ("command", "it is that of the image"),
    ("ports", "they are 8080 and 9090"),
];
/// Labels and annotations of these are made.
const PREFIXES: [&str; 2] = ["flyweight.dev/", "app.kubernetes.io/"];
/// Volumes of these names are made.
const VOLUMES: [&str; 2] = ["backend-", "security-"];

/// Checks all templates of a service.
pub(super) fn check(spec: &ServiceSpec, report: &mut Report<'_>) {
    let mut one = |template: Option<&PodTemplate>, path: String| {
        if let Some(template) = template {
            judge(template, &path, report);
        }
    };
    one(spec.pod_template.as_ref(), "spec.podTemplate".to_owned());
    for (index, group) in spec.replica_groups.iter().enumerate() {
        one(group.pod_template.as_ref(), format!("spec.replicaGroups[{index}].podTemplate"));
    }
    let gateway = spec.gateway.as_ref().and_then(|gateway| gateway.pod_template.as_ref());
    one(gateway, "spec.gateway.podTemplate".to_owned());
}

fn judge(template: &PodTemplate, path: &str, report: &mut Report<'_>) {
    let PodTemplate { metadata, spec } = template;
    for (kind, names) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        for name in names.keys().filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
            report.add(
                format!("{path}.metadata.{kind}.{name}"),
                "is made by the operator: choose another name",
            );
        }
    }
    let path = format!("{path}.spec");
    for (index, container) in entries(spec, "containers").enumerate() {
        let at = format!("{path}.containers[{index}]");
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            report.add(format!("{at}.name"), "is required: containers are joined by their names");
        } else if CONTAINERS.contains(&name) {
            for (field, why) in MADE.iter().filter(|(field, _)| !container[*field].is_null()) {
                report.add(format!("{at}.{field}"), format!("cannot be set: {why}"));
            }
        } else if container["image"].as_str().unwrap_or_default().is_empty() {
            let made = CONTAINERS.join(", ");
            report.add(format!("{at}.image"), format!("is required: a container beside {made} has its own"));
        }
    }
    for (index, volume) in entries(spec, "volumes").enumerate() {
        let name = volume["name"].as_str().unwrap_or_default();
        let made = name == "config" || VOLUMES.iter().any(|prefix| name.starts_with(prefix));
        report.ensure(
            !made,
            format!("{path}.volumes[{index}].name"),
            "volumes of the names config, backend-… and security-… are made: choose another",
        );
    }
    let restarts = spec.get("restartPolicy").is_none_or(|policy| policy == "Always");
    report.ensure(restarts, format!("{path}.restartPolicy"), "must be Always, or be left out");
    #[cfg(feature = "kube")]
    typed(spec, &path, report);
}

fn entries<'a>(spec: &'a Map<String, Value>, list: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten()
}

/// Whether a pod has these fields, and they hold what they must: by the types of Kubernetes.
#[cfg(feature = "kube")]
fn typed(spec: &Map<String, Value>, path: &str, report: &mut Report<'_>) {
    use k8s_openapi::api::core::v1::PodSpec;
    let mut whole = Value::Object(spec.clone());
    if whole["containers"].is_null() {
        whole["containers"] = Value::Array(Vec::new());
    }
    let read = serde_json::from_value::<PodSpec>(whole.clone());
    match read.and_then(|pod| serde_json::to_value(&pod)) {
        Err(error) => report.add(path, format!("is no part of a pod's spec: {error}")),
        Ok(known) => unknown(&whole, &known, path, report),
    }
}

/// Takes down what was read and is not there: no field of this name is known.
#[cfg(feature = "kube")]
fn unknown(written: &Value, known: &Value, path: &str, report: &mut Report<'_>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (name, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let at = format!("{path}.{name}");
                match known.get(name) {
                    Some(known) => unknown(value, known, &at, report),
                    None => report.add(at, "is no field of a pod of Kubernetes 1.34"),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                unknown(written, known, &format!("{path}[{index}]"), report);
            }
        }
        _ => {}
    }
}
