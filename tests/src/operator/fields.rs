//! Every field of every kind: changed, seen in a child, changed back, seen again. The fields come from the schemas, so that a new one must be thought of here.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Proof, api::folder, certificates, scenario::Stage, shop};
use crate::{root, wait};

const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// What becomes of a change.
enum Expect {
    /// A child differs.
    Seen,
    /// The API server refuses it.
    Refused,
    /// The service says that it will not run.
    Held,
    /// Nothing but the status: it is no part of a child.
    Quiet,
}

/// Changes every field in turn.
pub async fn run(proof: &Proof) {
    proof.step("Every field of every kind: changed, seen, changed back, seen");
    certificates::define(&proof.api).await;
    let stage = Stage::new(proof, "fields").await;
    let objects = make(&stage).await;
    stage.quiet().await;
    let calm = shop::children(&proof.api, &stage.namespace).await;
    let mut counts = BTreeMap::new();
    for (plural, name, spec) in &objects {
        let schema = schema(plural);
        let mut fields = Vec::new();
        leaves("", &schema, spec, &mut fields);
        *counts.entry(*plural).or_insert(0) += fields.len();
        for (pointer, schema) in fields {
            change(&stage, plural, name, spec, &pointer, &schema, &calm).await;
        }
    }
    for (plural, count) in counts {
        proof.holds(&format!("{plural}: {count} fields"));
    }
    stage.end().await;
}

/// A shop in which every optional part is there.
async fn make(stage: &Stage) -> Vec<(&'static str, &'static str, Value)> {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    for name in ["shop-jwt", "shop-pay", "shop-other", "shop-encryption", "shop-tls"] {
        api.create(
            &folder(namespace, "secrets"),
            &json!({ "metadata": { "name": name }, "stringData": { "key": "k" } }),
        )
        .await;
    }
    let custom = json!({
        "entity": "Custom",
        "source": { "mysql": { "backendRef": { "name": "mysql" }, "table": "stores", "key": "code", "version": "version" } },
        "fields": [
            { "name": "code", "type": "String", "required": true },
            { "name": "city", "type": "String", "encrypt": true },
        ],
        "tierRefs": [{ "name": "hot" }, { "name": "shared" }],
    });
    let documents = json!({
        "entity": "Product", "source": { "mongodb": { "backendRef": { "name": "mongodb" }, "collection": "products" } },
        "fields": [{ "name": "description", "role": "Intrinsic" }], "tierRefs": [{ "name": "hot" }],
    });
    let mut service = shop::service();
    let extra = json!({
        "poolRefs": [{ "name": "users" }, { "name": "products" }, { "name": "stores" }],
        "replicas": 8,
        "replicaGroups": [{ "name": "side", "replicas": 1 }, { "name": "main", "replicas": 2, "poolRefs": [{ "name": "users" }, { "name": "products" }, { "name": "stores" }],
            "resources": { "requests": { "cpu": "100m" }, "limits": { "memory": "256Mi" } } }],
        "gateway": {},
        "pipeline": { "payments": { "http": { "url": "http://pay.example", "secretRef": { "name": "shop-pay" } } } },
        "autoscaling": { "minReplicas": 2, "maxReplicas": 8 },
        "security": { "jwt": { "secretRef": { "name": "shop-jwt" } }, "encryption": { "secretRef": { "name": "shop-encryption" } },
            "tls": { "secretRef": { "name": "shop-tls" }, "issuerRef": { "name": "authority" } },
            "rateLimit": { "requestsPerSecond": 100, "burst": 200 }, "cors": { "allowOrigins": ["https://a.example"] } },
    });
    if let (Some(service), Some(extra)) = (service.as_object_mut(), extra.as_object()) {
        service.extend(extra.clone());
    }
    let redis = json!({ "redis": { "backendRef": { "name": "redis" }, "keyPrefix": "a:" } });
    let wanted = [
        ("cachetiers", "CacheTier", "hot", shop::tier()),
        ("cachetiers", "CacheTier", "shared", redis),
        ("flyweightpools", "FlyweightPool", "users", shop::pool("User")),
        ("flyweightpools", "FlyweightPool", "products", documents),
        ("flyweightpools", "FlyweightPool", "stores", custom),
        ("flyweightservices", "FlyweightService", "shop", service),
    ];
    let mut objects = Vec::new();
    for (plural, kind, name, spec) in wanted {
        api.create(&folder(namespace, plural), &shop::resource(kind, name, spec)).await;
        // With the defaults that the API server filled in.
        let spec = api.get(&format!("{}/{name}", folder(namespace, plural))).await["spec"].clone();
        objects.push((plural, name, spec));
    }
    objects
}

fn schema(plural: &str) -> Value {
    let path = root().join(format!("crds/generated/{plural}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let definition: Value = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{plural}: {error}"));
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// The fields without fields of their own, as JSON pointers into the spec. Of a list, those of its first entry that has them.
fn leaves(at: &str, schema: &Value, value: &Value, found: &mut Vec<(String, Value)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            leaves(&format!("{at}/{name}"), schema, &value[name], found);
        }
    } else if let Some(items) = schema.get("items").filter(|items| items["properties"].is_object()) {
        // A list that one resource leaves out is in another.
        for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
            leaves(&format!("{at}/{index}"), items, entry, found);
        }
    } else {
        found.push((at.to_owned(), schema.clone()));
    }
}

async fn change(stage: &Stage, plural: &str, name: &str, spec: &Value, pointer: &str, schema: &Value, calm: &[Value]) {
    // The other branch of a union is not there; nor are optional parts below it.
    let Some((parent, field)) = pointer.rsplit_once('/') else { return };
    let is_there = spec.pointer(parent).is_some_and(Value::is_object);
    if !is_there || (absent_union(pointer) && spec.pointer(pointer).is_none()) {
        return;
    }
    let before = spec.pointer(pointer).cloned().unwrap_or_default();
    let (after, expect) = alternative(plural, pointer, schema, spec);
    let mut changed = spec.clone();
    if let Some(Value::Object(parent)) = changed.pointer_mut(parent) {
        parent.insert(field.to_owned(), after.clone());
    }
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    let path = format!("{}/{name}", folder(namespace, plural));
    let what = format!("{plural}/{name} {pointer}: {before} -> {after}");
    let taken = api.replace_spec(&path, &changed).await;
    match (&expect, taken) {
        (Expect::Refused, Err(_)) => return,
        (Expect::Refused, Ok(())) => panic!("{what}: was taken"),
        (_, Err(refusal)) => panic!("{what}: {refusal}"),
        (_, Ok(())) => {}
    }
    let differs = async || shop::children(api, namespace).await != calm;
    match expect {
        Expect::Seen => {
            wait::until(&format!("{what} to be seen"), SEEN_WITHIN, async || differs().await.then_some(())).await
        }
        Expect::Held => {
            wait::until(&format!("{what} to be held back"), SEEN_WITHIN, async || {
                (shop::condition(&stage.service().await, "ConfigurationApplied").0 == "False").then_some(())
            })
            .await;
            assert!(!differs().await, "{what}: changed a child");
        }
        Expect::Quiet | Expect::Refused => {}
    }
    if let Err(refusal) = api.replace_spec(&path, spec).await {
        panic!("{what}: back: {refusal}");
    }
    wait::until(&format!("{what} to be undone"), SEEN_WITHIN, async || {
        let healed = shop::condition(&stage.service().await, "ConfigurationApplied").1 != "InvalidConfiguration";
        (healed && !differs().await).then_some(())
    })
    .await;
}

/// Fields of unions, of which one branch is there.
fn absent_union(pointer: &str) -> bool {
    ["/memory", "/redis", "/mysql", "/mongodb", "/kafka"].iter().any(|branch| pointer.contains(branch))
        || pointer.ends_with("/source")
}

/// Another value for a field, and what is to become of it.
fn alternative(plural: &str, pointer: &str, schema: &Value, spec: &Value) -> (Value, Expect) {
    let before = &spec.pointer(pointer).cloned().unwrap_or_default();
    let last = pointer.rsplit('/').next().unwrap_or_default();
    let is = |kind: &str, end: &str| plural == kind && pointer.ends_with(end);
    if is("flyweightservices", "/paused") {
        return (json!(true), Expect::Quiet);
    }
    if is("flyweightpools", "/entity") {
        return (json!("Order"), Expect::Refused);
    }
    if last == "name" && pointer.contains("secretRef") {
        return (json!("shop-other"), Expect::Seen);
    }
    if last == "name" && pointer.contains("issuerRef") {
        return (json!("another"), Expect::Seen);
    }
    if last == "name" && (pointer.contains("Ref/") || pointer.contains("Refs/")) {
        return (json!("nowhere"), Expect::Held);
    }
    // Backends are named by pools and tiers, fields by entities.
    if last == "name" && pointer.contains("backends/") {
        return (json!("another"), if pointer.contains("/3/") { Expect::Seen } else { Expect::Held });
    }
    // The type of a built-in field is known, and so is whether it must be there.
    let built_in = spec["entity"] != "Custom";
    if last == "name" && pointer.contains("fields/") && built_in {
        return (json!("another"), Expect::Held);
    }
    if plural == "flyweightpools" && (last == "type" || last == "required") && built_in {
        return (if last == "type" { json!("Json") } else { json!(true) }, Expect::Held);
    }
    let fixed: [(&str, Value, Expect); 12] = [
        ("/fields/0/encrypt", json!(true), if built_in { Expect::Refused } else { Expect::Held }),
        ("/role", json!(if before == "Auto" { "Extrinsic" } else { "Auto" }), Expect::Seen),
        ("/resources/requests", json!({ "cpu": "200m" }), Expect::Seen),
        ("/resources/limits", json!({ "memory": "512Mi" }), Expect::Seen),
        ("/allowOrigins", json!(["https://b.example"]), Expect::Seen),
        ("/read", json!(["reader"]), Expect::Seen),
        ("/write", json!(if before.is_string() { json!("WriteThrough") } else { json!(["writer"]) }), Expect::Seen),
        ("/http/url", json!("http://pay.example/other"), Expect::Seen),
        ("/webhookUrl", json!("http://hooks.example/other"), Expect::Seen),
        ("/image", json!("flyweight/dataplane:other"), Expect::Seen),
        ("/topicPrefix", json!("b."), Expect::Seen),
        ("/keyPrefix", json!("b:"), Expect::Seen),
    ];
    if let Some((_, value, expect)) = fixed.into_iter().find(|(end, ..)| pointer.ends_with(end)) {
        return (value, expect);
    }
    let value = match (schema["type"].as_str(), schema["enum"].as_array()) {
        (_, Some(values)) => values.iter().find(|value| *value != before && *value != "Custom").cloned(),
        _ if schema["x-kubernetes-int-or-string"] == true => text(before.as_str().unwrap_or_default()),
        (Some("boolean"), _) => Some(json!(!before.as_bool().unwrap_or(false))),
        (Some("integer"), _) => Some(json!(before.as_i64().map_or(1, |number| number + 1))),
        (Some("string"), _) => text(before.as_str().unwrap_or_default()),
        _ => None,
    };
    let Some(value) = value else { panic!("{plural} {pointer}: a new field? Say here how it is changed: {schema}") };
    (value, Expect::Seen)
}

/// Another text of the same form: a span, a size, a name.
fn text(before: &str) -> Option<Value> {
    let unit = before.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = before[..before.len() - unit.len()].parse().ok();
    Some(match number {
        Some(number) => json!(format!("{}{unit}", number + 1)),
        None => json!(format!("{before}2")),
    })
}
