//! Whether an object is already as it should be: as server-side apply sees it, without asking the server.
//!
//! Fields that only the live object has are defaults of the server or belong to others. Lists with a key (containers by name, owners by uid) are
//! compared entry by entry, other lists as a whole. Quantities are compared as numbers, because the server writes `1000m` as `1`.

use crds::resolve::quantity::nanos;
use serde_json::{Map, Value};

/// The fields by which server-side apply tells the entries of a list apart.
const KEYS: [&str; 4] = ["uid", "name", "mountPath", "containerPort"];
/// The fields that hold quantities.
const QUANTITIES: [&str; 2] = ["requests", "limits"];

/// Whether everything that is wanted is there.
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
        (_, None) => is_empty(wanted),
        (Value::Object(wanted), Some(Value::Object(live))) if QUANTITIES.contains(&name) => are_equal(wanted, live),
        (_, Some(live)) => is_covered(wanted, live),
    }
}

/// The server drops what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn is_list_covered(wanted: &[Value], live: &[Value]) -> bool {
    let Some(key) = key_of(wanted) else {
        return wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| is_covered(wanted, live));
    };
    wanted.iter().all(|wanted| live.iter().any(|live| live.get(key) == wanted.get(key) && is_covered(wanted, live)))
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
        let wanted =
            json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "image": "i" }], "env": [], "extra": {} } });
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
