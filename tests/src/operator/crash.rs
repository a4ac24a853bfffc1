//! The operator is killed before and after each of its writes: the end is the same every time.

use futures::{StreamExt, stream};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    Proof,
    proxy::Verdict,
    scenario::{Calm, Stage},
};

/// How many lives are lived at once.
const AT_ONCE: usize = 4;
/// How many of the moments are tried outside a soak.
const SAMPLE: usize = 24;

/// Lives one life without faults, then one for each moment at which the operator can die.
pub async fn run(proof: &Proof) -> Calm {
    proof.step("The operator is killed before and after its writes");
    let stage = Stage::new(proof, "calm").await;
    let calm = stage.calm().await;
    stage.end().await;
    proof.holds(&format!("without faults: {} writes in five phases", calm.writes));
    let mut moments: Vec<(usize, bool)> = (0..calm.writes).flat_map(|write| [(write, true), (write, false)]).collect();
    let all = moments.len();
    if !proof.soak {
        moments.shuffle(&mut StdRng::seed_from_u64(proof.seed));
        moments.truncate(SAMPLE);
    }
    let tried = moments.len();
    let lives = stream::iter(moments).map(|moment| life(proof, &calm, moment));
    let deaths: usize = lives.buffer_unordered(AT_ONCE).collect::<Vec<usize>>().await.into_iter().sum();
    assert!(deaths > 0, "no operator died: the test shows nothing");
    proof.holds(&format!("{tried} of {all} moments tried, {deaths} deaths: the same end every time"));
    calm
}

/// One life with one death; how often the operator died.
async fn life(proof: &Proof, calm: &Calm, (write, before): (usize, bool)) -> usize {
    let stage = Stage::new(proof, "crash").await;
    stage.proxy.rule(move |call| match (call.write == Some(write), before) {
        (true, true) => Verdict::KillBefore,
        (true, false) => Verdict::KillAfter,
        (false, _) => Verdict::Pass,
    });
    let when = if before { "before" } else { "after" };
    stage.like(calm, &format!("killed {when} write {write}")).await;
    let deaths = stage.operator.deaths();
    stage.end().await;
    deaths
}
