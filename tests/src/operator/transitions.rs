//! Random valid and invalid changes: after each, the world is as the last sound resources say, and the status
//! says the truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crds::{
    fault::Fault,
    resolve::{Named, replicas_of, resolve},
    settings::names::Names,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    Proof,
    api::folder,
    scenario::{Stage, difference},
    shop,
};

/// What the project promises.
const TRUE_WITHIN: Duration = Duration::from_secs(30);
const COMPONENT: &str = "app.kubernetes.io/component";
const CHANGES: usize = 40;
const CHANGES_SOAK: usize = 200;

/// The resources as their author last applied them.
struct Shop {
    namespace: String,
    service: Value,
    users: Value,
    products: Value,
    tier: Value,
}

/// Changes resources at random.
pub async fn run(proof: &Proof) {
    proof.step(&format!("Random changes, valid and invalid (seed {})", proof.seed));
    let stage = Stage::new(proof, "random").await;
    shop::make(&proof.api, &stage.namespace).await;
    stage.quiet().await;
    let mut random = StdRng::seed_from_u64(proof.seed);
    let changes = if proof.soak { CHANGES_SOAK } else { CHANGES };
    let (mut refused, mut held, mut slowest) = (0, 0, Duration::ZERO);
    let (mut good, mut undo) = (Value::Null, Vec::new());
    truth(&stage, &Shop::read(&stage).await.looks(), &mut good, "as it was made").await;
    for number in 0..changes {
        let shop = Shop::read(&stage).await;
        // Broken changes are mostly taken back, the last one first, so that sound ones have their turn;
        // sometimes faults pile up.
        let back = if random.random_bool(0.8) { undo.pop() } else { None };
        let is_new = back.is_none();
        let (plural, name, spec, what) = back.unwrap_or_else(|| shop.change(&mut random));
        let former = shop.spec(plural, name);
        let path = format!("{}/{name}", folder(&stage.namespace, plural));
        let what = format!("change {number} ({what})");
        if proof.api.replace_spec(&path, &spec).await.is_err() {
            refused += 1;
            continue;
        }
        let start = Instant::now();
        let verdict = Shop::read(&stage).await.looks();
        if verdict.is_ok() {
            undo.clear();
        } else {
            held += 1;
            if is_new {
                undo.push((plural, name, former, "taken back".to_owned()));
            }
        }
        truth(&stage, &verdict, &mut good, &what).await;
        slowest = slowest.max(start.elapsed());
    }
    for (plural, name, spec) in [
        ("cachetiers", "hot", shop::tier()),
        ("flyweightpools", "users", shop::pool("User")),
        ("flyweightpools", "products", shop::pool("Product")),
        ("flyweightservices", "shop", shop::service()),
    ] {
        let path = format!("{}/{name}", folder(&stage.namespace, plural));
        proof
            .api
            .replace_spec(&path, &spec)
            .await
            .unwrap_or_else(|refusal| panic!("{plural} back: {refusal}"));
    }
    let verdict = Shop::read(&stage).await.looks();
    truth(&stage, &verdict, &mut good, "everything back").await;
    assert!((held + refused) * 3 < changes * 2, "too few sound changes to show anything: {held} held back");
    proof.holds(&format!(
        "{changes} changes: {refused} refused at once, {held} held back; each told truly within {:.1} s",
        slowest.as_secs_f64()
    ));
    stage.end().await;
}

/// Waits until the cluster is as the resources say, or, where they have faults, as it last was without.
async fn truth(stage: &Stage, verdict: &Result<Value, Vec<Fault>>, good: &mut Value, what: &str) {
    let start = Instant::now();
    loop {
        let service = stage.service().await;
        let found = looks(stage, &service).await;
        let mut expected = verdict.as_ref().unwrap_or(good).clone();
        if let Err(faults) = verdict {
            let told = shop::condition(&service, "Ready").2;
            let missing =
                faults.iter().map(ToString::to_string).filter(|fault| !told.contains(fault.as_str()));
            expected["invalid"] = true.into();
            expected["untold"] = missing.collect();
        }
        if expected == found {
            if verdict.is_ok() {
                *good = found;
            }
            return;
        }
        assert!(
            start.elapsed() < TRUE_WITHIN,
            "{what}: not true within {TRUE_WITHIN:?}:\n{}",
            difference("", &expected, &found).join("\n")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What runs, and what the status says of it.
async fn looks(stage: &Stage, service: &Value) -> Value {
    let children = shop::children(&stage.proof.api, &stage.namespace).await;
    let of = |plural: &'static str| {
        let own = children.iter().filter(move |one| one["plural"] == plural);
        own.map(|one| (one["metadata"]["name"].as_str().unwrap_or_default().to_owned(), one))
    };
    let deployments: BTreeMap<_, _> = of("deployments").collect();
    let image = |one: &Value| one["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let groups =
        deployments.values().filter(|one| !one["metadata"]["labels"]["flyweight.dev/group"].is_null());
    let map = of("configmaps").find(|(name, _)| name == "shop-settings");
    let settings = map.and_then(|(_, map)| serde_json::from_str(map["data"]["settings.json"].as_str()?).ok());
    let front = of("services").find(|(name, _)| name == "shop");
    let reached_from = |policy: &Value| {
        policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"][COMPONENT].clone()
    };
    json!({
        "settings": settings.unwrap_or(Value::Null),
        "replicas": groups.filter_map(|one| one["spec"]["replicas"].as_u64()).sum::<u64>(),
        "images": deployments.iter().map(|(name, one)| (name.clone(), image(one))).collect::<Map<_, _>>(),
        "gateway": deployments.get("shop-gateway").map(|one| &one["spec"]["replicas"]),
        "front": front.map(|(_, one)| &one["spec"]["selector"][COMPONENT]),
        "policies": of("networkpolicies").map(|(name, one)| (name, reached_from(one))).collect::<Map<_, _>>(),
        "budgets": of("poddisruptionbudgets").map(|(name, _)| name).collect::<Vec<_>>(),
        "invalid": shop::condition(service, "Ready").1 == "InvalidConfiguration",
        "untold": [],
        "seen": service["status"]["observedGeneration"] == service["metadata"]["generation"],
    })
}

impl Shop {
    async fn read(stage: &Stage) -> Self {
        let of = async |plural: &str, name: &str| {
            stage.proof.api.get(&format!("{}/{name}", folder(&stage.namespace, plural))).await["spec"].clone()
        };
        Self {
            namespace: stage.namespace.clone(),
            service: of("flyweightservices", "shop").await,
            users: of("flyweightpools", "users").await,
            products: of("flyweightpools", "products").await,
            tier: of("cachetiers", "hot").await,
        }
    }

    fn spec(&self, plural: &str, name: &str) -> Value {
        match (plural, name) {
            ("cachetiers", _) => &self.tier,
            ("flyweightservices", _) => &self.service,
            (_, "users") => &self.users,
            _ => &self.products,
        }
        .clone()
    }

    /// What these resources lead to.
    fn looks(&self) -> Result<Value, Vec<Fault>> {
        let service = Named { name: "shop".to_owned(), spec: typed(&self.service) };
        let pool = |name: &str, spec: &Value| Named { name: name.to_owned(), spec: typed(spec) };
        let pools = [pool("products", &self.products), pool("users", &self.users)];
        let tiers = [Named { name: "hot".to_owned(), spec: typed(&self.tier) }];
        let names = Names::Of { namespace: self.namespace.clone(), service: service.name.clone() };
        let settings = resolve(&service, &pools, &tiers)?.named(&names);
        let gateway = service.spec.gateway.as_ref();
        let deployments = ["shop-main"].into_iter().chain(gateway.map(|_| "shop-gateway"));
        let images: Map<_, _> =
            deployments.clone().map(|name| (name.to_owned(), json!(service.spec.image))).collect();
        let front = if gateway.is_some() { "gateway" } else { "dataplane" };
        let policies = match (service.spec.network_policy, gateway) {
            (false, _) => json!({}),
            (true, None) => json!({ "shop": null }),
            // Only the gateway reaches the pods, and everybody the gateway.
            (true, Some(_)) => json!({ "shop": "gateway", "shop-gateway": null }),
        };
        Ok(json!({
            "settings": settings,
            "replicas": replicas_of(&service.spec).values().sum::<u32>(),
            "images": images,
            "gateway": gateway.map(|gateway| gateway.replicas),
            "front": front,
            "policies": policies,
            "budgets": deployments.collect::<BTreeSet<_>>(),
            "invalid": false,
            "untold": [],
            "seen": true,
        }))
    }

    /// One resource with one change.
    fn change(&self, random: &mut StdRng) -> (&'static str, &'static str, Value, String) {
        let number = random.random_range(1..100_u32);
        let mut tier = self.tier.clone();
        let mut service = self.service.clone();
        let (pool_name, mut pool) =
            if random.random() { ("users", self.users.clone()) } else { ("products", self.products.clone()) };
        let choice = *[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].choose(random).unwrap_or(&0);
        let what = match choice {
            0 => set(&mut tier, "ttl", json!(format!("{number}s"))),
            1 => set(&mut tier, "jitter", json!(number)),
            2 => set(&mut tier, "ttl", json!("soon")),
            3 => set(&mut tier, "write", json!(if number % 2 == 0 { "CacheAside" } else { "WriteThrough" })),
            4 => set(&mut service, "replicas", json!(number % 8)),
            5 => set(&mut service, "image", json!(format!("flyweight/dataplane:{number}"))),
            6 => set(&mut service, "networkPolicy", json!(number % 2 == 0)),
            7 => set(&mut service, "poolRefs", json!([{ "name": "users" }, { "name": "nowhere" }])),
            8 | 9 => set(&mut service, "poolRefs", json!([{ "name": "users" }, { "name": "products" }])),
            10 if number % 3 == 0 => set(&mut service, "gateway", Value::Null),
            10 => set(&mut service, "gateway", json!({ "replicas": number % 3 })),
            11 => set(&mut pool, "tierRefs", json!([{ "name": "cold" }])),
            12 => set(&mut pool, "tierRefs", json!([{ "name": "hot" }])),
            13 => set(&mut pool, "capacity", json!(number)),
            _ => set(&mut pool, "fields", json!([{ "name": "no_such_field" }])),
        };
        match choice {
            0..=3 => ("cachetiers", "hot", tier, what),
            4..=10 => ("flyweightservices", "shop", service, what),
            12.. => {
                // Whatever was wrong with its fields is mended with the next sound change.
                if choice != 14 {
                    set(&mut pool, "fields", json!([]));
                }
                ("flyweightpools", pool_name, pool, what)
            }
            _ => ("flyweightpools", pool_name, pool, what),
        }
    }
}

fn set(spec: &mut Value, field: &str, value: Value) -> String {
    let what = format!("{field} = {value}");
    spec[field] = value;
    what
}

fn typed<S: DeserializeOwned>(spec: &Value) -> S {
    serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{spec}: {error}"))
}
