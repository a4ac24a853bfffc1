//! Two operators: one works. A leader that slept past its Lease writes nothing when it wakes, and one that
//! loses it while both are awake stops in time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Proof,
    process::{Operator, Options},
    proxy::{Attempt, Proxy, Verdict},
    scenario::Stage,
    shop,
};
use crate::wait;

const TAKEOVER: Duration = Duration::from_secs(40);
/// Looks at the Lease, one a second, after which the first has noticed that it is not the leader; what waited
/// for it came before.
const LOOKS: usize = 3;
/// How long the write is under way in whose middle the leader falls asleep: almost as long as one may take.
const UNDER_WAY: Duration = Duration::from_secs(4);
/// How often the Lease changes hands while both are awake.
const TURNS: u32 = 3;

/// Puts the leader to sleep, lets the other take over, and wakes the first. Then each in turn loses sight of
/// the Lease.
pub async fn run(proof: &Proof) {
    proof.step("Two operators: one that slept past its Lease, and two that are awake");
    let first = Stage::new(proof, "lease").await;
    shop::make(&proof.api, &first.namespace).await;
    first.quiet().await;
    let proxy = Proxy::start(&proof.api.base).await;
    let options = Options::new(&proxy.base, &first.namespace, "second");
    let second = Operator::start(&options);
    sleep_and_wake(&first, &proxy).await;
    take_turns(&first, &proxy).await;
    drop(second);
    first.end().await;
}

/// The leader falls asleep in the middle of a write.
async fn sleep_and_wake(first: &Stage, second: &Proxy) {
    let (stop, asleep) = (first.operator.signaller("STOP"), Arc::new(AtomicBool::new(false)));
    let sleeps = asleep.clone();
    first.proxy.rule(move |call| match call.write {
        Some(_) if call.path.ends_with("/deployments/shop-main") && !sleeps.swap(true, Ordering::Relaxed) => {
            stop();
            Verdict::Slow(UNDER_WAY)
        }
        _ => Verdict::Pass,
    });
    scale(first, 3).await;
    wait::until("the first to sleep", TAKEOVER, async || asleep.load(Ordering::Relaxed).then_some(())).await;
    let slept = Instant::now();
    // Nothing is left to do when it has arrived.
    wait::until("its write to arrive", TAKEOVER, async || has_pods(first, 3).await.then_some(())).await;
    let before = first.proxy.tried();
    scale(first, 4).await;
    wait::until("the second to write", TAKEOVER, async || (!second.written().is_empty()).then_some(())).await;
    first
        .proof
        .holds(&format!("a write was under way; the second took over after {} s", slept.elapsed().as_secs()));
    // Something to do lies ready for both.
    scale(first, 5).await;
    let looks = first.proxy.lease_calls();
    first.operator.signal("CONT");
    wait::until("the second to go on", TAKEOVER, async || has_pods(first, 5).await.then_some(())).await;
    wait::until("the first to look at the Lease", TAKEOVER, async || {
        (first.proxy.lease_calls() >= looks + LOOKS).then_some(())
    })
    .await;
    assert_eq!(
        first.proxy.tried(),
        before,
        "the first wrote without the Lease: {:?}",
        first.proxy.attempts().last()
    );
    first.proof.holds("the first woke, and wrote nothing");
    let turns = turns(&first.proxy, second);
    assert_eq!(turns.len(), 2, "both wrote at one time: {turns:?}");
    first
        .proof
        .holds(&format!("{} writes of the first, then {} of the second, never both", turns[0], turns[1]));
}

/// Each in turn is kept from the Lease, and from nothing else.
async fn take_turns(first: &Stage, second: &Proxy) {
    let before = turns(&first.proxy, second).len();
    for turn in 0..TURNS {
        let (leader, other) = if turn % 2 == 0 { (second, &*first.proxy) } else { (&*first.proxy, second) };
        leader.rule(|call| if call.is_lease() { Verdict::Refuse(500) } else { Verdict::Pass });
        let written = other.written().len();
        // There is always something to do, for whoever leads.
        let mut replicas = 6;
        wait::until("the other to write", TAKEOVER, async || {
            replicas = 13 - replicas;
            scale(first, replicas).await;
            (other.written().len() > written).then_some(())
        })
        .await;
        leader.rule(|_| Verdict::Pass);
    }
    let turns = turns(&first.proxy, second);
    assert_eq!(turns.len() - before, TURNS as usize, "they wrote in between each other: {turns:?}");
    first
        .proof
        .holds(&format!("both awake: the Lease changed hands {TURNS} times, writes by turns: {turns:?}"));
}

/// The numbers of writes by one of them in a row. None begins before those of the other have ended.
fn turns(first: &Proxy, second: &Proxy) -> Vec<usize> {
    let of = |proxy: &Proxy, who: u8| proxy.attempts().into_iter().map(move |attempt| (who, attempt));
    let mut all: Vec<(u8, Attempt)> = of(first, 1).chain(of(second, 2)).collect();
    all.sort_by_key(|(_, attempt)| attempt.at);
    for (number, (who, one)) in all.iter().enumerate() {
        let before = all.iter().take(number).filter(|(other, _)| other != who);
        let under_way =
            before.map(|(_, other)| other).find(|other| other.taken.is_some_and(|end| end >= one.at));
        assert!(under_way.is_none(), "both wrote at one time: {under_way:?} {one:?}");
    }
    all.chunk_by(|(one, _), (other, _)| one == other).map(<[_]>::len).collect()
}

async fn has_pods(stage: &Stage, replicas: u32) -> bool {
    let list = shop::children(&stage.proof.api, &stage.namespace).await;
    list.iter().any(|one| one["plural"] == "deployments" && one["spec"]["replicas"] == replicas)
}

async fn scale(stage: &Stage, replicas: u32) {
    let path = format!("{}/scale", shop::service_path(&stage.namespace));
    if let Err(refusal) = stage.proof.api.patch(&path, &json!({ "spec": { "replicas": replicas } })).await {
        panic!("{refusal}");
    }
}
