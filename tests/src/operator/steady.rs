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
    stage.quiet().await;
    let (start, before) = (Instant::now(), stage.proxy.tried());
    wait::until("120 s", STEADY * 2, async || {
        assert_eq!(stage.proxy.tried(), before, "a write: {:?}", stage.proxy.written().last());
        (start.elapsed() >= STEADY).then_some(())
    })
    .await;
    proof.holds(&format!("0 writes in {} s, after {before} that made it so", start.elapsed().as_secs()));
    stage.end().await;
}
