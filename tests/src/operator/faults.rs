//! An API server that conflicts, throttles, fails, lies, is slow, and whose watches lag and break: the end is the same, without a hot loop.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Proof,
    proxy::{Call, Verdict},
    scenario::{Calm, Lived, Stage},
};

/// Writes to one object within one second.
const BUSY_MAX: usize = 1;
/// How many times in a row each status is in conflict in the first life: whoever does not try again is late.
const CONFLICTS: usize = 3;
const LIVES: u64 = 3;
const LIVES_SOAK: u64 = 20;

/// Lives several lives under random faults.
pub async fn run(proof: &Proof, calm: &Calm) {
    proof.step("The API server conflicts, throttles, fails, lies and is slow; watches lag and break");
    let lives = if proof.soak { LIVES_SOAK } else { LIVES };
    for life in 0..lives {
        let seed = proof.seed.wrapping_add(life);
        let stage = Stage::new(proof, "faults").await;
        let state = Mutex::new((StdRng::seed_from_u64(seed), BTreeMap::new()));
        stage.proxy.rule(move |call| {
            let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (random, statuses) = &mut *state;
            let told: &mut usize = statuses.entry(call.path.clone()).or_default();
            *told += 1;
            let stubborn = life == 0 && call.write.is_some() && call.path.ends_with("/status");
            if stubborn && *told <= CONFLICTS { Verdict::Refuse(409) } else { verdict(call, random) }
        });
        let Lived { busiest: (busiest, what), recoveries } = stage.like(calm, &format!("seed {seed}")).await;
        let (written, faults) = (stage.proxy.written().len(), stage.proxy.faulted());
        assert!(busiest <= BUSY_MAX, "seed {seed}: {busiest} writes within a second: {what}");
        assert!(faults > 0, "seed {seed}: nothing went wrong: the life shows nothing");
        let recovered = match recoveries.iter().max() {
            None => "each phase ended under faults".to_owned(),
            Some(slowest) => {
                format!("{} phases ended after them, within {:.1} s", recoveries.len(), slowest.as_secs_f64())
            }
        };
        proof.holds(&format!(
            "seed {seed}: {faults} faults, {written} writes, at most {busiest} to one object within a second; {recovered}"
        ));
        stage.end().await;
    }
}

fn verdict(call: &Call, random: &mut StdRng) -> Verdict {
    let die = random.random_range(0..100);
    match (call.is_watch, call.write.is_some()) {
        // A watch that goes silent for a second and breaks: what came in between is lost on the way.
        (true, _) if die < 5 => Verdict::Refuse(410),
        (true, _) if die < 60 => Verdict::Cut(Duration::from_millis(random.random_range(300..6000))),
        (_, true) if die < 8 => Verdict::Refuse(409),
        (_, true) if die < 16 => Verdict::Refuse(429),
        (_, true) if die < 24 => Verdict::Refuse(500),
        (_, true) if die < 32 => Verdict::Lie(500),
        (_, true) if die < 36 => Verdict::Slow(Duration::from_millis(random.random_range(100..3000))),
        (false, false) if die < 10 => Verdict::Refuse(500),
        _ => Verdict::Pass,
    }
}
