//! 1,000 requests a second through the Service while everything happens that replaces pods, on two nodes: no
//! request fails, no acknowledged write is lost.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Demo, load::Load};
use crate::{kubectl::Kubectl, wait};

/// What the project promises; `FLYWEIGHT_RATE` asks for less where the machine has other work.
const PER_SECOND: u32 = 1000;
/// Clients that read, and clients that write: 19 reads for each write.
const READERS: u32 = 95;
const WRITERS: u32 = 5;
/// Every pod, one after the other, each with its drain.
const WITHIN: Duration = Duration::from_secs(300);

/// Goes through all of them.
///
/// # Panics
/// A request failed, a write was lost, or the service did not settle.
pub async fn run(demo: &Demo) {
    demo.step("Two gateways, and pods on both nodes");
    call(
        &demo.kubectl,
        &["patch", "fws", "shop", "--type=merge", "-p", r#"{"spec":{"gateway":{"replicas":2}}}"#],
    );
    settled(demo, "two gateways", || true).await;
    let lamp = json!({ "name": "Lamp", "price": "19.90", "category": "light" });
    let created = demo.api.post("/api/v1/products", &lamp).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = created.header("location").to_owned();
    let mut failures = Vec::new();
    demo.step(&format!(
        "{} requests a second through the Service, of which {WRITERS} in a hundred write",
        rate()
    ));
    let mut note = |failed: Option<String>| failures.extend(failed);
    note(
        measured(demo, &path, "nothing happens", async || tokio::time::sleep(Duration::from_secs(20)).await)
            .await,
    );
    note(
        measured(demo, &path, "a rolling change, by a canary first", async || rolling(demo, "LRU").await)
            .await,
    );
    note(
        measured(demo, &path, "another image, by a migration and a canary first", async || {
            upgraded(demo).await
        })
        .await,
    );
    note(measured(demo, &path, "scaled from 2 to 4 and back", async || scaled(demo).await).await);
    note(measured(demo, &path, "a Secret rotated", async || rotated(demo).await).await);
    note(measured(demo, &path, "the operator replaced", async || operator_replaced(demo).await).await);
    note(measured(demo, &path, "a pod killed outright", async || killed(demo, "main").await).await);
    note(measured(demo, &path, "a gateway deleted", async || gateway_deleted(demo).await).await);
    note(measured(demo, &path, "a node drained", async || drained(demo).await).await);
    assert!(failures.is_empty(), "{failures:#?}");
    bad_changes(demo, &path).await;
}

fn rate() -> u32 {
    std::env::var("FLYWEIGHT_RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(PER_SECOND)
}

/// Makes traffic while something happens. What went wrong.
async fn measured(demo: &Demo, path: &str, what: &str, happens: impl AsyncFnOnce()) -> Option<String> {
    let (load, start) = (Load::at_rate(&demo.api, path, rate(), READERS, WRITERS), Instant::now());
    load.pass(rate() as usize * 2).await;
    happens().await;
    load.pass(rate() as usize * 2).await;
    let (took, outcome) = (start.elapsed(), load.stop().await);
    let mut lost = 0;
    for created in &outcome.created {
        lost += usize::from(demo.api.get(created).await.status != 200);
    }
    #[expect(clippy::cast_precision_loss, reason = "shown as a whole number")]
    let rate = outcome.answered as f64 / took.as_secs_f64();
    let figures = format!(
        "{what}: {} requests in {} s, {rate:.0} a second, {} failed; {} of {} acknowledged writes lost; half within {} ms, 99 of 100 within {} ms",
        outcome.answered,
        took.as_secs(),
        outcome.failures.len(),
        lost,
        outcome.created.len(),
        outcome.percentile(50).as_millis(),
        outcome.percentile(99).as_millis(),
    );
    if outcome.failures.is_empty() && lost == 0 {
        demo.holds(&figures);
        return None;
    }
    demo.show(&figures);
    for failure in outcome.failures.iter().take(5) {
        demo.show(failure);
    }
    Some(figures)
}

/// The same data plane under another name: a Job migrates, one pod takes it first, the others follow.
async fn upgraded(demo: &Demo) {
    let before = pods(demo);
    set_image(demo, "flyweight/dataplane:next");
    settled(demo, "every pod to be another", || pods(demo).is_disjoint(&before)).await;
    let events = demo.kubectl.items(&["events", "--field-selector", "reason=Created"]);
    let migrated = events.iter().any(|event| {
        event["note"]
            .as_str()
            .or(event["message"].as_str())
            .is_some_and(|note| note.contains("Job shop-migrate"))
    });
    assert!(migrated, "nothing tells of a migration");
    let jobs = demo.kubectl.items(&["jobs"]);
    assert!(jobs.is_empty(), "a Job is left: {jobs:?}");
}

fn set_image(demo: &Demo, image: &str) {
    let patch = json!({ "spec": { "image": image } }).to_string();
    call(&demo.kubectl, &["patch", "fws", "shop", "--type=merge", "-p", &patch]);
}

async fn rolling(demo: &Demo, policy: &str) {
    let before = pods(demo);
    let patch = json!({ "spec": { "memory": { "policy": policy } } }).to_string();
    call(&demo.kubectl, &["patch", "ctier", "hot", "--type=merge", "-p", &patch]);
    settled(demo, "every pod to be another", || pods(demo).is_disjoint(&before)).await;
}

async fn scaled(demo: &Demo) {
    for replicas in [4, 2] {
        call(&demo.kubectl, &["scale", "fws/shop", &format!("--replicas={replicas}")]);
        settled(demo, &format!("{replicas} pods"), || pods(demo).len() == replicas).await;
    }
}

async fn rotated(demo: &Demo) {
    let rotation = r#"{"stringData":{"rotated":"yes"}}"#;
    call(&demo.kubectl, &["patch", "secret", "shop-redis", "--type=merge", "-p", rotation]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    settled(demo, "the rotated Secret", || true).await;
}

async fn operator_replaced(demo: &Demo) {
    let system = Kubectl::new("flyweight-system");
    let name = "app.kubernetes.io/name=flyweight-operator";
    call(&system, &["rollout", "restart", "deployment", "-l", name]);
    call(&system, &["rollout", "status", "deployment", "-l", name, "--timeout=3m"]);
    settled(demo, "the new operator", || true).await;
}

async fn killed(demo: &Demo, group: &str) {
    let before = pods(demo);
    let pods_of = demo.kubectl.items(&["pods", "-l", &format!("flyweight.dev/group={group}")]);
    let name =
        pods_of.first().and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    call(&demo.kubectl, &["delete", "pod", &name, "--wait=false", "--grace-period=0", "--force"]);
    settled(demo, "another pod", || pods(demo) != before && pods(demo).len() == before.len()).await;
}

async fn gateway_deleted(demo: &Demo) {
    let selector = "app.kubernetes.io/instance=shop,app.kubernetes.io/component=gateway";
    let gateways = demo.kubectl.items(&["pods", "-l", selector]);
    let name =
        gateways.first().and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    call(&demo.kubectl, &["delete", "pod", &name]);
    settled(demo, "another gateway", || true).await;
}

/// Every pod of a node moves to the other.
async fn drained(demo: &Demo) {
    let on = |pods: &[Value]| {
        pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned)).collect()
    };
    let used: BTreeSet<String> = on(&demo.pods());
    demo.show(&format!("the pods are on {}", used.iter().cloned().collect::<Vec<_>>().join(" and ")));
    let node = used.iter().next_back().cloned().unwrap_or_default();
    call(&demo.kubectl, &["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=4m"]);
    settled(demo, "the pods to be elsewhere", || !on(&demo.pods()).contains(&node)).await;
    call(&demo.kubectl, &["uncordon", &node]);
}

/// A change that makes pods fail is tried by one pod, and goes no further.
async fn bad_changes(demo: &Demo, path: &str) {
    for (image, what, told) in [
        ("flyweight/dataplane:nowhere", "cannot start: its migration does not", "MigrationFailed"),
        ("flyweight/faulty:0.1.0", "fails requests: one pod takes it first", "CanaryFailed"),
    ] {
        demo.step(&format!("An image that {what}, and it is held back"));
        let before = pods(demo);
        let good = demo.service()["spec"]["image"].as_str().unwrap_or_default().to_owned();
        let (load, start) = (Load::at_rate(&demo.api, path, rate() / 2, READERS, 0), Instant::now());
        set_image(demo, image);
        let message = wait::until("it to be held back", WITHIN, async || {
            let (_, reason, message) = Demo::condition(&demo.service(), "ConfigurationApplied");
            (reason == told).then_some(message)
        })
        .await;
        let took = start.elapsed();
        wait::until("the canary to be gone", WITHIN, async || {
            let all = demo.kubectl.items(&["pods", "-l", "flyweight.dev/canary=true"]);
            all.is_empty().then_some(())
        })
        .await;
        let outcome = load.stop().await;
        assert!(before.is_subset(&pods(demo)), "a pod was replaced");
        demo.show(&message);
        let events = demo.kubectl.items(&["events", "--field-selector", &format!("reason={told}")]);
        assert!(!events.is_empty(), "there is no event");
        demo.holds(&format!(
            "held back after {} s, told by an Event; the pods run on as before; {} of {} requests failed meanwhile",
            took.as_secs(),
            outcome.failures.len(),
            outcome.answered
        ));
        set_image(demo, &good);
        settled(demo, "it to be taken back", || true).await;
        assert_eq!(pods(demo), before, "a pod was replaced");
        demo.holds("taken back, all is as it was: the same pods");
    }
}

async fn settled(demo: &Demo, what: &str, also: impl Fn() -> bool) {
    wait::until(what, WITHIN, async || {
        let service = demo.service();
        let calm =
            ["Ready", "Progressing"].map(|kind| Demo::condition(&service, kind).0) == ["True", "False"];
        let seen = service["status"]["observedGeneration"] == service["metadata"]["generation"];
        (calm && seen && also()).then_some(())
    })
    .await;
}

/// The data plane's pods, without canaries, by their uids.
fn pods(demo: &Demo) -> BTreeSet<String> {
    let pods = demo.pods();
    let lasting = pods.iter().filter(|pod| pod["metadata"]["labels"]["flyweight.dev/canary"].is_null());
    lasting.filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect()
}

fn call(kubectl: &Kubectl, args: &[&str]) {
    kubectl.call(args).unwrap_or_else(|error| panic!("{error}"));
}
