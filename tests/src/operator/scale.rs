//! A thousand services in one operator: how long until all are reconciled, in how much memory, and how much CPU it takes to keep them.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;

use super::{
    Proof,
    api::folder,
    process::{Operator, Options},
    shop,
};
use crate::wait;

const SERVICES: usize = 1000;
/// What the project promises.
const WITHIN: Duration = Duration::from_secs(120);
const MEMORY_MAX: u64 = 150 << 20;
const CREATE_AT_ONCE: usize = 16;
const GIVE_UP: Duration = Duration::from_secs(600);
const CPU_OVER: Duration = Duration::from_secs(60);

/// Makes the services first, then starts the operator, so that only its own work is measured.
pub async fn run(proof: &Proof) {
    proof.step("1,000 services in one operator");
    let namespace = format!("scale-{:x}", rand::random::<u32>());
    let api = &proof.api;
    api.make_namespace(&namespace).await;
    shop::make_secrets(api, &namespace).await;
    shop::make(api, &namespace).await;
    let services = folder(&namespace, "flyweightservices");
    api.delete(&shop::service_path(&namespace)).await;
    let create = |number: usize| {
        let mut spec = shop::service();
        spec["replicas"] = json!(0);
        let body = shop::resource("FlyweightService", &format!("shop-{number}"), spec);
        let services = services.clone();
        async move { api.create(&services, &body).await }
    };
    stream::iter(0..SERVICES).map(create).buffer_unordered(CREATE_AT_ONCE).collect::<Vec<()>>().await;
    let options = Options { base: &api.base, namespace: &namespace, identity: "operator", lease_seconds: 15 };
    let (start, operator) = (Instant::now(), Operator::start(&options));
    wait::until("all to be reconciled", GIVE_UP, async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let list = api.get(&services).await;
        let seen = |one: &&serde_json::Value| one["status"]["observedGeneration"] == one["metadata"]["generation"];
        let done = list["items"].as_array().map(|items| items.iter().filter(seen).count()).unwrap_or_default();
        (done == SERVICES).then_some(())
    })
    .await;
    let took = start.elapsed();
    let memory = operator.resident_bytes();
    println!("   reconciled in {} s, {} MiB resident", took.as_secs(), memory >> 20);
    assert!(memory < MEMORY_MAX, "{} MiB", memory >> 20);
    assert!(took < WITHIN, "it took {} s", took.as_secs());
    proof.holds("all reconciled within 120 s and 150 MiB");
    tokio::time::sleep(Duration::from_secs(15)).await;
    let (before, at) = (operator.cpu_time(), Instant::now());
    tokio::time::sleep(CPU_OVER).await;
    let share = (operator.cpu_time() - before).as_secs_f64() / at.elapsed().as_secs_f64();
    println!("   at rest: {:.1} % of one core, {} MiB resident", share * 100.0, operator.resident_bytes() >> 20);
    assert!(share < 0.02, "{:.1} % CPU at rest", share * 100.0);
    proof.holds("at rest under 2 % of one core");
    drop(operator);
    api.delete(&format!("/api/v1/namespaces/{namespace}")).await;
}
