//! `resolve`: the example resolves, and each change that breaks it is reported with its path and nothing
//! else.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use crds::{
    pool::Entity,
    resolve::{Named, replicas_of, resolve},
    service::ServiceSpec,
    settings::{Plaintext, Settings, SourceSettings, TierKind},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("example.yaml");

/// The example's documents, to be changed before they are resolved.
struct Resources(Vec<Value>);

impl Resources {
    fn example() -> Self {
        Self(
            serde_yaml_ng::Deserializer::from_str(EXAMPLE)
                .map(|document| Value::deserialize(document).unwrap())
                .collect(),
        )
    }

    /// The value at `<kind>/<name> <JSON pointer>`, made null where there is none yet.
    fn at(&mut self, resource: &str, pointer: &str) -> &mut Value {
        let (kind, name) = resource.split_once('/').unwrap();
        let of = |doc: &&mut Value| doc["kind"] == kind && doc["metadata"]["name"] == name;
        let document = self.0.iter_mut().find(of).unwrap();
        pointer.split('/').fold(document, |value, key| match key.parse::<usize>() {
            Ok(index) => &mut value[index],
            Err(_) => &mut value[key],
        })
    }

    fn set(mut self, resource: &str, pointer: &str, value: Value) -> Self {
        *self.at(resource, pointer) = value;
        self
    }

    fn push(mut self, resource: &str, pointer: &str, value: Value) -> Self {
        self.at(resource, pointer).as_array_mut().unwrap().push(value);
        self
    }

    fn without(mut self, resource: &str, pointer: &str, key: &str) -> Self {
        self.at(resource, pointer).as_object_mut().unwrap().remove(key).unwrap();
        self
    }

    /// Another pool, which the service serves too.
    fn pool(mut self, name: &str, spec: Value) -> Self {
        self.0.push(json!({ "kind": "FlyweightPool", "metadata": { "name": name }, "spec": spec }));
        self.push(SHOP, "spec/poolRefs", json!({ "name": name }))
    }

    fn tier(mut self, name: &str, spec: Value) -> Self {
        self.0.push(json!({ "kind": "CacheTier", "metadata": { "name": name }, "spec": spec }));
        self
    }

    fn all<S: DeserializeOwned>(&self, kind: &str) -> Vec<Named<S>> {
        let of_kind = self.0.iter().filter(|document| document["kind"] == kind);
        of_kind
            .map(|document| Named {
                name: document["metadata"]["name"].as_str().unwrap().to_owned(),
                spec: serde_json::from_value(document["spec"].clone()).unwrap(),
            })
            .collect()
    }

    fn service(&self) -> Named<ServiceSpec> {
        self.all("FlyweightService").remove(0)
    }

    fn resolve(&self) -> Result<Settings, Vec<String>> {
        let resolved = resolve(&self.service(), &self.all("FlyweightPool"), &self.all("CacheTier"));
        resolved.map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.resolve().unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
    }

    #[track_caller]
    fn faults(&self, expected: &[&str]) {
        assert_eq!(self.resolve().expect_err("no fault"), expected);
    }
}

const SHOP: &str = "FlyweightService/shop";
const PRODUCTS: &str = "FlyweightPool/products";
const STORES: &str = "FlyweightPool/stores";
const HOT: &str = "CacheTier/hot";
const SHARED: &str = "CacheTier/shared";

#[test]
fn the_example_resolves() {
    let settings = Resources::example().settings();
    assert_eq!(settings.service, "shop");
    let names: Vec<&str> = settings.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["products", "stores"]);
    let [products, stores] = settings.pools.as_slice() else { panic!("two pools") };
    assert_eq!(products.entity, Entity::Product);
    assert_eq!(products.source, source("mongodb", "products", "id", Some("version")));
    assert_eq!(stores.source, source("mysql", "stores", "code", Some("version")));
    assert!(matches!(products.tiers[0].kind, TierKind::Memory { .. }));
    assert!(
        matches!(&products.tiers[1].kind, TierKind::Redis { backend, key_prefix } if backend == "redis" && key_prefix == "shop:")
    );
    assert_eq!(settings.groups[0].pools, ["products", "stores"]);
    assert_eq!(settings.groups[1].pools, ["products"]);
    assert_eq!(settings.security.jwt_secret.as_deref(), Some("shop-jwt"));
    assert_eq!(settings.security.encryption_secret.as_deref(), Some("shop-encryption"));
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings, "settings survive the ConfigMap");
}

#[test]
fn built_in_entities_find_their_home() {
    let all = ["User", "Payment", "Order", "NotificationTemplate", "Configuration"];
    let resources = all.iter().fold(Resources::example(), |resources, entity| {
        resources.pool(&entity.to_lowercase(), json!({ "entity": entity }))
    });
    let homes: Vec<SourceSettings> =
        resources.settings().pools.into_iter().skip(2).map(|pool| pool.source).collect();
    let expected = [
        ("mysql", "users"),
        ("mysql", "payments"),
        ("mysql", "orders"),
        ("mongodb", "notification_templates"),
        ("mongodb", "configurations"),
    ];
    assert_eq!(
        homes,
        expected.map(|(backend, collection)| source(backend, collection, "id", Some("version")))
    );
    let moved = json!({ "entity": "User", "source": { "mongodb": { "backendRef": { "name": "mongodb" }, "collection": "people" } } });
    let settings = Resources::example().pool("users", moved).settings();
    assert_eq!(settings.pools[2].source, source("mongodb", "people", "id", Some("version")));
}

/// Replicas tell each other through the store then.
#[test]
fn one_store_is_enough() {
    let mut resources = Resources::example();
    let backends = resources.at(SHOP, "spec/backends").as_array_mut().unwrap();
    backends.retain(|backend| backend["name"] == "mysql");
    let alone = json!({ "mysql": { "backendRef": { "name": "mysql" } } });
    let resources = resources.set("FlyweightPool/products", "spec/source", alone).set(
        "FlyweightPool/products",
        "spec/tierRefs",
        json!([{ "name": "hot" }]),
    );
    let settings = resources.settings();
    assert_eq!(settings.backends.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["mysql"]);
    assert_eq!(settings.pools[0].source, source("mysql", "products", "id", Some("version")));
}

#[test]
fn a_secret_for_encryption_is_named_only_where_it_is_used() {
    let plain = Resources::example().set(STORES, "spec/fields/2/encrypt", json!(false));
    assert_eq!(plain.settings().security.encryption_secret, None);
    let own = Resources::example().set(
        SHOP,
        "spec/security/encryption",
        json!({ "secretRef": { "name": "mine" } }),
    );
    assert_eq!(own.settings().security.encryption_secret.as_deref(), Some("mine"));
}

#[test]
fn a_table_without_a_version_is_read_only() {
    let settings = Resources::example().without(STORES, "spec/source/mysql", "version").settings();
    assert_eq!(settings.pools[1].source.version, None);
}

#[test]
fn references_must_lead_somewhere() {
    Resources::example().set(PRODUCTS, "spec/tierRefs/0/name", json!("hott")).faults(&[
        "FlyweightPool/products spec.tierRefs[0].name: no CacheTier \"hott\"; there are: hot, shared",
    ]);
    Resources::example().push(SHOP, "spec/poolRefs", json!({ "name": "users" })).faults(&[
        "FlyweightService/shop spec.poolRefs[2].name: no FlyweightPool \"users\"; there are: products, stores",
    ]);
    Resources::example().set(SHARED, "spec/redis/backendRef/name", json!("mysql")).faults(&[
        "CacheTier/shared spec.redis.backendRef.name: backend \"mysql\" of FlyweightService \"shop\" is mysql, not redis",
    ]);
    Resources::example().set(STORES, "spec/source/mysql/backendRef/name", json!("db")).faults(&[
        "FlyweightPool/stores spec.source.mysql.backendRef.name: no mysql backend in FlyweightService \"shop\" of the name \"db\"; there is: mysql",
    ]);
    Resources::example().set(SHOP, "spec/replicaGroups/1/poolRefs/0/name", json!("product")).faults(&[
        "FlyweightService/shop spec.replicaGroups[1].poolRefs[0].name: no pool of this service \"product\"; there are: products, stores",
    ]);
}

#[test]
fn names_are_unique() {
    Resources::example()
        .push(PRODUCTS, "spec/tierRefs", json!({ "name": "hot" }))
        .faults(&["FlyweightPool/products spec.tierRefs[2].name: \"hot\" is named twice"]);
    Resources::example()
        .push(SHOP, "spec/poolRefs", json!({ "name": "stores" }))
        .faults(&["FlyweightService/shop spec.poolRefs[2].name: \"stores\" is named twice"]);
    Resources::example()
        .set(SHOP, "spec/replicaGroups/1/name", json!("main"))
        .faults(&["FlyweightService/shop spec.replicaGroups[1].name: \"main\" is named twice"]);
    let again = json!({ "name": "redis", "redis": { "secretRef": { "name": "other" } } });
    Resources::example()
        .push(SHOP, "spec/backends", again)
        .faults(&["FlyweightService/shop spec.backends[4].name: \"redis\" is named twice"]);
    Resources::example()
        .push(STORES, "spec/fields", json!({ "name": "phone", "type": "String" }))
        .faults(&["FlyweightPool/stores spec.fields[3].name: \"phone\" is named twice"]);
}

#[test]
fn one_pool_serves_an_entity_or_a_table() {
    Resources::example().pool("more", json!({ "entity": "Product" })).faults(&[
        "FlyweightService/shop spec.poolRefs[2].name: \"products\" and \"more\" both serve Product: a service has one pool for it",
    ]);
    let mut twin = Resources::example().at(STORES, "spec").clone();
    Resources::example().pool("shops", twin.clone()).faults(&[
        "FlyweightService/shop spec.poolRefs[2].name: \"stores\" and \"shops\" both serve stores of backend mysql",
    ]);
    twin["source"]["mysql"]["table"] = json!("shops");
    Resources::example().pool("shops", twin).settings();
}

#[test]
fn a_custom_pool_declares_itself() {
    Resources::example().without(STORES, "spec", "source").faults(&[
        "FlyweightPool/stores spec.source: a Custom pool declares its source: name one of mysql and mongodb",
    ]);
    Resources::example()
        .without(STORES, "spec", "fields")
        .faults(&["FlyweightPool/stores spec.fields: a Custom pool declares its fields"]);
    Resources::example()
        .without(STORES, "spec/fields/1", "type")
        .faults(&["FlyweightPool/stores spec.fields[1].type: every field of a Custom pool has a type"]);
    Resources::example()
        .without(STORES, "spec/source/mysql", "key")
        .without(STORES, "spec/source/mysql", "table")
        .faults(&[
            "FlyweightPool/stores spec.source.mysql.key: a Custom pool names the column that identifies a row",
            "FlyweightPool/stores spec.source.mysql.table: a Custom pool names its table",
        ]);
    Resources::example()
        .set(STORES, "spec/source/mongodb", json!({ "backendRef": { "name": "mongodb" } }))
        .faults(&["FlyweightPool/stores spec.source: name exactly one of mysql and mongodb"]);
    Resources::example().push(STORES, "spec/fields", json!({ "name": "created_at", "type": "Timestamp" })).faults(&[
        "FlyweightPool/stores spec.fields[3].name: \"created_at\" is kept for every record by Flyweight itself: leave it out",
    ]);
    Resources::example()
        .push(STORES, "spec/fields", json!({ "name": "version", "type": "Integer" }))
        .settings();
}

#[test]
fn only_an_integer_says_how_it_goes_out() {
    let field = |name: &str, kind: &str, json: &str| json!({ "name": name, "type": kind, "json": json });
    let push = |field: Value| Resources::example().push(STORES, "spec/fields", field);
    push(field("serial", "Integer", "String")).settings();
    push(field("serial", "Integer", "Number")).settings();
    push(field("amount", "Decimal", "String")).settings();
    push(field("amount", "Decimal", "Number")).faults(&[
        "FlyweightPool/stores spec.fields[3].json: a Decimal always goes out as a String: leave it out",
    ]);
    push(field("name", "String", "String")).faults(&[
        "FlyweightPool/stores spec.fields[3].json: is for fields of the type Integer: leave it out",
    ]);
    push(field("version", "Integer", "String")).faults(&[
        "FlyweightPool/stores spec.fields[3].json: the key is always a String and the version a Number: leave it out",
    ]);
    Resources::example().set(PRODUCTS, "spec/fields/0/json", json!("String")).faults(&[
        "FlyweightPool/products spec.fields[0].json: Product knows how its fields go out: leave it out",
    ]);
}

#[test]
fn encryption_and_keys_exclude_each_other() {
    Resources::example().set(STORES, "spec/fields/2/role", json!("Intrinsic")).faults(&[
        "FlyweightPool/stores spec.fields[2].role: an encrypted field is never shared: it cannot be Intrinsic",
    ]);
    Resources::example()
        .set(STORES, "spec/fields/0/encrypt", json!(true))
        .faults(&["FlyweightPool/stores spec.fields[0].encrypt: the key cannot be encrypted"]);
    Resources::example()
        .set(STORES, "spec/fields/0/type", json!("Json"))
        .faults(&["FlyweightPool/stores spec.fields[0].type: the key is String or Integer"]);
}

#[test]
fn a_built_in_entity_knows_its_fields() {
    Resources::example()
        .set(PRODUCTS, "spec/fields/0/name", json!("colour"))
        .set(PRODUCTS, "spec/fields/1/type", json!("Decimal"))
        .faults(&[
            "FlyweightPool/products spec.fields[0].name: Product has no field \"colour\"; there are: name, description, price, currency, category, brand, stock, attributes",
            "FlyweightPool/products spec.fields[1].type: Product knows the types of its fields: leave it out",
        ]);
    Resources::example()
        .set(PRODUCTS, "spec/source/mongodb/key", json!("sku"))
        .faults(&["FlyweightPool/products spec.source.mongodb.key: is \"id\" for Product: leave it out"]);
}

#[test]
fn tiers_are_sound_and_in_order() {
    Resources::example()
        .set(HOT, "spec/ttl", json!("0s"))
        .set(HOT, "spec/jitter", json!(51))
        .set(HOT, "spec/memory/maxBytes", json!("1023Ki"))
        .faults(&[
            "CacheTier/hot spec.jitter: must be at most 50 percent",
            "CacheTier/hot spec.memory.maxBytes: must be at least 1Mi",
            "CacheTier/hot spec.ttl: must be more than 0s",
        ]);
    let why = "stock is held by guarded changes in the store: use CacheAside or WriteThrough";
    Resources::example().set(HOT, "spec/write", json!("WriteBehind")).faults(&[&format!(
        "FlyweightPool/products spec.tierRefs[0].name: the tier \"hot\" is WriteBehind, and {why}"
    )]);
    Resources::example().set(PRODUCTS, "spec/tierRefs", json!([{ "name": "shared" }, { "name": "hot" }])).faults(&[
        "FlyweightPool/products spec.tierRefs[1].name: the memory tier \"hot\" comes after the Redis tier \"shared\": name the fastest first",
    ]);
    Resources::example()
        .without(HOT, "spec", "memory")
        .faults(&["CacheTier/hot spec: name exactly one of memory and redis"]);
}

#[test]
fn what_the_service_does_not_reach_is_not_its_fault() {
    let unused = json!({ "redis": { "backendRef": { "name": "nowhere" } }, "ttl": "0s" });
    Resources::example().tier("unused", unused).settings();
}

#[test]
fn somebody_serves_every_pool() {
    let narrow =
        Resources::example().set(SHOP, "spec/replicaGroups/0/poolRefs", json!([{ "name": "products" }]));
    narrow.faults(&["FlyweightService/shop spec.poolRefs[1].name: no replica group serves \"stores\""]);
    Resources::example()
        .without(SHOP, "spec", "gateway")
        .set(SHOP, "spec/replicaGroups/0/poolRefs", json!([{ "name": "stores" }]))
        .faults(&[
            "FlyweightService/shop spec.replicaGroups: without a gateway at least one group serves all pools: leave its poolRefs out, or declare a gateway",
        ]);
    Resources::example().without(SHOP, "spec", "gateway").settings();
}

#[test]
fn a_service_keeps_its_bounds() {
    for (pointer, value, fault) in [
        (
            "replicaGroups/1/name",
            json!("gateway"),
            "spec.replicaGroups[1].name: \"gateway\" is kept for the service's own parts: choose another name",
        ),
        ("replicas", json!(1), "spec.replicas: must be 0, or at least 1 for each replica group: there are 2"),
        ("autoscaling/minReplicas", json!(11), "spec.autoscaling: minReplicas must not exceed maxReplicas"),
        (
            "autoscaling/minReplicas",
            json!(1),
            "spec.autoscaling.minReplicas: must be at least 1 for each replica group: there are 2",
        ),
        (
            "pipeline/retry/initialDelay",
            json!("1m"),
            "spec.pipeline.retry: initialDelay 1m must not exceed maxDelay 30s",
        ),
        ("egressPorts", json!([]), "spec.egressPorts: name at least one port, or leave it out"),
        ("egressPorts", json!([3306, 0]), "spec.egressPorts[1]: must be from 1 to 65535"),
        ("egressPorts", json!([3306, 3306]), "spec.egressPorts[1]: 3306 is named twice"),
        (
            "gateway/healthCheck/interval",
            json!("0s"),
            "spec.gateway.healthCheck.interval: must be more than 0s",
        ),
        ("limits/connectionTimeout", json!("0s"), "spec.limits.connectionTimeout: must be more than 0s"),
        (
            "replicaGroups/0/resources/requests/gpu",
            json!("1"),
            "spec.replicaGroups[0].resources.requests.gpu: is not one of cpu, memory, ephemeral-storage",
        ),
        (
            "replicaGroups/0/resources/requests/cpu",
            json!("1 core"),
            "spec.replicaGroups[0].resources.requests.cpu: \"1 core\" is not a quantity: write one as in 100m or 128Mi",
        ),
        (
            "replicaGroups/0/resources/requests/memory",
            json!("1Gi"),
            "spec.replicaGroups[0].resources.requests.memory: must not exceed the limit",
        ),
        (
            "security/cors/allowOrigins",
            json!(["shop.example.com"]),
            "spec.security.cors.allowOrigins[0]: must be * or a scheme and host without a path, as in https://shop.example.com",
        ),
        (
            "backends/2/mysql",
            json!({ "secretRef": { "name": "x" } }),
            "spec.backends[2]: name exactly one of mysql, mongodb, redis and kafka",
        ),
    ] {
        let resources = Resources::example().set(SHOP, &format!("spec/{pointer}"), value);
        let faults = resources.resolve().expect_err(pointer);
        assert!(faults.contains(&format!("FlyweightService/shop {fault}")), "{pointer}: {faults:#?}");
    }
    let second = json!({ "name": "kafka2", "kafka": { "secretRef": { "name": "k" } } });
    Resources::example()
        .push(SHOP, "spec/backends", second)
        .faults(&["FlyweightService/shop spec.backends[4].kafka: a service has at most one kafka backend"]);
    Resources::example()
        .set(SHOP, "metadata/name", json!("Shop.1"))
        .resolve()
        .expect_err("a name that no Service can have");
}

#[test]
fn limits_that_are_said_change_pods_only_where_they_must() {
    let plain = Resources::example().settings();
    let with = |limits| Resources::example().set(SHOP, "spec/limits", limits).settings();
    let told = json!({ "memory": "85%", "connectionTimeout": "2s" });
    assert_eq!(with(told).hash(), plain.hash(), "what holds anyway changes nothing");
    let hot = with(json!({ "memory": "1GB", "cleanupThreshold": "0.8" }));
    assert_ne!(hot.hash(), plain.hash());
    assert_eq!(hot.rolling_hash(), plain.rolling_hash());
    assert_ne!(with(json!({ "connectionTimeout": "30s" })).rolling_hash(), plain.rolling_hash());
}

#[test]
fn a_backend_says_whose_certificates_it_trusts_and_whether_its_password_may_be_readable() {
    let backends = Resources::example().settings().backends;
    let said = |index: usize| (backends[index].tls.is_some(), backends[index].plaintext);
    assert_eq!(said(0), (true, Plaintext::ProofOnly), "nothing is said of passwords");
    assert_eq!(said(1), (false, Plaintext::Refused));
    assert_eq!(said(2), (false, Plaintext::Allowed));
    assert_eq!(said(3), (true, Plaintext::Allowed));
    let written = serde_json::to_value(&backends[1]).unwrap();
    assert_eq!(written["plaintext"], "Refused", "what is left out means that it was not known: {written}");
}

#[test]
fn every_fault_is_reported_at_once_and_once() {
    Resources::example()
        .set(PRODUCTS, "spec/tierRefs/0/name", json!("hott"))
        .set(SHARED, "spec/ttl", json!("0s"))
        .set(STORES, "spec/tierRefs", json!([{ "name": "shared" }]))
        .set(STORES, "spec/source/mysql/backendRef/name", json!("db"))
        .set(SHOP, "spec/replicas", json!(1))
        .set(SHOP, "spec/poolRefs/0/name", json!("products"))
        .push(SHOP, "spec/poolRefs", json!({ "name": "users" }))
        .faults(&[
            "CacheTier/shared spec.ttl: must be more than 0s",
            "FlyweightPool/products spec.tierRefs[0].name: no CacheTier \"hott\"; there are: hot, shared",
            "FlyweightPool/stores spec.source.mysql.backendRef.name: no mysql backend in FlyweightService \"shop\" of the name \"db\"; there is: mysql",
            "FlyweightService/shop spec.poolRefs[2].name: no FlyweightPool \"users\"; there are: products, stores",
            "FlyweightService/shop spec.replicas: must be 0, or at least 1 for each replica group: there are 2",
        ]);
}

#[test]
fn pods_are_shared_out_over_the_groups() {
    let shares = |replicas: Value| {
        let spec = Resources::example().set(SHOP, "spec/replicas", replicas).service().spec;
        let shares = replicas_of(&spec);
        (shares["main"], shares["catalog"])
    };
    assert_eq!(shares(Value::Null), (2, 1));
    assert_eq!(shares(json!(0)), (0, 0));
    assert_eq!(shares(json!(2)), (1, 1));
    assert_eq!(shares(json!(7)), (5, 2));
}

fn source(backend: &str, collection: &str, key: &str, version: Option<&str>) -> SourceSettings {
    SourceSettings {
        backend: backend.to_owned(),
        collection: collection.to_owned(),
        key: key.to_owned(),
        version: version.map(str::to_owned),
    }
}
