//! What the pods of the data plane and of the gateway have in common: ports, probes, and as few rights as
//! possible.

use crds::annotations::{RESTARTED_AT, TAKE_OVER_FROM};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Component, Target};
use crate::child::annotation;

/// Where the ConfigMap is mounted: the folder, never the single file, which would not be updated.
pub(super) const CONFIG_FOLDER: &str = "/etc/flyweight/config";
/// `nonroot` of the usual base images.
const USER: u32 = 65532;
/// Longer than the process needs to be taken out of service and to finish what it began.
const GRACE_SECONDS: u32 = 60;

/// What differs between the two.
pub(super) struct Pod<'a> {
    pub component: Component<'a>,
    /// The ConfigMap with the settings.
    pub settings: &'a str,
    pub container: &'static str,
    pub args: Vec<String>,
    pub resources: Value,
    /// Labels besides those that select.
    pub labels: Value,
    /// Volumes besides the settings, as (volume, mount).
    pub volumes: Vec<(Value, Value)>,
}

/// The path of the settings in the pod.
pub(super) fn settings_path() -> String {
    format!("{CONFIG_FOLDER}/{}", crate::observe::SETTINGS_KEY)
}

/// The pod template.
pub(super) fn template(target: &Target<'_>, pod: Pod<'_>) -> Value {
    let Pod { component, settings, container, args, resources, labels, volumes } = pod;
    let mut all_labels = Value::Object(target.labels(component));
    super::merge(&mut all_labels, labels);
    let settings = json!({ "name": "config", "configMap": { "name": settings, "defaultMode": 0o444 } });
    let mount = json!({ "name": "config", "mountPath": CONFIG_FOLDER, "readOnly": true });
    let (volumes, mounts): (Vec<Value>, Vec<Value>) = [(settings, mount)].into_iter().chain(volumes).unzip();
    let mut annotations = json!({ annotation::ROLLING: target.validated.rolling });
    if let Some(time) = target.observed.service.annotations().get(RESTARTED_AT) {
        annotations[RESTARTED_AT] = time.clone().into();
    }
    let mut env = vec![
        // a pod is there for others, by either family of addresses
        json!({ "name": "LISTEN", "value": "[::]" }),
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        // in bytes; where there is no limit, what the node has
        json!({ "name": "MEMORY_LIMIT", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1" } } }),
    ];
    if let Some(owner) = target.observed.service.annotations().get(TAKE_OVER_FROM) {
        env.push(json!({ "name": "TAKE_OVER_FROM", "value": owner }));
    }
    json!({
        "metadata": { "labels": all_labels, "annotations": annotations },
        "spec": {
            "serviceAccountName": target.name(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": { "matchLabels": target.selector(component) },
            }],
            "containers": [{
                "name": container,
                "image": target.validated.image,
                "args": args,
                "env": env,
                "ports": [
                    { "name": "http", "containerPort": 8080, "protocol": "TCP" },
                    { "name": "admin", "containerPort": 9090, "protocol": "TCP" },
                ],
                "resources": resources,
                "volumeMounts": mounts,
                // The start may take as long as the warm-up of two minutes; readiness is asked often, because
                // a pod that ends says so there.
                "startupProbe": probe("/livez", 1, 120),
                "readinessProbe": probe("/readyz", 2, 2),
                "livenessProbe": probe("/livez", 10, 3),
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
            "volumes": volumes,
        },
    })
}

/// A Deployment's spec around the template: a new pod is ready before an old one goes.
pub(super) fn deployment_spec(
    target: &Target<'_>,
    component: Component<'_>,
    replicas: u32,
    template: Value,
) -> Value {
    json!({ "spec": {
        "replicas": replicas,
        // said, so that a rollout that somebody paused goes on
        "paused": false,
        "revisionHistoryLimit": 3,
        "selector": { "matchLabels": target.selector(component) },
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "template": template,
    }})
}

fn field_env(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } })
}

fn probe(path: &str, period_seconds: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": "admin", "scheme": "HTTP" },
        "periodSeconds": period_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    })
}
