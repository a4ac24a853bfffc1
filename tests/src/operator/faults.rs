//! An API server that conflicts, throttles, fails, lies, is slow and stale, and whose watches lag and break:
//! the end is the same, without a hot loop.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Proof,
    proxy::{Call, Verdict},
    scenario::{Calm, FAULTS, Lived, Stage},
};

/// Attempts to write one object within one second.
const BUSY_MAX: usize = 1;
/// How many times in a row each status and each deletion is in conflict in the first life: whoever does not
/// try again is late, and whoever does so at once is busy.
const CONFLICTS: usize = 3;
const LIVES: u64 = 3;
const LIVES_SOAK: u64 = 20;
/// How many lives are lived at once.
const AT_ONCE: usize = 4;
/// What must have gone wrong at least once.
const KINDS: [&str; 10] = [
    "409",
    "410",
    "429",
    "500",
    "lost answer",
    "slow answer",
    "dropped watch",
    "stale watch",
    "stale list",
    "failed list",
];
/// How long no write succeeds in each phase of the last life.
const OUTAGE: Duration = Duration::from_secs(12);

/// Lives several lives under random faults, and one in which every phase begins with an outage.
pub async fn run(proof: &Proof, calm: &Calm) {
    proof.step("The API server conflicts, throttles, fails, lies, is slow and stale; watches lag and break");
    let lives: Vec<u64> = (0..if proof.soak { LIVES_SOAK } else { LIVES }).collect();
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    for some in lives.chunks(AT_ONCE - 1) {
        let faulty = join_all(some.iter().map(|number| life(proof, calm, *number)));
        let (faults, ()) = tokio::join!(faulty, async {
            if some.contains(&0) {
                outage(proof, calm).await;
            }
        });
        faults.into_iter().flatten().for_each(|(kind, count)| *all.entry(kind).or_default() += count);
    }
    let never: Vec<&str> = KINDS.into_iter().filter(|kind| !all.contains_key(kind)).collect();
    assert!(never.is_empty(), "never happened, so that nothing is shown of it: {never:?}");
    let counts: Vec<String> = all.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    proof.holds(&format!("what went wrong: {}", counts.join(", ")));
}

/// A life under random faults; how often what went wrong.
async fn life(proof: &Proof, calm: &Calm, number: u64) -> BTreeMap<&'static str, usize> {
    let seed = proof.seed.wrapping_add(number);
    let stage = Stage::new(proof, "faults").await;
    let state = Mutex::new((StdRng::seed_from_u64(seed), BTreeMap::new()));
    stage.proxy.rule(move |call| {
        let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (random, conflicts) = &mut *state;
        if number == 0 && (call.method == "DELETE" || call.write.is_some() && call.path.ends_with("/status"))
        {
            let had: &mut usize = conflicts.entry(call.path.clone()).or_default();
            *had += 1;
            if *had <= CONFLICTS {
                return Verdict::Refuse(409);
            }
        }
        verdict(call, random)
    });
    let lived = stage.like(calm, &format!("seed {seed}"), FAULTS, false).await;
    report(&stage, &format!("seed {seed}"), &lived);
    let faults = stage.proxy.faulted();
    stage.end().await;
    faults
}

/// A life in which no write succeeds at the beginning of each phase.
async fn outage(proof: &Proof, calm: &Calm) {
    let stage = Stage::new(proof, "outage").await;
    let number = std::sync::atomic::AtomicUsize::new(0);
    stage.proxy.rule(move |call| match call.write {
        Some(_) => {
            let statuses = [500, 429, 409];
            let next = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Verdict::Refuse(statuses[next % statuses.len()])
        }
        None => Verdict::Pass,
    });
    let lived = stage.like(calm, "an outage", OUTAGE, false).await;
    assert!(!lived.recoveries.is_empty(), "nothing had to recover: the life shows nothing");
    report(&stage, "an outage", &lived);
    stage.end().await;
}

/// Asserts that there was no hot loop, and prints how the life went.
fn report(stage: &Stage, what: &str, Lived { busiest: (busiest, object), recoveries }: &Lived) {
    let (attempts, taken) = (stage.proxy.tried(), stage.proxy.written().len());
    assert!(*busiest <= BUSY_MAX, "{what}: {busiest} attempts within a second: {object}");
    let recovered = match recoveries.iter().max() {
        None => "each phase ended under faults".to_owned(),
        Some(slowest) => {
            format!("{} phases ended after them, within {:.1} s", recoveries.len(), slowest.as_secs_f64())
        }
    };
    stage.proof.holds(&format!(
        "{what}: {attempts} attempts to write, {taken} taken, at most {busiest} of one object within a second; {recovered}"
    ));
}

fn verdict(call: &Call, random: &mut StdRng) -> Verdict {
    let die = random.random_range(0..100);
    match (call.is_watch, call.write.is_some()) {
        // A watch that goes silent for a second and breaks: what came in between is lost on the way.
        (true, _) if die < 8 => Verdict::Refuse(410),
        (true, _) if die < 60 => Verdict::Cut(Duration::from_millis(random.random_range(300..6000))),
        (true, _) if die < 80 => Verdict::Late(Duration::from_millis(random.random_range(100..3000))),
        (_, true) if die < 8 => Verdict::Refuse(409),
        (_, true) if die < 16 => Verdict::Refuse(429),
        (_, true) if die < 24 => Verdict::Refuse(500),
        (_, true) if die < 32 => Verdict::Lie(500),
        (_, true) if die < 42 => Verdict::Slow(Duration::from_millis(random.random_range(100..3000))),
        (false, false) if die < 10 => Verdict::Refuse(500),
        // Not of the author's resources: a wish of before is a wish like any other.
        (false, false) if die < 40 && call.is_list && !call.path.contains("flyweight.dev") => Verdict::Stale,
        _ => Verdict::Pass,
    }
}
