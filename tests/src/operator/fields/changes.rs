//! What each field is changed to, and where that is seen.

use serde_json::{Value, json};

use super::shown::Shown::{self, Child, Condition, Held, Refused, Settings};

/// Another value for one field of the sample.
pub struct Change {
    /// `cachetiers/hot`.
    pub resource: &'static str,
    /// Where the field is in the spec: `tierRefs/hot/name`.
    pub place: String,
    /// Its other value.
    pub value: Value,
    /// What becomes of it.
    pub shown: Shown,
}

impl Change {
    /// The kind of the resource.
    pub fn plural(&self) -> &'static str {
        self.resource.split_once('/').map_or(self.resource, |(plural, _)| plural)
    }
}

/// Every change.
pub fn all() -> Vec<Change> {
    [
        tiers(),
        pools(),
        custom_pools(),
        pods(),
        templates(),
        backends(),
        configuration(),
        issuers(),
        security(),
        wrong(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn change(resource: &'static str, place: &str, value: Value, shown: Shown) -> Change {
    Change { resource, place: place.to_owned(), value, shown }
}

/// Seen in the configuration, at this place.
fn set(resource: &'static str, place: &str, value: Value, settings: &str) -> Change {
    let shown = Settings(settings.to_owned(), value.clone());
    change(resource, place, value, shown)
}

/// Seen in a child, at this place.
fn of_child(
    resource: &'static str,
    place: &str,
    value: Value,
    child: &'static str,
    at: &'static str,
) -> Change {
    let shown = Child(child, at, value.clone());
    change(resource, place, value, shown)
}

fn tiers() -> Vec<Change> {
    let hot =
        |place: &str, value| set("cachetiers/hot", place, value, &format!("pools/users/tiers/hot/{place}"));
    let kind = "pools/users/tiers/hot/kind";
    let redis = "pools/stores/tiers/shared/kind";
    vec![
        hot("ttl", json!("61s")),
        hot("jitter", json!(11)),
        hot("negativeTtl", json!("3s")),
        hot("staleWhileRevalidate", json!("1s")),
        hot("staleIfError", json!("1s")),
        hot("write", json!("WriteThrough")),
        set("cachetiers/hot", "memory/maxBytes", json!("257Mi"), &format!("{kind}/maxBytes")),
        set("cachetiers/hot", "memory/policy", json!("LRU"), &format!("{kind}/policy")),
        set("cachetiers/shared", "redis/backendRef/name", json!("redis-2"), &format!("{redis}/backend")),
        set("cachetiers/shared", "redis/keyPrefix", json!("b:"), &format!("{redis}/keyPrefix")),
    ]
}

fn pools() -> Vec<Change> {
    let users =
        |place: &str, value| set("flyweightpools/users", place, value, &format!("pools/users/{place}"));
    let entity = Refused("entity is fixed: create another pool for another entity");
    vec![
        change("flyweightpools/users", "entity", json!("Order"), entity),
        set("flyweightpools/users", "tierRefs/hot/name", json!("cold"), "pools/users/tiers/0/name"),
        users("capacity", json!(1_000)),
        users("cleanup/idleAfter", json!("31m")),
        users("cleanup/interval", json!("2m")),
        users("limits/maxRecordBytes", json!("2Mi")),
        users("warmUp", json!("Peers")),
        users("access/read", json!(["reader"])),
        users("access/write", json!(["writer"])),
        users("access/price", json!(["seller"])),
    ]
}

fn custom_pools() -> Vec<Change> {
    let (stores, reviews) = ("flyweightpools/stores", "flyweightpools/reviews");
    let field = |place: &str, value| set(stores, place, value, &format!("pools/stores/{place}"));
    vec![
        set(stores, "fields/code/name", json!("number"), "pools/stores/fields/0/name"),
        field("fields/code/type", json!("Integer")),
        field("fields/code/role", json!("Extrinsic")),
        field("fields/code/required", json!(false)),
        field("fields/city/encrypt", json!(false)),
        field("fields/serial/json", json!("Number")),
        set(stores, "source/mysql/backendRef/name", json!("mysql-2"), "pools/stores/source/backend"),
        set(stores, "source/mysql/table", json!("shops"), "pools/stores/source/collection"),
        set(stores, "source/mysql/key", json!("number"), "pools/stores/source/key"),
        set(stores, "source/mysql/version", json!("edition"), "pools/stores/source/version"),
        set(reviews, "source/mongodb/backendRef/name", json!("mongodb-2"), "pools/reviews/source/backend"),
        set(reviews, "source/mongodb/collection", json!("opinions"), "pools/reviews/source/collection"),
        set(reviews, "source/mongodb/key", json!("number"), "pools/reviews/source/key"),
    ]
}

const SHOP: &str = "flyweightservices/shop";
const IMAGE: &str = "spec/template/spec/containers/dataplane/image";
const REQUESTS: &str = "spec/template/spec/containers/dataplane/resources/requests";
const LIMITS: &str = "spec/template/spec/containers/dataplane/resources/limits";
const GROUP: &str = "metadata/labels/flyweight.dev~1group";
const TARGET_CPU: &str = "spec/metrics/0/resource/target/averageUtilization";

/// What pods there are.
fn pods() -> Vec<Change> {
    let (main, side, gateway) =
        ("deployments/shop-main", "deployments/shop-side", "deployments/shop-gateway");
    let (budget, scaler) = ("poddisruptionbudgets/shop-main", "horizontalpodautoscalers/shop");
    let (cpu, limit) = (json!({ "cpu": "200m" }), json!({ "memory": "512Mi" }));
    let targets = |queue: u32, hit: u32| {
        let text = json!({ "queueDepth": queue, "hitMicros": hit }).to_string();
        Child(scaler, "metadata/annotations/flyweight.dev~1targets", text.into())
    };
    vec![
        of_child(SHOP, "image", json!("flyweight/dataplane:other"), main, IMAGE),
        // Of 8 pods a third are on the side, of 7 and in equal parts other numbers.
        change(SHOP, "replicas", json!(7), Child(side, "spec/replicas", json!(2))),
        change(SHOP, "replicaGroups/side/replicas", json!(2), Child(side, "spec/replicas", json!(4))),
        of_child(SHOP, "replicaGroups/side/name", json!("other"), "deployments/shop-other", GROUP),
        set(SHOP, "replicaGroups/side/weight", json!(2), "groups/side/weight"),
        set(SHOP, "replicaGroups/main/poolRefs/products/name", json!("stores"), "groups/main/pools/1"),
        of_child(SHOP, "replicaGroups/main/resources/requests", cpu, main, REQUESTS),
        of_child(SHOP, "replicaGroups/main/resources/limits", limit, main, LIMITS),
        of_child(SHOP, "gateway/replicas", json!(2), gateway, "spec/replicas"),
        of_child(SHOP, "disruption/maxUnavailable", json!(2), budget, "spec/maxUnavailable"),
        change(SHOP, "networkPolicy", json!(false), Child("networkpolicies/shop", "", Value::Null)),
        // the lowest but that of DNS, since they are in order
        change(
            SHOP,
            "egressPorts",
            json!([60]),
            Child("networkpolicies/shop", "spec/egress/1/ports/1/port", json!(60)),
        ),
        of_child(SHOP, "autoscaling/minReplicas", json!(3), scaler, "spec/minReplicas"),
        of_child(SHOP, "autoscaling/maxReplicas", json!(9), scaler, "spec/maxReplicas"),
        of_child(SHOP, "autoscaling/targetCpuPercent", json!(71), scaler, TARGET_CPU),
        change(SHOP, "autoscaling/targetQueueDepth", json!(11), targets(11, 10)),
        change(SHOP, "autoscaling/targetHitMicros", json!(11), targets(10, 11)),
        change(SHOP, "paused", json!(true), Condition("Progressing", "Paused")),
    ]
}

/// What the platform adds to pods, and how clients reach them.
fn templates() -> Vec<Change> {
    let of = |place: &'static str, child: &'static str, at: [&'static str; 3], name: &str| {
        let fields = ["metadata/labels", "metadata/annotations", "spec"];
        let whole = |value: Value, field: &str| match field {
            "spec" => json!({ "nodeSelector": value }),
            _ => value,
        };
        let changes = fields.into_iter().zip(at).map(|(field, at)| {
            let value = whole(json!({ name: "b" }), field);
            change(SHOP, &format!("{place}/{field}"), value, Child(child, at, json!("b")))
        });
        changes.collect::<Vec<_>>()
    };
    let gateway = "deployments/shop-gateway";
    let mut all = of(
        "podTemplate",
        "deployments/shop-side",
        [
            "spec/template/metadata/labels/team",
            "spec/template/metadata/annotations/team",
            "spec/template/spec/nodeSelector/team",
        ],
        "team",
    );
    all.extend(of(
        "replicaGroups/main/podTemplate",
        "deployments/shop-main",
        [
            "spec/template/metadata/labels/group",
            "spec/template/metadata/annotations/group",
            "spec/template/spec/nodeSelector/group",
        ],
        "group",
    ));
    all.extend(of(
        "gateway/podTemplate",
        gateway,
        [
            "spec/template/metadata/labels/edge",
            "spec/template/metadata/annotations/edge",
            "spec/template/spec/nodeSelector/edge",
        ],
        "edge",
    ));
    let resources = |field: &'static str, value: Value| {
        let at = match field {
            "requests" => "spec/template/spec/containers/gateway/resources/requests",
            _ => "spec/template/spec/containers/gateway/resources/limits",
        };
        of_child(SHOP, &format!("gateway/resources/{field}"), value, gateway, at)
    };
    let front = "services/shop";
    all.extend([
        resources("requests", json!({ "cpu": "60m" })),
        resources("limits", json!({ "memory": "600Mi" })),
        of_child(SHOP, "service/type", json!("NodePort"), front, "spec/type"),
        change(
            SHOP,
            "service/annotations",
            json!({ "dns.example/name": "shop" }),
            Child(front, "metadata/annotations/dns.example~1name", json!("shop")),
        ),
        // it is fixed once a Service has it, and no Service within the cluster may have it
        change(
            SHOP,
            "service/loadBalancerClass",
            json!("example.com/internal"),
            Condition("Progressing", "InvalidConfiguration"),
        ),
    ]);
    all
}

/// Whose tokens are good: the configuration says it as the service does.
fn issuers() -> Vec<Change> {
    let fields = [
        ("issuer", json!("https://other.example")),
        ("audiences", json!(["shop", "mall"])),
        ("jwksUri", json!("https://id.example/other")),
        ("algorithms", json!(["RS256"])),
        ("rolesClaim", json!("/realm_access/roles")),
        ("scopeClaim", json!("/scp")),
        ("leeway", json!("31s")),
    ];
    let one = |(field, value): (&str, Value)| {
        let place = format!("security/jwt/issuers/0/{field}");
        set(SHOP, &place, value, &format!("security/issuers/0/{field}"))
    };
    fields.into_iter().map(one).collect()
}

/// Stores and brokers: the configuration names them, pods have their Secrets as files.
fn backends() -> Vec<Change> {
    let kind = |name: &str, place: &str, value| {
        let place = format!("backends/{name}/{place}");
        let field = place.rsplit('/').next().unwrap_or_default();
        set(SHOP, &place, value, &format!("backends/{name}/kind/{field}"))
    };
    let secret = |place: &str, at| of_child(SHOP, place, json!("shop-other"), "deployments/shop-main", at);
    let passages = ["mysql", "mongodb", "redis", "kafka"].into_iter().flat_map(|name| {
        let allowed = Settings(format!("backends/{name}/plaintext"), json!("Allowed"));
        let nobody = Refused("supported values: \"System\"");
        [
            change(SHOP, &format!("backends/{name}/{name}/allowPlaintext"), json!(true), allowed),
            change(SHOP, &format!("backends/{name}/{name}/tls/authorities"), json!("Nobody"), nobody),
        ]
    });
    let own = vec![
        set(SHOP, "poolRefs/reviews/name", json!("spare"), "pools/3/name"),
        set(SHOP, "backends/mysql-2/name", json!("mysql-3"), "backends/4/name"),
        kind("mysql", "mysql/maxConnections", json!(101)),
        kind("mongodb", "mongodb/database", json!("other")),
        kind("kafka", "kafka/topicPrefix", json!("b.")),
        secret(
            "backends/mysql/mysql/secretRef/name",
            "spec/template/spec/volumes/backend-mysql/secret/secretName",
        ),
        secret(
            "backends/mongodb/mongodb/secretRef/name",
            "spec/template/spec/volumes/backend-mongodb/secret/secretName",
        ),
        secret(
            "backends/redis/redis/secretRef/name",
            "spec/template/spec/volumes/backend-redis/secret/secretName",
        ),
        secret(
            "backends/kafka/kafka/secretRef/name",
            "spec/template/spec/volumes/backend-kafka/secret/secretName",
        ),
        secret("security/jwt/secretRef/name", "spec/template/spec/volumes/security-jwt/secret/secretName"),
        secret(
            "security/encryption/secretRef/name",
            "spec/template/spec/volumes/security-encryption/secret/secretName",
        ),
        secret("security/tls/secretRef/name", "spec/template/spec/volumes/security-tls/secret/secretName"),
        secret(
            "pipeline/payments/http/secretRef/name",
            "spec/template/spec/volumes/security-payments/secret/secretName",
        ),
        secret(
            "pipeline/notifications/secretRef/name",
            "spec/template/spec/volumes/security-notifications/secret/secretName",
        ),
    ];
    passages.chain(own).collect()
}

/// What the configuration says as the service does.
fn configuration() -> Vec<Change> {
    let same = |(place, value): (&str, Value)| set(SHOP, place, value, place);
    let fields = [
        ("gateway/strategy", json!("RoundRobin")),
        ("gateway/trustedProxies", json!(["192.0.2.0/24"])),
        ("gateway/healthCheck/interval", json!("6s")),
        ("gateway/healthCheck/timeout", json!("2s")),
        ("ingest/batchFlushInterval", json!("2s")),
        ("ingest/batchSize", json!(1_001)),
        ("ingest/queueSize", json!(50_001)),
        ("ingest/workers", json!(4)),
        ("ingest/unknownProducts", json!("Reject")),
        ("audit/retention", json!("49h")),
        ("limits/memory", json!("1Gi")),
        ("limits/cleanupThreshold", json!("0.7")),
        ("limits/connectionTimeout", json!("31s")),
        ("observability/logLevel", json!("debug")),
        ("pipeline/breaker/threshold", json!(6)),
        ("pipeline/breaker/timeout", json!("2m")),
        ("pipeline/notifications/webhookUrl", json!("http://hooks.example/other")),
        ("pipeline/payments/http/url", json!("http://pay.example/other")),
        ("pipeline/payments/simulator/declinePercent", json!(1)),
        ("pipeline/payments/simulator/duplicatePercent", json!(1)),
        ("pipeline/payments/simulator/failurePercent", json!(1)),
        ("pipeline/payments/simulator/latency", json!("1ms")),
        ("pipeline/payments/simulator/timeoutPercent", json!(1)),
        ("pipeline/payments/timeout", json!("6s")),
        ("pipeline/retry/initialDelay", json!("101ms")),
        ("pipeline/retry/maxAttempts", json!(4)),
        ("pipeline/retry/maxDelay", json!("31s")),
        ("pipeline/workers/inventory", json!(3)),
        ("pipeline/workers/notifications", json!(2)),
        ("pipeline/workers/orders", json!(4)),
        ("pipeline/workers/payments", json!(3)),
        ("webSocket/maxConnections", json!(10_001)),
        ("webSocket/pingInterval", json!("21s")),
        ("webSocket/queueSize", json!(1_001)),
        ("security/rateLimit/burst", json!(201)),
        ("security/rateLimit/requestsPerSecond", json!(101)),
    ];
    fields.into_iter().map(same).collect()
}

fn security() -> Vec<Change> {
    let issuer = |field: &str, value, at| {
        of_child(SHOP, &format!("security/tls/issuerRef/{field}"), value, "certificates/shop-tls", at)
    };
    vec![
        set(SHOP, "security/cors/allowOrigins", json!(["https://b.example"]), "security/corsAllowOrigins"),
        issuer("name", json!("another"), "spec/issuerRef/name"),
        issuer("kind", json!("ClusterIssuer"), "spec/issuerRef/kind"),
    ]
}

/// Values that cannot be: names of nothing, and what one field must not be because of another.
fn wrong() -> Vec<Change> {
    let users = "flyweightpools/users";
    let (stores, products) = ("flyweightpools/stores", "flyweightpools/products");
    let held = |resource, place: &str, value, told| {
        change(resource, place, value, Held("InvalidConfiguration", told))
    };
    let nowhere = |resource, place: &str, told| held(resource, place, json!("nowhere"), told);
    let missing = |place: &str, told| change(SHOP, place, json!("nowhere"), Held("SecretMissing", told));
    vec![
        nowhere(
            "cachetiers/shared",
            "redis/backendRef/name",
            "CacheTier/shared spec.redis.backendRef.name: ",
        ),
        nowhere(users, "tierRefs/hot/name", "FlyweightPool/users spec.tierRefs[0].name: "),
        nowhere(
            stores,
            "source/mysql/backendRef/name",
            "FlyweightPool/stores spec.source.mysql.backendRef.name: ",
        ),
        nowhere(
            "flyweightpools/reviews",
            "source/mongodb/backendRef/name",
            "FlyweightPool/reviews spec.source.mongodb.backendRef.name: ",
        ),
        nowhere(SHOP, "poolRefs/reviews/name", "FlyweightService/shop spec.poolRefs[3].name: "),
        nowhere(
            SHOP,
            "replicaGroups/main/poolRefs/products/name",
            "FlyweightService/shop spec.replicaGroups[1].poolRefs[1].name: ",
        ),
        nowhere(products, "fields/description/name", "FlyweightPool/products spec.fields[0].name: "),
        held(
            products,
            "fields/description/type",
            json!("String"),
            "FlyweightPool/products spec.fields[0].type: ",
        ),
        held(
            products,
            "fields/description/required",
            json!(true),
            "FlyweightPool/products spec.fields[0].required: ",
        ),
        held(
            products,
            "fields/description/json",
            json!("String"),
            "FlyweightPool/products spec.fields[0].json: ",
        ),
        held(stores, "fields/code/encrypt", json!(true), "FlyweightPool/stores spec.fields[0].encrypt: "),
        held("cachetiers/hot", "write", json!("WriteBehind"), "FlyweightPool/users spec.tierRefs[0].name: "),
        held("cachetiers/hot", "memory/maxBytes", json!("1Ki"), "CacheTier/hot spec.memory.maxBytes: "),
        missing("backends/mysql/mysql/secretRef/name", "\"nowhere\" (spec.backends[name=mysql].secretRef)"),
        missing("security/jwt/secretRef/name", "\"nowhere\" (spec.security.jwt.secretRef)"),
        change(stores, "fields/city/role", json!("Intrinsic"), Refused("an encrypted field is never shared")),
        change(
            SHOP,
            "replicas",
            json!(1),
            Refused("replicas must be 0, or at least 1 for each replica group"),
        ),
        change(SHOP, "autoscaling/minReplicas", json!(9), Refused("minReplicas must not exceed maxReplicas")),
        change(SHOP, "egressPorts", json!([0]), Refused("should be greater than or equal to 1")),
    ]
}
