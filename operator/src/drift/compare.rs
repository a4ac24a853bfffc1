//! Whether an object is already as it should be: as server-side apply sees it, without asking the server.
//!
//! Fields that only the live object has are defaults of the server, or others have set them, which is looked
//! for apart. Lists with a key (containers by name, owners by uid) are compared entry by entry, other lists
//! as a whole. Quantities are compared as numbers, because the server writes `1000m` as `1`. What selects
//! pods or restricts traffic is compared as a whole: one label more, and it is about other pods.

use crds::resolve::quantity::nanos;
use serde_json::{Map, Value};

/// The fields by which server-side apply tells the entries of a list apart.
const KEYS: [&str; 4] = ["uid", "name", "mountPath", "containerPort"];
/// The fields that hold quantities.
const QUANTITIES: [&str; 2] = ["requests", "limits"];

/// The fields in which more than is wanted is wrong, too.
const WHOLE: [&str; 5] = ["selector", "matchLabels", "podSelector", "ingress", "egress"];
/// The switch that the server leaves out while it is off.
const PAUSED: &str = "paused";

/// Whether everything that is wanted is there, and nothing more where more is wrong.
pub fn is_covered(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(name, wanted)| is_field_covered(name, wanted, live.get(name)))
        }
        (Value::Array(wanted), Value::Array(live)) => is_list_covered(wanted, live),
        _ => wanted == live,
    }
}

fn is_field_covered(name: &str, wanted: &Value, live: Option<&Value>) -> bool {
    match (wanted, live) {
        (_, None) => is_empty(wanted) || (name == PAUSED && *wanted == Value::Bool(false)),
        (_, Some(live)) if WHOLE.contains(&name) => is_covered(wanted, live) && is_covered(live, wanted),
        (Value::Object(wanted), Some(Value::Object(live))) if QUANTITIES.contains(&name) => {
            are_equal(wanted, live)
        }
        (_, Some(live)) => is_covered(wanted, live),
    }
}

/// A merge patch that takes away what is there too much; none where nothing is. Lists are the server's own
/// matter: those that are compared as a whole it replaces as a whole.
pub fn excess(wanted: &Value, live: &Value) -> Option<Value> {
    fn within(wanted: &Map<String, Value>, live: &Map<String, Value>, is_whole: bool) -> Map<String, Value> {
        let extra = |name: &String, live: &Value| match (wanted.get(name), live) {
            (None, live) => (is_whole && !is_empty(live)).then_some(Value::Null),
            (Some(Value::Object(wanted)), Value::Object(live)) => {
                let found = within(wanted, live, is_whole || WHOLE.contains(&name.as_str()));
                (!found.is_empty()).then_some(Value::Object(found))
            }
            _ => None,
        };
        live.iter().filter_map(|(name, live)| Some((name.clone(), extra(name, live)?))).collect()
    }
    let found = within(wanted.as_object()?, live.as_object()?, false);
    (!found.is_empty()).then_some(Value::Object(found))
}

/// The server drops what is empty.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn is_list_covered(wanted: &[Value], live: &[Value]) -> bool {
    let Some(key) = key_of(wanted) else {
        return wanted.len() == live.len()
            && wanted.iter().zip(live).all(|(wanted, live)| is_covered(wanted, live));
    };
    wanted
        .iter()
        .all(|wanted| live.iter().any(|live| live.get(key) == wanted.get(key) && is_covered(wanted, live)))
}

fn key_of(list: &[Value]) -> Option<&'static str> {
    KEYS.into_iter().find(|key| !list.is_empty() && list.iter().all(|entry| entry.get(key).is_some()))
}

fn are_equal(wanted: &Map<String, Value>, live: &Map<String, Value>) -> bool {
    wanted.iter().all(|(name, wanted)| live.get(name).is_some_and(|live| is_same_quantity(wanted, live)))
}

fn is_same_quantity(wanted: &Value, live: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(nanos);
    wanted == live || amount(wanted).is_some_and(|wanted| amount(live) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_does_not_matter() {
        let wanted = json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "image": "i" }], "env": [], "extra": {} } });
        let live = json!({ "status": {}, "spec": { "replicas": 2, "paused": false, "containers": [
            { "name": "injected" }, { "name": "a", "image": "i", "terminationMessagePath": "/dev/x" }] } });
        assert!(is_covered(&wanted, &live));
    }

    #[test]
    fn every_change_of_what_is_wanted_matters() {
        let wanted = json!({
            "metadata": { "labels": { "a": "1" }, "ownerReferences": [{ "uid": "u", "kind": "K" }] },
            "spec": { "replicas": 2, "list": [1, 2], "containers": [{ "name": "a", "args": ["x", "y"] }] },
        });
        assert!(is_covered(&wanted, &wanted));
        for (pointer, value) in [
            ("/metadata/labels/a", json!("2")),
            ("/metadata/labels", json!({})),
            ("/metadata/ownerReferences", json!([])),
            ("/spec/replicas", json!(5)),
            ("/spec/list", json!([1, 2, 3])),
            ("/spec/list", json!([2, 1])),
            ("/spec/containers/0/args", json!(["x"])),
            ("/spec/containers/0/name", json!("b")),
        ] {
            let mut live = wanted.clone();
            *live.pointer_mut(pointer).unwrap() = value;
            assert!(!is_covered(&wanted, &live), "{pointer}");
        }
    }

    #[test]
    fn one_label_more_selects_other_pods() {
        let wanted = json!({ "spec": {
            "selector": { "a": "1" },
            "podSelector": { "matchLabels": { "a": "1" } },
            "ingress": [{ "from": [{ "podSelector": {} }] }, { "ports": [{ "port": 9090 }] }],
        } });
        assert!(is_covered(&wanted, &wanted));
        assert_eq!(excess(&wanted, &wanted), None);
        for (place, field, patch) in [
            ("/spec/selector", "x", Some(json!({ "spec": { "selector": { "x": null } } }))),
            (
                "/spec/podSelector/matchLabels",
                "x",
                Some(json!({ "spec": { "podSelector": { "matchLabels": { "x": null } } } })),
            ),
            (
                "/spec/podSelector",
                "matchExpressions",
                Some(json!({ "spec": { "podSelector": { "matchExpressions": null } } })),
            ),
            ("/spec/ingress/0/from/0/podSelector", "matchLabels", None),
            ("/spec/ingress/1", "from", None),
        ] {
            let mut live = wanted.clone();
            live.pointer_mut(place).unwrap()[field] = json!({ "y": "2" });
            assert!(!is_covered(&wanted, &live), "{place}");
            assert_eq!(excess(&wanted, &live), patch, "{place}");
        }
        let mut more = wanted.clone();
        more["spec"]["sessionAffinity"] = json!("None");
        more["spec"]["podSelector"]["matchExpressions"] = json!([]);
        assert!(is_covered(&wanted, &more), "what the server adds elsewhere does not matter");
        assert_eq!(excess(&wanted, &more), None);
    }

    #[test]
    fn a_paused_rollout_is_a_difference_and_one_that_is_not_is_none() {
        let wanted = json!({ "spec": { "paused": false } });
        assert!(is_covered(&wanted, &json!({ "spec": {} })), "as the server writes it");
        assert!(!is_covered(&wanted, &json!({ "spec": { "paused": true } })));
        let token = json!({ "automountServiceAccountToken": false });
        assert!(!is_covered(&token, &json!({})), "elsewhere false is not the same as nothing");
    }

    #[test]
    fn another_owner_beside_ours_is_none_of_our_business() {
        let wanted = json!({ "ownerReferences": [{ "uid": "u" }] });
        assert!(is_covered(&wanted, &json!({ "ownerReferences": [{ "uid": "v" }, { "uid": "u" }] })));
    }

    #[test]
    fn quantities_are_numbers() {
        let wanted = json!({ "resources": { "requests": { "cpu": "0.5", "memory": "1024Mi" } } });
        let live = |cpu, memory| json!({ "resources": { "requests": { "cpu": cpu, "memory": memory } } });
        assert!(is_covered(&wanted, &live("500m", "1Gi")));
        assert!(!is_covered(&wanted, &live("501m", "1Gi")));
        assert!(!is_covered(&wanted, &live("500m", "1G")));
    }
}
