//! With nothing to do, nothing is written: neither as time goes by nor by an operator that is started anew.

use std::time::{Duration, Instant};

use super::{Proof, scenario::Stage, shop};
use crate::wait;

/// What the project promises.
const STEADY: Duration = Duration::from_secs(120);
/// The same in CI.
const SHORT: Duration = Duration::from_secs(25);
const STARTED: Duration = Duration::from_secs(60);

/// Counts writes while nobody changes anything. The lists are read anew meanwhile, several times in a long
/// look.
pub async fn run(proof: &Proof) {
    let steady = if proof.soak { STEADY } else { SHORT };
    proof.step(&format!(
        "With nothing to do, nothing is written for {} seconds, nor after a start",
        steady.as_secs()
    ));
    let stage = Stage::new(proof, "steady").await;
    shop::make(&proof.api, &stage.namespace).await;
    // What the cluster's own controllers do to the children may come late, and is told.
    let mut since = (Instant::now(), stage.proxy.tried());
    wait::until(&format!("{} s without a write", steady.as_secs()), STEADY * 3, async || {
        let tried = stage.proxy.tried();
        if tried != since.1 || tried == 0 {
            since = (Instant::now(), tried);
        }
        (since.0.elapsed() >= steady).then_some(())
    })
    .await;
    proof.holds(&format!("0 writes in {} s, after {} that made it so", since.0.elapsed().as_secs(), since.1));
    starts_again(&stage).await;
    stage.end().await;
}

/// An operator that remembers nothing finds everything as it should be.
async fn starts_again(stage: &Stage) {
    let before = (stage.operator.deaths(), stage.proxy.tried());
    stage.operator.signal("KILL");
    wait::until("it to have looked at the service again", STARTED, async || {
        let looks =
            stage.operator.counted(r#"flyweight_operator_reconciles_total{kind="FlyweightService""#).await?;
        (stage.operator.deaths() > before.0 && looks >= 1.0).then_some(())
    })
    .await;
    // pools and tiers are told of after it, and a second look may find more
    stage.quiet().await;
    let tried = stage.proxy.attempts().into_iter().skip(before.1);
    let tried: Vec<String> = tried.map(|attempt| format!("{} {}", attempt.method, attempt.path)).collect();
    assert!(tried.is_empty(), "an operator that is started anew wrote {tried:?}");
    stage.proof.holds("an operator that is started anew writes nothing");
}
