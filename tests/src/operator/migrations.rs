//! Another image: a Job of it prepares the stores first. Until it has, and where it fails, what runs is left
//! alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Proof, api::folder, scenario::Stage, shop, worker::Outcome};
use crate::wait;

/// What the project promises of every status.
const SAID_WITHIN: Duration = Duration::from_secs(30);
/// The Job controller's own wait before it tries again is 10 s, then 20 s.
const TRIED_WITHIN: Duration = Duration::from_secs(60);
const RUNNING: &str = "flyweight/dataplane:0.1.0";

/// A Job that takes its time, one that fails, and one that a change supersedes.
pub async fn run(proof: &Proof) {
    proof.step("Another image: its Job prepares the stores before its pods come");
    let stage = Stage::new(proof, "migrations").await;
    let api = &proof.api;
    shop::make(api, &stage.namespace).await;
    stage.quiet().await;
    assert!(jobs(&stage).await.is_empty(), "a new service needs none");

    stage.jobs(Outcome::Pending);
    upgrade(&stage, "flyweight/dataplane:2").await;
    said(&stage, "Migrating").await;
    stage.quiet().await;
    let [job] = &jobs(&stage).await[..] else { panic!("one Job is wanted") };
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["args"][0]),
        (&json!("flyweight/dataplane:2"), &json!("migrate"))
    );
    assert_eq!(image(&stage).await, RUNNING, "pods came before their migration");
    proof.holds("while its Job is at work, the former image runs on and the status says so");

    stage.jobs(Outcome::Failed);
    let message = said(&stage, "MigrationFailed").await;
    assert_eq!(image(&stage).await, RUNNING);
    let event = wait::until("the Event", SAID_WITHIN, async || {
        let list = api.get(&format!("/apis/events.k8s.io/v1/namespaces/{}/events", stage.namespace)).await;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        events.into_iter().find(|event| event["reason"] == "MigrationFailed" && event["type"] == "Warning")
    });
    assert!(event.await["note"].as_str().is_some_and(|note| note.contains("failed")));
    proof.holds(&format!("a Job that fails is told, with an Event, and changes nothing: {message}"));

    stage.jobs(Outcome::Succeeded);
    wait::until("the Job to be tried again, and the roll", TRIED_WITHIN, async || {
        (image(&stage).await == "flyweight/dataplane:2").then_some(())
    })
    .await;
    wait::until("the Job to go", SAID_WITHIN, async || jobs(&stage).await.is_empty().then_some(())).await;
    proof.holds("it is tried again, the roll follows, and nothing is left of it");

    stage.jobs(Outcome::Pending);
    upgrade(&stage, "flyweight/dataplane:3").await;
    said(&stage, "Migrating").await;
    stage.jobs(Outcome::Succeeded);
    upgrade(&stage, "flyweight/dataplane:4").await;
    wait::until("the newer image", SAID_WITHIN, async || {
        let done = image(&stage).await == "flyweight/dataplane:4" && jobs(&stage).await.is_empty();
        done.then_some(())
    })
    .await;
    proof.holds("a change meanwhile takes the place of the one before, and its Job the place of that one's");
    stage.end().await;
}

async fn upgrade(stage: &Stage, image: &str) {
    let patch = json!({ "spec": { "image": image } });
    if let Err(refusal) = stage.proof.api.patch(&shop::service_path(&stage.namespace), &patch).await {
        panic!("{refusal}");
    }
}

/// Waits until the service says so; the message.
async fn said(stage: &Stage, reason: &str) -> String {
    wait::until(&format!("the service to say {reason}"), SAID_WITHIN, async || {
        let (status, said, message) = shop::condition(&stage.service().await, "ConfigurationApplied");
        (status == "False" && said == reason).then_some(message)
    })
    .await
}

async fn jobs(stage: &Stage) -> Vec<Value> {
    stage.proof.api.get(&folder(&stage.namespace, "jobs")).await["items"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// The image of the pods that are wanted.
async fn image(stage: &Stage) -> String {
    let deployment =
        stage.proof.api.get(&format!("{}/shop-main", folder(&stage.namespace, "deployments"))).await;
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().unwrap_or_default().to_owned()
}
