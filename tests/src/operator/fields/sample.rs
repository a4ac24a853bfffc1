//! A shop in which every optional part is there, and the other things that a reference may name instead.

use serde_json::{Value, json};

use crate::operator::{api::folder, scenario::Stage, shop};

/// Makes it; each resource (`cachetiers/hot`) with its spec as the API server filled it in.
pub async fn make(stage: &Stage) -> Vec<(String, Value)> {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    for name in ["shop-jwt", "shop-pay", "shop-hooks", "shop-other", "shop-encryption", "shop-tls"] {
        let secret = json!({ "metadata": { "name": name }, "stringData": { "key": "k" } });
        api.create(&folder(namespace, "secrets"), &secret).await;
    }
    let mut made = Vec::new();
    for (plural, kind, name, spec) in resources() {
        api.create(&folder(namespace, plural), &shop::resource(kind, name, spec)).await;
        let spec = api.get(&format!("{}/{name}", folder(namespace, plural))).await["spec"].clone();
        made.push((format!("{plural}/{name}"), spec));
    }
    made
}

fn resources() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let tier = |name, spec| ("cachetiers", "CacheTier", name, spec);
    let pool = |name, spec| ("flyweightpools", "FlyweightPool", name, spec);
    let shared = json!({ "redis": { "backendRef": { "name": "redis" }, "keyPrefix": "a:" } });
    let products = json!({ "entity": "Product", "fields": [{ "name": "description", "role": "Intrinsic" }] });
    let stores = json!({
        "entity": "Custom",
        "source": { "mysql": { "backendRef": { "name": "mysql" }, "table": "stores", "key": "code", "version": "version" } },
        "fields": [
            { "name": "code", "type": "String", "required": true },
            { "name": "city", "type": "String", "encrypt": true },
            { "name": "serial", "type": "Integer", "json": "String" },
        ],
        "tierRefs": [{ "name": "hot" }, { "name": "shared" }],
    });
    let reviews = json!({
        "entity": "Custom",
        "source": { "mongodb": { "backendRef": { "name": "mongodb" }, "collection": "reviews", "key": "code" } },
        "fields": [{ "name": "text", "type": "String" }],
    });
    // In the place of reviews.
    let spare = json!({
        "entity": "Custom",
        "source": { "mongodb": { "backendRef": { "name": "mongodb" }, "collection": "spare" } },
        "fields": [{ "name": "text", "type": "String" }],
    });
    vec![
        tier("hot", shop::tier()),
        tier("cold", shop::tier()),
        tier("shared", shared),
        pool("users", shop::pool("User")),
        pool("products", products),
        pool("stores", stores),
        pool("reviews", reviews),
        pool("spare", spare),
        ("flyweightservices", "FlyweightService", "shop", service()),
    ]
}

fn service() -> Value {
    let all =
        json!([{ "name": "users" }, { "name": "products" }, { "name": "stores" }, { "name": "reviews" }]);
    let some = json!([{ "name": "users" }, { "name": "products" }]);
    let resources = json!({ "requests": { "cpu": "100m" }, "limits": { "memory": "256Mi" } });
    let mut service = shop::service();
    let extra = json!({
        "poolRefs": all,
        "replicas": 8,
        "replicaGroups": [
            { "name": "side", "replicas": 1 },
            {
                "name": "main", "replicas": 2, "poolRefs": some, "resources": resources,
                "podTemplate": template("group"),
            },
        ],
        "gateway": {
            "resources": { "requests": { "cpu": "51m" }, "limits": { "memory": "513Mi" } },
            "podTemplate": template("edge"),
        },
        "podTemplate": template("team"),
        "audit": {},
        "limits": {},
        "pipeline": {
            "payments": { "http": { "url": "http://pay.example", "secretRef": { "name": "shop-pay" } } },
            "notifications": { "webhookUrl": "http://hooks.example", "secretRef": { "name": "shop-hooks" } },
        },
        "autoscaling": { "minReplicas": 2, "maxReplicas": 8, "targetQueueDepth": 10, "targetHitMicros": 10 },
        "security": {
            "jwt": {
                "secretRef": { "name": "shop-jwt" },
                "issuers": [{
                    "issuer": "https://id.example", "audiences": ["shop"], "jwksUri": "https://id.example/keys",
                    "scopeClaim": "/scope",
                }],
            },
            "encryption": { "secretRef": { "name": "shop-encryption" } },
            "tls": { "secretRef": { "name": "shop-tls" }, "issuerRef": { "name": "authority" } },
            "rateLimit": { "requestsPerSecond": 100, "burst": 200 },
            "cors": { "allowOrigins": ["https://a.example"] },
        },
    });
    if let (Some(service), Some(extra)) = (service.as_object_mut(), extra.as_object()) {
        service.extend(extra.clone());
    }
    if let Some(backends) = service["backends"].as_array_mut() {
        for (backend, kind) in backends.iter_mut().zip(["mysql", "mongodb", "redis", "kafka"]) {
            backend[kind]["tls"] = json!({ "authorities": "System" });
        }
        backends.extend([
            json!({ "name": "mysql-2", "mysql": { "secretRef": { "name": "shop-mysql" } } }),
            json!({ "name": "mongodb-2", "mongodb": { "secretRef": { "name": "shop-mongodb" }, "database": "shop" } }),
            json!({ "name": "redis-2", "redis": { "secretRef": { "name": "shop-redis" } } }),
        ]);
    }
    service
}

/// What is merged into pods, under a name of its own.
fn template(name: &str) -> Value {
    json!({ "metadata": { "labels": { name: "a" }, "annotations": { name: "a" } }, "spec": { "nodeSelector": { name: "a" } } })
}
