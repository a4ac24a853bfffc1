//! Whatever somebody changes, adds to or deletes of what the operator made is put right, and then nothing
//! more is written.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Proof,
    api::folder,
    scenario::{Stage, difference},
    shop,
};
use crate::wait;

const MENDED_WITHIN: Duration = Duration::from_secs(15);
const COUNTED_WITHIN: Duration = Duration::from_secs(15);
const REPAIRS: &str = "flyweight_operator_drift_repaired_total";

/// Does to every kind of child what people do to one.
pub async fn run(proof: &Proof) {
    proof.step("What somebody changes, adds or deletes is put right");
    let stage = Stage::new(proof, "drift").await;
    let (api, namespace) = (&proof.api, &stage.namespace);
    shop::make(api, namespace).await;
    let more = json!({ "spec": { "gateway": {}, "autoscaling": { "minReplicas": 2, "maxReplicas": 4 } } });
    if let Err(refusal) = api.patch(&shop::service_path(namespace), &more).await {
        panic!("{refusal}");
    }
    stage.quiet().await;
    let calm = shop::children(api, namespace).await;
    let (mut slowest, mut counted) = (Duration::ZERO, repairs(&stage).await);
    let edits = edits(&calm);
    for (plural, name, patch) in &edits {
        if let Err(refusal) = api.patch(&format!("{}/{name}", folder(namespace, plural)), patch).await {
            panic!("{plural}/{name} {patch}: {refusal}");
        }
        slowest = slowest.max(mended(&stage, &calm, &format!("{plural}/{name} {patch}")).await);
        // The operator counts a repair once the API server has answered, which is after others see it.
        counted = wait::until(
            &format!("{plural}/{name} {patch}: its repair to be counted"),
            COUNTED_WITHIN,
            async || {
                let now = repairs(&stage).await;
                (now > counted).then_some(now)
            },
        )
        .await;
    }
    proof.holds(&format!(
        "{} changes and additions, each taken back within {:.1} s",
        edits.len(),
        slowest.as_secs_f64()
    ));
    for child in &calm {
        let (plural, name) = place(child);
        api.delete(&format!("{}/{name}", folder(namespace, plural))).await;
    }
    let took = mended(&stage, &calm, "everything deleted").await;
    proof.holds(&format!(
        "{} children deleted at once, and back after {:.1} s",
        calm.len(),
        took.as_secs_f64()
    ));
    let took = orphaned(&stage, &calm).await;
    proof.holds(&format!(
        "children that their service left behind are a new one's after {:.1} s",
        took.as_secs_f64()
    ));
    stage.quiet().await;
    proof.holds("and then nothing is written");
    stage.end().await;
}

/// Deletes the service without its children, and makes it again. Returns how long the new one took to make
/// them its own.
async fn orphaned(stage: &Stage, calm: &[Value]) -> Duration {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    let path = shop::service_path(namespace);
    let spec = stage.service().await["spec"].clone();
    let uids = async || -> Vec<Value> {
        let deployments = api.get(&folder(namespace, "deployments")).await;
        deployments["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["metadata"]["uid"].clone())
            .collect()
    };
    let before = uids().await;
    let orphan = json!({ "propagationPolicy": "Orphan" });
    if let Err(error) = api.call(Method::DELETE, &path, Some(("application/json", &orphan))).await {
        panic!("DELETE {path}: {error}");
    }
    wait::until("the service to be gone", MENDED_WITHIN, async || {
        api.get(&path).await.is_null().then_some(())
    })
    .await;
    let left = shop::children(api, namespace).await;
    let has_owner = |child: &&Value| !child["metadata"]["ownerReferences"].is_null();
    assert_eq!(
        (left.len(), left.iter().filter(has_owner).count()),
        (calm.len(), 0),
        "all are left, without an owner"
    );
    api.create(&folder(namespace, "flyweightservices"), &shop::resource("FlyweightService", "shop", spec))
        .await;
    let took = mended(stage, calm, "left behind by a former service").await;
    assert_eq!(uids().await, before, "they are the same objects");
    took
}

/// What people do by hand: to a value, and beside what there is.
fn edits(calm: &[Value]) -> Vec<(&'static str, &'static str, Value)> {
    let of = |plural: &str, name: &str| {
        let child = calm.iter().find(|one| place(one) == (plural, name));
        child.unwrap_or_else(|| panic!("there is no {plural}/{name}")).clone()
    };
    let pods = |spec: Value| json!({ "spec": { "template": { "spec": spec } } });
    let deployment = of("deployments", "shop-main");
    let with = |list: &str, entry: Value| {
        let mut all = deployment["spec"]["template"]["spec"][list].as_array().cloned().unwrap_or_default();
        all.push(entry);
        pods(json!({ list: all }))
    };
    let mut container = deployment["spec"]["template"]["spec"]["containers"][0].clone();
    container["command"] = json!(["sh"]);
    container["env"]
        .as_array_mut()
        .into_iter()
        .for_each(|env| env.push(json!({ "name": "MORE", "value": "1" })));
    let mut ports = of("services", "shop")["spec"]["ports"].as_array().cloned().unwrap_or_default();
    ports.push(json!({ "name": "more", "port": 81 }));
    vec![
        ("deployments", "shop-main", json!({ "spec": { "replicas": 7 } })),
        ("deployments", "shop-main", json!({ "spec": { "minReadySeconds": 5 } })),
        ("deployments", "shop-main", pods(json!({ "nodeSelector": { "disk": "ssd" } }))),
        ("deployments", "shop-main", pods(json!({ "tolerations": [{ "key": "x", "operator": "Exists" }] }))),
        ("deployments", "shop-main", pods(json!({ "hostNetwork": true }))),
        ("deployments", "shop-main", with("initContainers", json!({ "name": "first", "image": "i" }))),
        ("deployments", "shop-main", with("containers", json!({ "name": "more", "image": "i" }))),
        ("deployments", "shop-main", with("volumes", json!({ "name": "more", "emptyDir": {} }))),
        ("deployments", "shop-main", pods(json!({ "containers": [container] }))),
        (
            "deployments",
            "shop-gateway",
            json!({ "spec": { "template": { "metadata": { "labels": { "more": "1" } } } } }),
        ),
        ("services", "shop", json!({ "spec": { "ports": ports } })),
        ("services", "shop", json!({ "spec": { "selector": { "more": "1" } } })),
        ("services", "shop", json!({ "spec": { "sessionAffinity": "ClientIP" } })),
        ("services", "shop", json!({ "spec": { "type": "NodePort" } })),
        ("configmaps", "shop-settings", json!({ "data": { "more": "1" } })),
        ("configmaps", "shop-settings", json!({ "data": { "settings.json": "{}" } })),
        ("networkpolicies", "shop", json!({ "spec": { "policyTypes": ["Ingress"] } })),
        ("networkpolicies", "shop", json!({ "spec": { "ingress": [{}] } })),
        (
            "poddisruptionbudgets",
            "shop-main",
            json!({ "spec": { "unhealthyPodEvictionPolicy": "IfHealthyBudget" } }),
        ),
        ("poddisruptionbudgets", "shop-main", json!({ "spec": { "maxUnavailable": 2 } })),
        (
            "horizontalpodautoscalers",
            "shop",
            json!({ "spec": { "behavior": { "scaleDown": { "selectPolicy": "Disabled" } } } }),
        ),
        ("horizontalpodautoscalers", "shop", json!({ "spec": { "maxReplicas": 9 } })),
        (
            "serviceaccounts",
            "shop",
            json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "other" } } }),
        ),
        ("services", "shop", json!({ "metadata": { "ownerReferences": [] } })),
        ("deployments", "shop-main", json!({ "metadata": { "ownerReferences": null } })),
    ]
}

fn place(child: &Value) -> (&str, &str) {
    (child["plural"].as_str().unwrap_or_default(), child["metadata"]["name"].as_str().unwrap_or_default())
}

async fn repairs(stage: &Stage) -> f64 {
    stage.operator.counted(REPAIRS).await.unwrap_or_default()
}

/// Waits until the children are as they were; how long it took.
async fn mended(stage: &Stage, calm: &[Value], what: &str) -> Duration {
    let start = Instant::now();
    loop {
        let found = shop::children(&stage.proof.api, &stage.namespace).await;
        if found == calm {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < MENDED_WITHIN,
            "{what}: not mended within {MENDED_WITHIN:?}:\n{}",
            difference("", &json!(calm), &json!(found)).join("\n")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
