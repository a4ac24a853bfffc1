//! The operator is killed before and after each of its writes: the end is the same every time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt, stream};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    Proof,
    proxy::Verdict,
    scenario::{Calm, FAULTS, Stage},
};

/// How many lives are lived at once.
const AT_ONCE: usize = 6;
/// How many of the moments are tried outside a soak.
const SAMPLE: usize = 24;
/// How many lives a moment gets: what is written last depends on how fast the cluster's own controllers are, so that a life may do without it.
const TRIES: usize = 3;
/// The part of the moments that no life may come to, in percent.
const UNMET_MAX_PERCENT: usize = 5;

/// Before or after a write at which the operator dies.
#[derive(Clone, Debug)]
struct Moment {
    /// `PATCH deployments/shop-main`
    write: String,
    /// Which one of them, from 0.
    number: usize,
    before: bool,
}

/// Lives one life without faults, then one for each moment at which the operator can die.
pub async fn run(proof: &Proof) -> Calm {
    proof.step("The operator is killed before and after its writes");
    let stage = Stage::new(proof, "calm").await;
    let calm = stage.calm().await;
    stage.end().await;
    proof.holds(&format!("without faults: {} writes in five phases", calm.writes.len()));
    let mut moments = moments(&calm.writes);
    let all = moments.len();
    if !proof.soak {
        moments.shuffle(&mut StdRng::seed_from_u64(proof.seed));
        moments.truncate(SAMPLE);
    }
    let tried = moments.len();
    let lives = stream::iter(moments).map(|moment| lives(proof, &calm, moment));
    let unmet: Vec<String> = lives.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let met = tried - unmet.len();
    assert!(unmet.len() * 100 <= tried * UNMET_MAX_PERCENT, "only {met} of {tried} moments came: without {unmet:?}");
    let without = if unmet.is_empty() { String::new() } else { format!(" (without {})", unmet.join(", ")) };
    proof.holds(&format!(
        "{met} of {tried} moments tried, of {all}, each with one death: the same end every time{without}"
    ));
    calm
}

/// Before and after each write.
fn moments(writes: &[String]) -> Vec<Moment> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let both = writes.iter().flat_map(|write| {
        let next = numbers.entry(write).or_default();
        *next += 1;
        [true, false].map(|before| Moment { write: write.clone(), number: *next - 1, before })
    });
    both.collect()
}

/// Lives until the moment came; which one it was if it did not.
async fn lives(proof: &Proof, calm: &Calm, moment: Moment) -> Option<String> {
    let Moment { write, number, before } = &moment;
    let what = format!("killed {} {write} number {number}", if *before { "before" } else { "after" });
    for _ in 0..TRIES {
        if life(proof, calm, moment.clone(), &what).await {
            return None;
        }
    }
    Some(what)
}

/// One life with one death; whether the operator died.
async fn life(proof: &Proof, calm: &Calm, Moment { write, number, before }: Moment, what: &str) -> bool {
    let stage = Stage::new(proof, "crash").await;
    let (seen, name) = (AtomicUsize::new(0), stage.namer());
    stage.proxy.rule(move |call| {
        let is_it = call.write.is_some() && name(&call.method, &call.path) == write;
        match (is_it && seen.fetch_add(1, Ordering::Relaxed) == number, before) {
            (true, true) => Verdict::KillBefore,
            (true, false) => Verdict::KillAfter,
            (false, _) => Verdict::Pass,
        }
    });
    stage.like(calm, what, FAULTS, true).await;
    let deaths = stage.operator.deaths();
    assert!(deaths <= 1, "{what}: died {deaths} times");
    stage.end().await;
    deaths == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_is_two_moments() {
        let writes = ["POST events", "PATCH a", "POST events"].map(str::to_owned);
        let found: Vec<_> = moments(&writes).into_iter().map(|one| (one.write, one.number, one.before)).collect();
        assert_eq!(found.len(), 6);
        assert_eq!(found[4..], [("POST events".to_owned(), 1, true), ("POST events".to_owned(), 1, false)]);
    }
}
