//! The steps, in the order in which they are shown.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{Demo, changes, faults, load::Load, plugin};
use crate::{client::Api, wait};

/// How long the status may take to tell what is the case.
const STATUS: Duration = Duration::from_secs(30);

/// All steps.
pub async fn all(demo: &Demo) {
    let path = create_and_read(demo).await;
    live_feed(demo, &path).await;
    figures(demo, &path).await;
    plugin::all(demo).await;
    plugin::acts(demo).await;
    scale(demo).await;
    scale_by_load(demo, &path).await;
    hot_change(demo).await;
    killed_pod(demo, &path).await;
    changes::under_load(demo, &path).await;
    broken_resources(demo).await;
    missing_secret(demo).await;
    faults::are_named(demo).await;
    deleted_children(demo).await;
    steady_state(demo).await;
    everything_gone(demo).await;
}

/// A product is created through the Service; the second read says which tier served it.
async fn create_and_read(demo: &Demo) -> String {
    demo.step("Create a product through the Service, and read it twice");
    let created = demo
        .api
        .post("/api/v1/products", &json!({ "name": "Lamp", "price": "19.90", "category": "light" }))
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = created.header("location").to_owned();
    demo.show(&format!("POST /api/v1/products -> {} {path} ETag {}", created.status, created.header("etag")));
    let mut served = Vec::new();
    // Each of the pods has a memory of its own: after a few reads each has loaded the record once.
    for _ in 0..8 {
        let read = demo.api.get_with(&path, &[("flyweight-explain", "1")]).await;
        assert_eq!(read.status, 200, "{}", read.text);
        served.push(read.header("flyweight-explain").to_owned());
    }
    demo.show(&format!("GET {path} -> 200 Flyweight-Explain: {}", served[0]));
    let hot = served.last().cloned().unwrap_or_default();
    demo.show(&format!("GET {path} -> 200 Flyweight-Explain: {hot}"));
    assert!(hot.contains("tier=hot"), "{served:?}");
    demo.holds("the tier in memory serves it");
    let unchanged = demo.api.get_with(&path, &[("if-none-match", created.header("etag"))]).await;
    assert_eq!(unchanged.status, 304);
    let stale = demo
        .api
        .send(Method::PUT, &path, &[("if-match", "\"7\"")], &json!({ "name": "x", "price": 1 }))
        .await;
    assert_eq!(stale.status, 412, "{}", stale.text);
    demo.holds("304 for If-None-Match, 412 for a stale If-Match");
    path
}

/// A change arrives on a WebSocket.
async fn live_feed(demo: &Demo, path: &str) {
    demo.step("Watch the change arrive on a WebSocket");
    let url = format!("{}/api/v1/ws?topics=product", demo.api.base().replacen("http", "ws", 1));
    // 503 until the pod has joined the feed
    let joined = async || Some(connect_async(&url).await.ok()?.0);
    let mut socket = wait::until(&url, Duration::from_secs(30), joined).await;
    let start = Instant::now();
    let patched = demo.api.send(Method::PATCH, path, &[], &json!({ "price": "17.50" })).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    let key = path.rsplit('/').next().unwrap_or_default();
    let event = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                let event: Value = serde_json::from_str(&text).unwrap_or_default();
                if event["key"] == key && event["version"] == patched.json()["version"] {
                    return event;
                }
            }
        }
        panic!("the WebSocket ended")
    })
    .await
    .unwrap_or_else(|_| panic!("no event within 10 s"));
    assert_eq!(event["type"], "product_updated");
    demo.show(&format!("{} {} version {}", event["type"], event["key"], event["version"]));
    demo.holds(&format!("it arrived {} ms after the write", start.elapsed().as_millis()));
}

/// kubectl shows live figures.
async fn figures(demo: &Demo, path: &str) {
    demo.step("kubectl get fwp,ctier,fws shows live figures");
    wait::until("figures of the products", STATUS * 2, async || {
        // The write dropped the record from memory: reads bring it back.
        assert_eq!(demo.api.get(path).await.status, 200);
        let pool = demo.kubectl.json(&["fwp", "products"]);
        (pool["status"]["entities"].as_i64()? > 0 && pool["status"]["hitRatio"].is_string()).then_some(())
    })
    .await;
    demo.show(&demo.kubectl.call(&["get", "fwp,ctier,fws"]).unwrap_or_default());
    let service = demo.service();
    let (ready, reason, message) = Demo::condition(&service, "Ready");
    assert_eq!(ready, "True", "{reason}: {message}");
    demo.holds(service["status"]["configurationSummary"].as_str().unwrap_or_default());
}

/// kubectl scale adds pods and takes them away.
async fn scale(demo: &Demo) {
    demo.step("kubectl scale fws/shop --replicas=3, and back to 2");
    for replicas in [3, 2] {
        let start = Instant::now();
        demo.kubectl
            .call(&["scale", "fws/shop", &format!("--replicas={replicas}")])
            .unwrap_or_else(|error| panic!("{error}"));
        wait::until(&format!("{replicas} ready pods"), STATUS * 2, async || {
            let service = demo.service();
            let there = service["status"]["replicas"] == replicas && demo.pods().len() == replicas;
            (there && Demo::condition(&service, "Ready").0 == "True").then_some(())
        })
        .await;
        demo.holds(&format!("{replicas} pods ready after {} s", start.elapsed().as_secs()));
    }
}

/// Events that wait bring a pod; without the autoscaler it goes again.
async fn scale_by_load(demo: &Demo, path: &str) {
    demo.step("Autoscaling by the depth of the queue: events that wait bring a third pod");
    let patch = |spec: &Value| {
        let patch = json!({ "spec": spec }).to_string();
        demo.kubectl
            .call(&["patch", "fws/shop", "--type=merge", "-p", &patch])
            .unwrap_or_else(|error| panic!("{error}"));
    };
    let are_ready = |pods: usize| {
        let service = demo.service();
        let is_seen = service["status"]["observedGeneration"] == service["metadata"]["generation"];
        let is_calm =
            ["Ready", "Progressing"].map(|kind| Demo::condition(&service, kind).0) == ["True", "False"];
        (is_seen
            && is_calm
            && demo.pods().iter().filter(|pod| is_ready(pod)).count() == pods
            && demo.pods().len() == pods)
            .then_some(())
    };
    // a batch that is not full is applied after half a minute, and waits until then
    patch(&json!({
        "autoscaling": { "minReplicas": 2, "maxReplicas": 3, "targetQueueDepth": 10 }, "ingest": { "batchFlushInterval": "30s" },
    }));
    let product = path.rsplit('/').next().unwrap_or_default();
    let start = Instant::now();
    wait::until("a third pod", STATUS * 3, async || {
        let taken =
            demo.api.post("/api/v1/events", &json!({ "product_id": product, "price": 20, "stock": 5 })).await;
        assert_eq!(taken.status, 202, "{}", taken.text);
        are_ready(3)
    })
    .await;
    let autoscaler = demo.kubectl.call(&["get", "hpa/shop"]).unwrap_or_else(|error| panic!("{error}"));
    demo.show(&autoscaler);
    demo.holds(&format!("3 pods ready after {} s", start.elapsed().as_secs()));
    // An autoscaler that looks once more before it is gone would set its minimum over the new total.
    patch(&json!({ "autoscaling": null, "ingest": null }));
    wait::until("the autoscaler to be gone", STATUS, async || {
        demo.kubectl.items(&["hpa"]).is_empty().then_some(())
    })
    .await;
    patch(&json!({ "replicas": 2 }));
    wait::until("two pods again", STATUS * 2, async || are_ready(2)).await;
}

/// A tier's TTL changes in running pods.
async fn hot_change(demo: &Demo) {
    demo.step("Change a tier's TTL: applied without a restart");
    let uids = |demo: &Demo| -> BTreeSet<String> {
        demo.pods().iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect()
    };
    let before = uids(demo);
    let old = configurations(demo).await;
    let start = Instant::now();
    demo.kubectl
        .call(&["patch", "ctier", "hot", "--type=merge", "-p", r#"{"spec":{"ttl":"45s"}}"#])
        .unwrap_or_else(|error| panic!("{error}"));
    wait::until("the new TTL in every pod", Duration::from_secs(10), async || {
        let new = configurations(demo).await;
        (new.len() == 1 && new != old).then_some(())
    })
    .await;
    assert_eq!(uids(demo), before, "pods were replaced");
    demo.holds(&format!("live in every pod after {:.1} s, the same pods", start.elapsed().as_secs_f64()));
}

/// The configurations that the pods report.
async fn configurations(demo: &Demo) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for pod in demo.pods() {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let status = Api::at(&format!("http://{address}:9090")).get("/status").await.json();
        all.insert(status["configuration"].as_str().unwrap_or_default().to_owned());
    }
    all
}

/// A pod is deleted under load, then another is killed outright: no request fails.
async fn killed_pod(demo: &Demo, path: &str) {
    demo.step("Kill a pod under load: no failed request");
    let ways: [(&str, &[&str], usize); 2] = [
        ("deleted, under reads and writes", &["--wait=false"], 4),
        ("killed at once, under reads", &["--wait=false", "--grace-period=0", "--force"], 0),
    ];
    for (way, flags, writers) in ways {
        let load = Load::start(&demo.api, path, 4, writers);
        load.pass(300).await;
        let pods = demo.pods();
        let name = pods[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let args: Vec<&str> = ["delete", "pod", &name].iter().chain(flags).copied().collect();
        demo.kubectl.call(&args).unwrap_or_else(|error| panic!("{error}"));
        wait::until("another pod in its place", STATUS * 2, async || {
            let pods = demo.pods();
            let others = pods.iter().filter(|pod| pod["metadata"]["name"] != name.as_str());
            (others.filter(|pod| is_ready(pod)).count() == 2).then_some(())
        })
        .await;
        load.pass(300).await;
        let outcome = load.stop().await;
        assert!(
            outcome.failures.is_empty(),
            "{way}: {:#?}",
            &outcome.failures[..outcome.failures.len().min(5)]
        );
        for created in &outcome.created {
            assert_eq!(demo.api.get(created).await.status, 200, "{created} was acknowledged");
        }
        demo.holds(&format!(
            "{way}: {} requests, 0 failed; all {} acknowledged writes are there",
            outcome.answered,
            outcome.created.len()
        ));
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What CEL can see is refused at once; what only the whole shows becomes a condition, and the last good
/// configuration goes on.
async fn broken_resources(demo: &Demo) {
    demo.step("A broken resource is refused with a clear reason");
    let both = "apiVersion: flyweight.dev/v1alpha1\nkind: CacheTier\nmetadata: { name: both }\nspec: { memory: {}, redis: { backendRef: { name: redis } } }\n";
    let Err(refusal) = demo.kubectl.apply(both) else {
        panic!("a tier in memory and in Redis at once was taken")
    };
    demo.show(&refusal);
    assert!(refusal.contains("exactly one of memory and redis"), "{refusal}");
    demo.holds("what the schema can see is refused by the API server");

    let configuration = configurations(demo).await;
    let refer =
        |name: &str| format!(r#"[{{"op":"replace","path":"/spec/tierRefs/0/name","value":"{name}"}}]"#);
    demo.kubectl
        .call(&["patch", "fwp", "products", "--type=json", "-p", &refer("nowhere")])
        .unwrap_or_else(|error| panic!("{error}"));
    let (_, reason, message) = wait::until("the condition", STATUS, async || {
        let service = demo.service();
        let held_back = Demo::condition(&service, "ConfigurationApplied").0 == "False";
        let ready = Demo::condition(&service, "Ready");
        (held_back && ready.0 == "False").then_some(ready)
    })
    .await;
    demo.show(&format!("Ready=False {reason}: {message}"));
    assert!(
        reason == "InvalidConfiguration" && message.contains("spec.tierRefs[0].name"),
        "{reason}: {message}"
    );
    assert_eq!(configurations(demo).await, configuration);
    assert_eq!(demo.api.get("/api/v1/products?limit=1").await.status, 200);
    demo.holds("what the whole shows is a condition with the field's path, and the last good configuration serves on");

    demo.kubectl
        .call(&["patch", "fwp", "products", "--type=json", "-p", &refer("hot")])
        .unwrap_or_else(|error| panic!("{error}"));
    wait::until("it to heal", STATUS, async || {
        (Demo::condition(&demo.service(), "Ready").0 == "True").then_some(())
    })
    .await;
    demo.holds("mended, it heals");
}

/// A Secret that is gone is a condition with a reason; the pods that run go on, and it heals when the Secret
/// is back.
async fn missing_secret(demo: &Demo) {
    demo.step("Lose a Secret: said in the status, healed when it is back");
    let mut secret = demo.kubectl.json(&["secret", "shop-redis"]);
    demo.kubectl.call(&["delete", "secret", "shop-redis"]).unwrap_or_else(|error| panic!("{error}"));
    let message = wait::until("the condition", STATUS, async || {
        let (ready, reason, message) = Demo::condition(&demo.service(), "Ready");
        (ready == "False" && reason == "SecretMissing").then_some(message)
    })
    .await;
    demo.show(&format!("Ready=False SecretMissing: {message}"));
    assert!(message.contains("shop-redis"), "{message}");
    assert_eq!(demo.api.get("/api/v1/products?limit=1").await.status, 200);
    demo.holds("the status names it, and what runs goes on");
    secret["metadata"] = json!({ "name": "shop-redis" });
    demo.kubectl.apply(&secret.to_string()).unwrap_or_else(|error| panic!("{error}"));
    wait::until("it to heal", STATUS, async || {
        (Demo::condition(&demo.service(), "Ready").0 == "True").then_some(())
    })
    .await;
    demo.holds("back again, it heals");
}

/// Children that are deleted come back.
async fn deleted_children(demo: &Demo) {
    demo.step("Delete what the operator made: it is back within 5 seconds");
    for child in ["poddisruptionbudget/shop-main", "service/shop-main", "configmap/shop-settings"] {
        let uid = |demo: &Demo| demo.kubectl.json(&[child])["metadata"]["uid"].as_str().map(str::to_owned);
        let before = uid(demo).unwrap_or_else(|| panic!("there is no {child}"));
        let start = Instant::now();
        demo.kubectl.call(&["delete", child]).unwrap_or_else(|error| panic!("{error}"));
        wait::until(&format!("{child} to be back"), Duration::from_secs(5), async || {
            uid(demo).filter(|uid| *uid != before)
        })
        .await;
        demo.holds(&format!("{child} after {} ms", start.elapsed().as_millis()));
    }
}

/// With nothing to do, nothing is written.
async fn steady_state(demo: &Demo) {
    demo.step("With nothing to do, the operator writes nothing for 60 seconds");
    let versions = || -> BTreeSet<String> {
        let kinds = "fwp,ctier,fws,deployments,services,configmaps,serviceaccounts,poddisruptionbudgets";
        let objects = demo.kubectl.items(&[kinds]);
        let id = |object: &Value| {
            let meta = &object["metadata"];
            format!("{} {} {}", object["kind"], meta["name"], meta["resourceVersion"])
        };
        objects.iter().map(id).collect()
    };
    // Figures settle first: they are written at most every 30 s.
    let mut quiet_since = (Instant::now(), versions());
    wait::until("60 quiet seconds", Duration::from_secs(200), async || {
        let now = versions();
        if now != quiet_since.1 {
            quiet_since = (Instant::now(), now);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        (quiet_since.0.elapsed() >= Duration::from_secs(60)).then_some(())
    })
    .await;
    demo.holds(&format!("{} objects, unchanged for 60 s", quiet_since.1.len()));
}

/// Deleting the service deletes what was made for it.
async fn everything_gone(demo: &Demo) {
    demo.step("Delete the service: everything that was made for it is gone");
    demo.kubectl.call(&["delete", "fws", "shop", "--wait=false"]).unwrap_or_else(|error| panic!("{error}"));
    let kinds = "deployments,replicasets,pods,services,configmaps,serviceaccounts,poddisruptionbudgets,endpointslices";
    wait::until("everything to be gone", Duration::from_secs(90), async || {
        demo.kubectl.items(&[kinds, "-l", "app.kubernetes.io/instance=shop"]).is_empty().then_some(())
    })
    .await;
    demo.holds("nothing is left but the pools, the tiers and the Secrets, which are yours");
}
