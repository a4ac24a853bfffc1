//! A thousand services in one operator: how long until all are reconciled, in how much memory, and how much
//! CPU it takes to keep them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use serde_json::json;

use super::{
    Proof,
    account::{self, Server},
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
const CPU_OVER: Duration = Duration::from_secs(240);
/// How long it must have written nothing to be at rest; longer than figures may wait.
const QUIET: Duration = Duration::from_secs(35);
const WRITES: &str = "flyweight_operator_writes_total";

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
    // As it is deployed: under the chart's account, and not through `kubectl proxy`, which would take a tenth
    // of the processors.
    let server = Server::find();
    let token = account::make(api, &server, &account::rendered().await, &namespace).await;
    let (token, authority) = (Some(token.as_str()), Some(server.authority.as_str()));
    let options =
        Options { lease_seconds: 15, authority, token, ..Options::new(&server.base, &namespace, "operator") };
    let (start, operator) = (Instant::now(), Operator::start(&options));
    wait::until("all to be reconciled", GIVE_UP, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The whole list is a third of a second's work for the API server: it is asked for once all are
        // begun.
        let begun = operator
            .counted(r#"flyweight_operator_writes_total{kind="ServiceAccount",verb="apply"}"#)
            .await?;
        if begun < SERVICES as f64 {
            return None;
        }
        let list = api.get(&services).await;
        let seen =
            |one: &&serde_json::Value| one["status"]["observedGeneration"] == one["metadata"]["generation"];
        let done =
            list["items"].as_array().map(|items| items.iter().filter(seen).count()).unwrap_or_default();
        (done == SERVICES).then_some(())
    })
    .await;
    let took = start.elapsed();
    let memory = told(&operator, &format!("reconciled in {} s", took.as_secs())).await;
    tell_writes(&operator, &HashMap::default()).await;
    assert!(memory < MEMORY_MAX, "{} MiB", memory >> 20);
    assert!(took < WITHIN, "it took {} s", took.as_secs());
    proof.holds("all reconciled within 120 s and 150 MiB");
    settled(&operator).await;
    let (before, writes, at) = (operator.cpu_time(), writes_by_kind(&operator).await, Instant::now());
    tokio::time::sleep(CPU_OVER).await;
    let share = (operator.cpu_time() - before).as_secs_f64() / at.elapsed().as_secs_f64();
    let memory = told(&operator, &format!("at rest: {:.1} % of one core", share * 100.0)).await;
    tell_writes(&operator, &writes).await;
    assert_eq!(writes_by_kind(&operator).await, writes, "it wrote at rest");
    assert!(memory < MEMORY_MAX, "{} MiB", memory >> 20);
    assert!(share < 0.02, "{:.1} % CPU at rest", share * 100.0);
    proof.holds("at rest under 2 % of one core, under 150 MiB, and without a write");
    drop(operator);
    api.delete(&format!("/api/v1/namespaces/{namespace}")).await;
}

/// Prints what was measured, and what it took; the resident memory.
async fn told(operator: &Operator, what: &str) -> u64 {
    let memory = operator.resident_bytes();
    let writes = operator.counted(WRITES).await.unwrap_or_default();
    let reconciles = operator.counted("flyweight_operator_reconciles_total").await.unwrap_or_default();
    println!(
        "   {what}, {} MiB resident; so far {writes} writes, {reconciles} reconciles, {:.1} s of processor time",
        memory >> 20,
        operator.cpu_time().as_secs_f64()
    );
    memory
}

async fn writes_by_kind(operator: &Operator) -> HashMap<String, f64> {
    operator.counters(WRITES).await.unwrap_or_default().into_iter().collect()
}

/// Prints how many writes there were since, by kind.
async fn tell_writes(operator: &Operator, since: &HashMap<String, f64>) {
    let mut now: Vec<_> = writes_by_kind(operator).await.into_iter().collect();
    now.sort_by(|a, b| a.0.cmp(&b.0));
    for (labels, writes) in now {
        let more = writes - since.get(&labels).copied().unwrap_or_default();
        if more > 0.0 {
            println!("     {more} {labels}");
        }
    }
}

/// Waits until it has written nothing for a while: controllers follow what it made, and it tells what came of
/// it.
async fn settled(operator: &Operator) {
    let mut since = (Instant::now(), operator.counted(WRITES).await);
    wait::until("the operator to have nothing to write", GIVE_UP, async || {
        let writes = operator.counted(WRITES).await;
        if writes != since.1 {
            since = (Instant::now(), writes);
        }
        (since.0.elapsed() >= QUIET).then_some(())
    })
    .await;
}
