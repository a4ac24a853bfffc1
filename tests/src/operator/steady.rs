//! With nothing to do, nothing is written.

use std::time::{Duration, Instant};

use super::{Proof, scenario::Stage, shop};
use crate::wait;

/// What the project promises.
const STEADY: Duration = Duration::from_secs(120);

/// Counts writes while nobody changes anything. The lists are read anew several times meanwhile.
pub async fn run(proof: &Proof) {
    proof.step("With nothing to do, nothing is written for 120 seconds");
    let stage = Stage::new(proof, "steady").await;
    shop::make(&proof.api, &stage.namespace).await;
    // What the cluster's own controllers do to the children may come late, and is told.
    let mut since = (Instant::now(), stage.proxy.tried());
    wait::until("120 s without a write", STEADY * 3, async || {
        let tried = stage.proxy.tried();
        if tried != since.1 || tried == 0 {
            since = (Instant::now(), tried);
        }
        (since.0.elapsed() >= STEADY).then_some(())
    })
    .await;
    proof.holds(&format!("0 writes in {} s, after {} that made it so", since.0.elapsed().as_secs(), since.1));
    stage.end().await;
}
