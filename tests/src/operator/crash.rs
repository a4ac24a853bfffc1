//! The operator is killed before and after each of its writes: the end is the same every time.

use std::{
    collections::BTreeMap,
    fmt,
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
/// How many lives a moment gets: what is written last depends on how fast the cluster's own controllers are,
/// so that a life may do without it. The first is lived beside others, the further ones alone, as the calm
/// life was: beside others a status that lasts for an instant only is not written.
const TRIES: usize = 3;
/// After so many lives it is told how many there were.
const TOLD_EVERY: usize = 12;
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

/// Lives two lives without faults, then one for each moment at which the operator can die.
pub async fn run(proof: &Proof) -> Calm {
    proof.step("The operator is killed before and after its writes");
    // The first life in a cluster is slower than those after it, and tells of states in between that no other
    // sees: its writes count where the next has them too.
    let (first, calm) = (calm(proof).await, calm(proof).await);
    let writes = common(&calm.writes, &first.writes);
    proof.holds(&format!(
        "without faults: {} and {} writes in five phases, {} of them in both lives",
        first.writes.len(),
        calm.writes.len(),
        writes.len()
    ));
    let mut moments = moments(&writes);
    let all = moments.len();
    if !proof.soak {
        moments.shuffle(&mut StdRng::seed_from_u64(proof.seed));
        moments.truncate(SAMPLE);
    }
    let tried = moments.len();
    let lived = AtomicUsize::new(0);
    let lives = stream::iter(moments).map(async |moment| {
        let met = life(proof, &calm, &moment).await;
        let lived = lived.fetch_add(1, Ordering::Relaxed) + 1;
        if lived.is_multiple_of(TOLD_EVERY) {
            println!("   {lived} of {tried} lives");
        }
        (!met).then_some(moment)
    });
    let rest: Vec<Moment> = lives.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let mut unmet = Vec::new();
    for moment in rest {
        if !met_alone(proof, &calm, &moment).await {
            unmet.push(moment.to_string());
        }
    }
    let met = tried - unmet.len();
    assert!(
        unmet.len() * 100 <= tried * UNMET_MAX_PERCENT,
        "only {met} of {tried} moments came: without {unmet:?}"
    );
    let without = if unmet.is_empty() { String::new() } else { format!(" (without {})", unmet.join(", ")) };
    proof.holds(&format!(
        "{met} of {tried} moments tried, of {all}, each with one death: the same end every time{without}"
    ));
    calm
}

/// A life without faults.
async fn calm(proof: &Proof) -> Calm {
    let stage = Stage::new(proof, "calm").await;
    let calm = stage.calm().await;
    stage.end().await;
    calm
}

/// The writes of a life that another has, too: those of one name are as many as in the life that has fewer.
fn common(writes: &[String], other: &[String]) -> Vec<String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    other.iter().for_each(|write| *left.entry(write).or_default() += 1);
    let mut takes = |write: &&String| match left.get_mut(write.as_str()) {
        Some(left @ 1..) => {
            *left -= 1;
            true
        }
        _ => false,
    };
    writes.iter().filter(|write| takes(write)).cloned().collect()
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

/// Lives, alone, until the moment came; whether it did.
async fn met_alone(proof: &Proof, calm: &Calm, moment: &Moment) -> bool {
    for _ in 1..TRIES {
        if life(proof, calm, moment).await {
            return true;
        }
    }
    false
}

/// One life with one death; whether the operator died.
async fn life(proof: &Proof, calm: &Calm, moment: &Moment) -> bool {
    let Moment { write, number, before } = moment.clone();
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
    stage.like(calm, &moment.to_string(), FAULTS, true).await;
    let deaths = stage.operator.deaths();
    assert!(deaths <= 1, "{moment}: died {deaths} times");
    stage.end().await;
    deaths == 1
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { write, number, before } = self;
        write!(f, "killed {} {write} number {number}", if *before { "before" } else { "after" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_life_wrote_once_more_is_left_out() {
        let [a, b, c] = ["PATCH a", "PATCH b", "POST c"].map(str::to_owned);
        let (one, other) = ([a.clone(), b.clone(), a.clone()], [c, a.clone(), b.clone()]);
        assert_eq!(common(&one, &other), [a, b]);
    }

    #[test]
    fn each_write_is_two_moments() {
        let writes = ["POST events", "PATCH a", "POST events"].map(str::to_owned);
        let found: Vec<_> =
            moments(&writes).into_iter().map(|one| (one.write, one.number, one.before)).collect();
        assert_eq!(found.len(), 6);
        assert_eq!(found[4..], [("POST events".to_owned(), 1, true), ("POST events".to_owned(), 1, false)]);
    }
}
