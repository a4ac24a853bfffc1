//! What changes under load: a restart, a drained pod, a rotated Secret, scaling, another operator. No request
//! fails, no acknowledged write is lost.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{Demo, load::Load, plugin};
use crate::{client::Api, kubectl::Kubectl, wait};

/// Two pods and a gateway, one after the other, on a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(180);

/// Goes through all of them.
pub async fn under_load(demo: &Demo, path: &str) {
    demo.step(
        "Restart, drain a pod, rotate a Secret, scale and replace the operator under load: no failed request",
    );
    let rotate =
        ["patch", "secret", "shop-redis", "--type=merge", "-p", r#"{"stringData":{"rotated":"yes"}}"#];
    measured(demo, path, "every pod restarted", async || replaced(demo).await).await;
    measured(demo, path, "a pod drained", async || drained(demo).await).await;
    measured(demo, path, "a Secret rotated, the same pods", async || rotated(demo, &rotate).await).await;
    measured(demo, path, "scaled up and down", async || {
        for replicas in [4, 2] {
            call(&demo.kubectl, &["scale", "fws/shop", &format!("--replicas={replicas}")]);
            settled(demo, &format!("{replicas} pods"), || demo.pods().len() == replicas).await;
        }
    })
    .await;
    measured(demo, path, "the operator replaced", async || {
        let system = Kubectl::new("flyweight-system");
        let name = "app.kubernetes.io/name=flyweight-operator";
        call(&system, &["rollout", "restart", "deployment", "-l", name]);
        call(&system, &["rollout", "status", "deployment", "-l", name, "--timeout=2m"]);
        settled(demo, "the new operator", || true).await;
    })
    .await;
}

/// Reads and writes while something happens, and looks for every acknowledged write afterwards.
async fn measured(demo: &Demo, path: &str, what: &str, happens: impl AsyncFnOnce()) {
    let (load, start) = (Load::start(&demo.api, path, 4, 2), Instant::now());
    load.pass(200).await;
    happens().await;
    load.pass(200).await;
    let (took, outcome) = (start.elapsed(), load.stop().await);
    assert!(outcome.failures.is_empty(), "{what}: {:#?}", &outcome.failures[..outcome.failures.len().min(5)]);
    for created in &outcome.created {
        assert_eq!(demo.api.get(created).await.status, 200, "{what}: {created} was acknowledged");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown as a whole number")]
    let rate = outcome.answered as f64 / took.as_secs_f64();
    demo.holds(&format!(
        "{what}: {} requests, {rate:.0} a second, 0 failed; all {} acknowledged writes are there",
        outcome.answered,
        outcome.created.len()
    ));
}

/// Replaces every pod of the data plane.
async fn replaced(demo: &Demo) {
    let before = uids(demo);
    assert!(plugin::json(demo, &["restart", "shop"])["restartedAt"].is_string());
    settled(demo, "every pod to be another", || uids(demo).is_disjoint(&before)).await;
}

/// Takes one pod away; another comes in its place.
async fn drained(demo: &Demo) {
    let pods = demo.pods();
    let name = pods[0]["metadata"]["name"].as_str().unwrap_or_default();
    assert_eq!(plugin::json(demo, &["drain", "shop", name])["pod"], name);
    let is_gone = || demo.pods().iter().all(|pod| pod["metadata"]["name"] != name);
    assert!(is_gone(), "it said that {name} had ended");
    settled(demo, "another pod in its place", || demo.pods().len() == pods.len()).await;
}

/// Rotates a Secret: every pod takes it over, and none is replaced.
async fn rotated(demo: &Demo, args: &[&str]) {
    let before = uids(demo);
    call(&demo.kubectl, args);
    wait::until("every pod to use the rotated Secret", REPLACED_WITHIN, async || {
        for pod in demo.pods() {
            let address = pod["status"]["podIP"].as_str()?;
            let status = Api::at(&format!("http://{address}:9090")).get("/status").await.json();
            let secrets = status["secrets"].as_array().cloned().unwrap_or_default();
            secrets.iter().find(|secret| secret["name"] == "backends/redis" && secret["rotations"] == 1)?;
        }
        Some(())
    })
    .await;
    assert_eq!(uids(demo), before, "pods were replaced");
}

async fn settled(demo: &Demo, what: &str, also: impl Fn() -> bool) {
    wait::until(what, REPLACED_WITHIN, async || {
        let service = demo.service();
        let calm =
            ["Ready", "Progressing"].map(|kind| Demo::condition(&service, kind).0) == ["True", "False"];
        (calm && also()).then_some(())
    })
    .await;
}

fn uids(demo: &Demo) -> BTreeSet<String> {
    demo.pods().iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect()
}

fn call(kubectl: &Kubectl, args: &[&str]) {
    kubectl.call(args).unwrap_or_else(|error| panic!("{error}"));
}
