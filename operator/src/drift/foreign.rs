//! What others have added to a child where it is the operator's alone: its spec, or its data.
//!
//! An apply leaves alone what another manager added: a container, a port, a node selector. The API server
//! takes down who set which field, and that tells such additions apart from its own defaults and from what
//! admission puts in: those have no manager, and to take them away would be to write for ever.
//!
//! Annotations of pods are not the operator's alone: `kubectl rollout restart` sets one, and to take it away
//! would restart the pods once more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value, json};

use super::compare::is_empty;
use crate::model::child::MANAGER;

/// The kinds that have a spec of which nothing is anybody else's. Those of the others are left out: accounts
/// get Secrets from elsewhere, a Job cannot be changed, and Certificates are made complete by cert-manager.
const WITH_SPEC: [&str; 5] =
    ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service"];
const OF_SPEC: [&str; 1] = ["spec"];
const OF_DATA: [&str; 3] = ["data", "binaryData", "immutable"];
const ANNOTATIONS: &str = "annotations";

/// Drops what the API server says about managers, but for those that may have added something.
pub fn keep(managers: &mut Vec<ManagedFieldsEntry>) {
    managers.retain(|entry| {
        let ours = entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply");
        let of = |root: &&str| {
            entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get(format!("f:{root}")).is_some())
        };
        !ours && entry.subresource.is_none() && OF_SPEC.iter().chain(&OF_DATA).any(of)
    });
}

/// A merge patch that takes away what others have added; none where they have not.
pub fn additions(wanted: &Value, live: &Value) -> Option<Value> {
    let roots: &[&str] = match wanted["kind"].as_str() {
        Some("ConfigMap") => &OF_DATA,
        Some(kind) if WITH_SPEC.contains(&kind) => &OF_SPEC,
        _ => return None,
    };
    let mut patch = json!({});
    // Fields of another version of the API may have other names and places.
    let managers = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    for entry in managers.filter(|entry| entry.get("apiVersion") == wanted.get("apiVersion")) {
        for root in roots {
            let Some(fields) = entry["fieldsV1"].get(format!("f:{root}")) else { continue };
            if let Some(found) = field(fields, wanted.get(root), &live[root]) {
                join(&mut patch, json!({ (*root): found }));
            }
        }
    }
    patch.as_object().is_some_and(|patch| !patch.is_empty()).then_some(patch)
}

/// Two merge patches of one object in one.
pub fn join(patch: &mut Value, more: Value) {
    match (patch, more) {
        (Value::Object(patch), Value::Object(more)) => {
            for (name, more) in more {
                join(patch.entry(name).or_insert_with(|| json!({})), more);
            }
        }
        (patch, more) => *patch = more,
    }
}

/// What is to become of one field that somebody has set, or has set something in; none where it may stay.
fn field(fields: &Value, wanted: Option<&Value>, live: &Value) -> Option<Value> {
    match (wanted.filter(|wanted| !is_empty(wanted)), live) {
        (_, live) if is_empty(live) => None,
        (None, _) => Some(Value::Null),
        (Some(Value::Object(wanted)), Value::Object(live)) => map(fields, wanted, live),
        // Within a list a merge patch can change nothing but the whole.
        (Some(Value::Array(wanted)), Value::Array(live)) => {
            has_more(fields, wanted, live).then(|| json!(wanted))
        }
        // Values are the apply's own matter.
        (Some(_), _) => None,
    }
}

fn map(fields: &Value, wanted: &Map<String, Value>, live: &Map<String, Value>) -> Option<Value> {
    let within = fields.as_object()?.iter().filter_map(|(name, fields)| {
        let name = name.strip_prefix("f:").filter(|name| *name != ANNOTATIONS)?;
        Some((name.to_owned(), field(fields, wanted.get(name), live.get(name)?)?))
    });
    let found: Map<String, Value> = within.collect();
    (!found.is_empty()).then_some(Value::Object(found))
}

/// Whether somebody has set something in an entry, or added one. A list whose entries have no key is set as a
/// whole, and compared as a whole.
fn has_more(fields: &Value, wanted: &[Value], live: &[Value]) -> bool {
    fields.as_object().into_iter().flatten().any(|(key, fields)| {
        let Some(key) =
            key.strip_prefix("k:").and_then(|key| serde_json::from_str::<Map<String, Value>>(key).ok())
        else {
            return false;
        };
        let Some(live) = live.iter().find(|entry| has_key(entry, &key)) else { return false };
        match wanted.iter().find(|entry| has_key(entry, &key)) {
            Some(wanted) => field(fields, Some(wanted), live).is_some(),
            None => true,
        }
    })
}

/// Whether a list's entry has this key. What is not said of it is the default: of all keys only the protocol
/// of a port has one.
fn has_key(entry: &Value, key: &Map<String, Value>) -> bool {
    let said = |name: &str| entry.get(name).cloned().or_else(|| (name == "protocol").then(|| json!("TCP")));
    key.iter().all(|(name, value)| said(name).as_ref() == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Value {
        json!({ "kind": "Deployment", "spec": { "replicas": 2, "template": {
            "metadata": { "labels": { "a": "1" } },
            "spec": {
                "containers": [{ "name": "main", "image": "i", "env": [{ "name": "A", "value": "1" }],
                    "ports": [{ "containerPort": 80 }, { "containerPort": 90, "protocol": "TCP" }] }],
                "volumes": [{ "name": "config" }],
            },
        } } })
    }

    /// The object as the API server has it, after somebody has set these fields of the pods in it.
    fn live(by: &str, fields: &Value, change: impl FnOnce(&mut Value)) -> Value {
        let mut live = wanted();
        live["spec"]["progressDeadlineSeconds"] = json!(600);
        live["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
        change(&mut live["spec"]["template"]["spec"]);
        let entry = |manager: &str, operation: &str, fields: &Value| json!({ "manager": manager, "operation": operation, "fieldsV1": fields });
        let ours =
            json!({ "f:spec": { "f:replicas": {}, "f:template": { "f:spec": { "f:containers": {} } } } });
        let theirs = json!({ "f:spec": { "f:template": { "f:spec": fields } } });
        live["metadata"]["managedFields"] =
            json!([entry(MANAGER, "Apply", &ours), entry(by, "Update", &theirs)]);
        let mut managers: Vec<ManagedFieldsEntry> =
            serde_json::from_value(live["metadata"]["managedFields"].clone()).unwrap();
        keep(&mut managers);
        assert_eq!(managers.len(), 1, "our own are of no use");
        live["metadata"]["managedFields"] = serde_json::to_value(managers).unwrap();
        live
    }

    fn in_pods(patch: Value) -> Option<Value> {
        Some(json!({ "spec": { "template": { "spec": patch } } }))
    }

    #[test]
    fn what_somebody_added_is_taken_away() {
        let container = |name: &str| json!({ "f:containers": { format!("k:{}", json!({ "name": name })): { ".": {}, "f:name": {} } } });
        let containers = wanted()["spec"]["template"]["spec"]["containers"].clone();
        let volumes = wanted()["spec"]["template"]["spec"]["volumes"].clone();
        for (fields, name, value, patch) in [
            (
                json!({ "f:nodeSelector": {} }),
                "nodeSelector",
                json!({ "disk": "ssd" }),
                json!({ "nodeSelector": null }),
            ),
            (
                json!({ "f:tolerations": {} }),
                "tolerations",
                json!([{ "key": "x" }]),
                json!({ "tolerations": null }),
            ),
            (json!({ "f:hostNetwork": {} }), "hostNetwork", json!(true), json!({ "hostNetwork": null })),
            (
                json!({ "f:initContainers": { ".": {}, "k:{\"name\":\"first\"}": { ".": {}, "f:name": {} } } }),
                "initContainers",
                json!([{ "name": "first" }]),
                json!({ "initContainers": null }),
            ),
            (
                container("more"),
                "containers",
                json!([containers[0], { "name": "more" }]),
                json!({ "containers": containers }),
            ),
            (
                json!({ "f:volumes": { "k:{\"name\":\"more\"}": { ".": {}, "f:emptyDir": {}, "f:name": {} } } }),
                "volumes",
                json!([volumes[0], { "name": "more", "emptyDir": {} }]),
                json!({ "volumes": volumes }),
            ),
        ] {
            let live = live("kubectl-edit", &fields, |pods| pods[name] = value);
            assert_eq!(additions(&wanted(), &live), in_pods(patch), "{name}");
        }
    }

    #[test]
    fn what_somebody_added_to_a_container_is_taken_away() {
        let within = |fields: Value| json!({ "f:containers": { "k:{\"name\":\"main\"}": fields } });
        let containers = wanted()["spec"]["template"]["spec"]["containers"].clone();
        for (fields, name, value) in [
            (json!({ "f:command": {} }), "command", json!(["sh"])),
            (
                json!({ "f:env": { "k:{\"name\":\"B\"}": {} } }),
                "env",
                json!([{ "name": "A", "value": "1" }, { "name": "B" }]),
            ),
            (
                json!({ "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"UDP\"}": { ".": {} } } }),
                "ports",
                json!([{ "containerPort": 80, "protocol": "TCP" }, { "containerPort": 80, "protocol": "UDP" }]),
            ),
        ] {
            let live = live("kubectl-edit", &within(fields), |pods| pods["containers"][0][name] = value);
            assert_eq!(additions(&wanted(), &live), in_pods(json!({ "containers": containers })), "{name}");
        }
    }

    #[test]
    fn what_is_wanted_or_nobodys_stays() {
        let admitted = live("kubectl-edit", &json!({}), |pods| {
            pods["nodeSelector"] = json!({ "zone": "a" });
            pods["containers"] = json!([pods["containers"][0], { "name": "injected" }]);
        });
        assert_eq!(additions(&wanted(), &admitted), None, "admission has no manager");
        let main = json!({ "f:env": { "k:{\"name\":\"A\"}": { ".": {}, "f:value": {} } }, "f:image": {},
            "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } } });
        let same = live("argocd", &json!({ "f:containers": { "k:{\"name\":\"main\"}": main } }), |_| ());
        assert_eq!(additions(&wanted(), &same), None, "set by two, and wanted");
        let gone = live("kubectl-edit", &json!({ "f:nodeSelector": {}, "f:tolerations": {} }), |pods| {
            pods["tolerations"] = json!([]);
        });
        assert_eq!(additions(&wanted(), &gone), None, "and not there any more");
    }

    #[test]
    fn several_additions_are_one_patch() {
        let mut live = live("kubectl-edit", &json!({ "f:nodeSelector": {} }), |pods| {
            pods["nodeSelector"] = json!({ "disk": "ssd" });
            pods["hostNetwork"] = json!(true);
        });
        live["spec"]["minReadySeconds"] = json!(5);
        let more = json!({ "manager": "other", "fieldsV1": { "f:spec": {
            "f:minReadySeconds": {}, "f:template": { "f:spec": { "f:hostNetwork": {} } } } } });
        live["metadata"]["managedFields"].as_array_mut().unwrap().push(more);
        let pods = json!({ "nodeSelector": null, "hostNetwork": null });
        let patch = json!({ "spec": { "minReadySeconds": null, "template": { "spec": pods } } });
        assert_eq!(additions(&wanted(), &live), Some(patch));
    }

    #[test]
    fn each_kind_has_what_is_ours_alone() {
        let added = |kind: &str, root: &str| {
            let fields = json!({ format!("f:{root}"): { "f:more": {} } });
            let wanted = json!({ "kind": kind, root: { "one": "1" } });
            let live = json!({ "kind": kind, root: { "one": "1", "more": "2" }, "metadata": { "managedFields": [{ "fieldsV1": fields }] } });
            additions(&wanted, &live)
        };
        for kind in WITH_SPEC {
            assert_eq!(added(kind, "spec"), Some(json!({ "spec": { "more": null } })), "{kind}");
        }
        assert_eq!(added("ConfigMap", "data"), Some(json!({ "data": { "more": null } })));
        for (kind, root) in [
            ("Job", "spec"),
            ("Certificate", "spec"),
            ("ServiceAccount", "imagePullSecrets"),
            ("Service", "metadata"),
        ] {
            assert_eq!(added(kind, root), None, "{kind}");
        }
    }

    #[test]
    fn fields_of_another_version_are_not_looked_for() {
        let wanted = json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": { "maxReplicas": 2 } });
        for (version, patch) in
            [("autoscaling/v2", Some(json!({ "spec": { "behavior": null } }))), ("autoscaling/v1", None)]
        {
            let entry = json!({ "apiVersion": version, "fieldsV1": { "f:spec": { "f:behavior": {} } } });
            let spec = json!({ "maxReplicas": 2, "behavior": { "scaleDown": {} } });
            let live = json!({ "spec": spec, "metadata": { "managedFields": [entry] } });
            assert_eq!(additions(&wanted, &live), patch, "{version}");
        }
    }

    #[test]
    fn annotations_of_pods_stay_and_their_labels_do_not() {
        let fields = json!({ "f:spec": { "f:template": { "f:metadata": {
            "f:annotations": { "f:kubectl.kubernetes.io/restartedAt": {} }, "f:labels": { "f:x": {} } } } } });
        let mut live = wanted();
        live["spec"]["template"]["metadata"] = json!({ "labels": { "a": "1", "x": "2" }, "annotations": { "kubectl.kubernetes.io/restartedAt": "now" } });
        live["metadata"]["managedFields"] = json!([{ "manager": "kubectl-rollout", "fieldsV1": fields }]);
        let patch = json!({ "spec": { "template": { "metadata": { "labels": { "x": null } } } } });
        assert_eq!(additions(&wanted(), &live), Some(patch));
    }
}
