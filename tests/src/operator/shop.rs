//! A small shop as resources, and the state that an operator leads to, in a form that can be compared.

use serde_json::{Value, json};

use super::api::{Api, folder};

/// The kinds of children.
pub const CHILDREN: [&str; 9] = [
    "serviceaccounts",
    "certificates",
    "configmaps",
    "services",
    "networkpolicies",
    "jobs",
    "deployments",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
];
/// What the API server or a controller adds, and what differs from namespace to namespace.
const NOISE: [&str; 12] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "namespace",
    "flyweight.dev/applied",
    "flyweight.dev/secrets",
    "flyweight.dev/template",
    "deployment.kubernetes.io/revision",
    "clusterIP",
    "clusterIPs",
];

/// The Secrets that the shop names.
pub const SECRETS: [&str; 4] = ["shop-mysql", "shop-mongodb", "shop-redis", "shop-kafka"];

/// A resource of Flyweight.
pub fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "flyweight.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The spec of the service.
pub fn service() -> Value {
    json!({
        "image": "flyweight/dataplane:0.1.0",
        "poolRefs": [{ "name": "users" }, { "name": "products" }],
        "replicaGroups": [{ "name": "main", "replicas": 2 }],
        "networkPolicy": true,
        "backends": [
            { "name": "mysql", "mysql": { "secretRef": { "name": "shop-mysql" } } },
            { "name": "mongodb", "mongodb": { "secretRef": { "name": "shop-mongodb" }, "database": "shop" } },
            { "name": "redis", "redis": { "secretRef": { "name": "shop-redis" } } },
            // of its own namespace it would be another in each life, and so would all that is compared
            { "name": "kafka", "kafka": { "secretRef": { "name": "shop-kafka" }, "topicPrefix": "shop." } },
        ],
    })
}

/// The spec of a pool.
pub fn pool(entity: &str) -> Value {
    json!({ "entity": entity, "tierRefs": [{ "name": "hot" }] })
}

/// The spec of the tier.
pub fn tier() -> Value {
    json!({ "memory": {}, "ttl": "60s" })
}

/// Makes the Secrets.
pub async fn make_secrets(api: &Api, namespace: &str) {
    for name in SECRETS {
        let secret = json!({ "metadata": { "name": name }, "stringData": { "url": "unused://" } });
        api.create(&folder(namespace, "secrets"), &secret).await;
    }
}

/// Makes tier, pools and service.
pub async fn make(api: &Api, namespace: &str) {
    api.create(&folder(namespace, "cachetiers"), &resource("CacheTier", "hot", tier())).await;
    for (name, entity) in [("users", "User"), ("products", "Product")] {
        api.create(&folder(namespace, "flyweightpools"), &resource("FlyweightPool", name, pool(entity)))
            .await;
    }
    api.create(&folder(namespace, "flyweightservices"), &resource("FlyweightService", "shop", service()))
        .await;
}

/// The path of the service.
pub fn service_path(namespace: &str) -> String {
    format!("{}/shop", folder(namespace, "flyweightservices"))
}

/// The children of all services, without what differs by chance.
pub async fn children(api: &Api, namespace: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for plural in CHILDREN {
        let list = api
            .get(&format!(
                "{}?labelSelector=app.kubernetes.io/managed-by=flyweight-operator",
                folder(namespace, plural)
            ))
            .await;
        for mut object in list["items"].as_array().cloned().unwrap_or_default() {
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
                object.insert("plural".to_owned(), plural.into());
            }
            strip(&mut object);
            found.push(object);
        }
    }
    found
}

/// Children, and what the statuses say: type, status and reason of each condition.
pub async fn state(api: &Api, namespace: &str) -> Value {
    let mut says = Vec::new();
    for plural in ["flyweightservices", "flyweightpools", "cachetiers"] {
        let list = api.get(&folder(namespace, plural)).await;
        for object in list["items"].as_array().cloned().unwrap_or_default() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let said: Vec<String> = conditions
                .iter()
                .map(|one| {
                    format!("{}={}/{}", text(&one["type"]), text(&one["status"]), text(&one["reason"]))
                })
                // Without nodes no pod ever starts, and after a moment that is said.
                .map(|said| {
                    said.replace("Degraded=True/PodsFailing", "Degraded=False/AsExpected")
                        .replace("Degraded=True/Unschedulable", "Degraded=False/AsExpected")
                        .replace("=False/Unschedulable", "=False/PodsNotReady")
                })
                .collect();
            let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            says.push(json!({ "resource": format!("{plural}/{}", text(&object["metadata"]["name"])), "says": said, "seen": seen }));
        }
    }
    json!({ "children": children(api, namespace).await, "statuses": says })
}

/// One condition of the service: status, reason and message.
pub fn condition(service: &Value, kind: &str) -> (String, String, String) {
    let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !NOISE.contains(&name.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}
