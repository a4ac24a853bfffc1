//! Two operators: one works. A leader that slept past its Lease writes nothing when it wakes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Proof,
    process::{Operator, Options},
    proxy::Proxy,
    scenario::Stage,
    shop,
};
use crate::wait;

const TAKEOVER: Duration = Duration::from_secs(40);
/// Looks at the Lease, one a second, after which the first has noticed that it is not the leader; what waited for it came before.
const LOOKS: usize = 3;

/// Freezes the leader, lets the other take over, and wakes the first.
pub async fn run(proof: &Proof) {
    proof.step("A leader that slept past its Lease writes nothing when it wakes");
    let first = Stage::new(proof, "lease").await;
    shop::make(&proof.api, &first.namespace).await;
    first.quiet().await;
    let proxy = Proxy::start(&proof.api.base).await;
    let options = Options::new(&proxy.base, &first.namespace, "second");
    let second = Operator::start(&options);
    first.operator.signal("STOP");
    let slept = Instant::now();
    scale(&first, 3).await;
    wait::until("the second operator to write", TAKEOVER, async || (!proxy.written().is_empty()).then_some(())).await;
    proof.holds(&format!("the second took over after {} s", slept.elapsed().as_secs()));
    let before = first.proxy.tried();
    // Something to do lies ready for both.
    scale(&first, 4).await;
    let looks = first.proxy.lease_calls();
    first.operator.signal("CONT");
    wait::until("the second operator to go on", TAKEOVER, async || {
        let list = shop::children(&proof.api, &first.namespace).await;
        list.iter().any(|one| one["plural"] == "deployments" && one["spec"]["replicas"] == 4).then_some(())
    })
    .await;
    wait::until("the first to look at the Lease", TAKEOVER, async || {
        (first.proxy.lease_calls() >= looks + LOOKS).then_some(())
    })
    .await;
    assert_eq!(first.proxy.tried(), before, "the first wrote without the Lease: {:?}", first.proxy.written().last());
    proof.holds("the first woke, and wrote nothing");
    let (mine, others) = (first.proxy.written(), proxy.written());
    let last = mine.iter().map(|one| one.at).max();
    let overlap = others.iter().filter(|one| last.is_some_and(|last| one.at <= last)).count();
    assert_eq!(overlap, 0, "both wrote at one time");
    proof.holds(&format!("{} writes of the first, then {} of the second, never both", mine.len(), others.len()));
    drop(second);
    first.end().await;
}

async fn scale(stage: &Stage, replicas: u32) {
    let path = format!("{}/scale", shop::service_path(&stage.namespace));
    if let Err(refusal) = stage.proof.api.patch(&path, &json!({ "spec": { "replicas": replicas } })).await {
        panic!("{refusal}");
    }
}
