//! Histories under faults: two replicas behind the gateway, real servers, and clients that write down what
//! they asked and what they were told, while replicas and servers are killed, frozen and restarted, clocks
//! differ, tiers are emptied and commits are cut off. In the end plain checkers compare all that was told
//! with all that is there.

mod books;
mod clients;
mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{
    history::{feed, ledger, register, set, transfers},
    scale, seed, wait,
};
use reqwest::Method;
use serde_json::json;

use self::{
    clients::{Clients, Histories},
    world::World,
};

/// How often the list of faults is gone through.
const ROUNDS: (usize, usize) = (1, 60);
/// Requests whose commit is cut off before the histories begin.
const CUT_ANSWERS: usize = 4;
/// How long orders and events may take once nothing hinders them.
const SETTLE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_replicas_tell_under_faults_is_what_one_right_service_would() {
    let Some(mut world) = World::open("histories under faults").await else { return };
    let seed = seed::of("histories");
    a_cut_commit_is_answered_honestly(&world, seed).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let clients = Clients::open(&world, seed, stopped.clone()).await;
    let histories = clients.histories.clone();
    let working = clients.start();
    let begun = Instant::now();
    let mut choices = seed::choices(seed);
    for _ in 0..scale::of(ROUNDS.0, ROUNDS.1) {
        for fault in world::shuffled(&mut choices) {
            eprintln!("{:>7.2?}: {fault:?}", begun.elapsed());
            world.suffer(fault, &mut choices).await;
        }
    }
    stopped.store(true, Ordering::Relaxed);
    for client in working {
        client.await.unwrap();
    }
    eprintln!("{:>7.2?}: the clients have ended", begun.elapsed());
    world.is_well().await;
    books::settled(&world, SETTLE).await;
    let found = violations(&world, &histories, seed).await;
    eprintln!("{:>7.2?}: all was compared", begun.elapsed());
    assert!(found.is_empty(), "FLYWEIGHT_SEED={seed}:\n{}", found.join("\n"));
}

/// Everything that does not fit together.
async fn violations(world: &World, histories: &Histories, seed: u32) -> Vec<String> {
    let Histories { registers, transfers, adds, orders } = histories;
    let topic = books::topic(world);
    let (registers, transfers) = (registers.operations(), transfers.operations());
    let (adds, orders) = (adds.operations(), orders.operations());
    eprintln!(
        "{} reads and writes, {} transfers, {} additions, {} orders; {} events",
        registers.len(),
        transfers.len(),
        adds.len(),
        orders.len(),
        topic.len()
    );
    for (what, history) in [
        ("registers", outcomes(&registers)),
        ("transfers", outcomes(&transfers)),
        ("additions", outcomes(&adds)),
        ("orders", outcomes(&orders)),
    ] {
        eprintln!("{what}: {} done, {} refused, {} unknown", history[0], history[1], history[2]);
        assert!(history[0] > 20, "{what}: too little was done to say anything");
    }
    let mut found = Vec::new();
    let records =
        books::chains(world, &clients::registers(seed), |data| data["name"].as_str().unwrap().to_owned())
            .await;
    found.extend(register::violations(&registers, &records));
    let state = |data: &serde_json::Value| transfers::State {
        balance: data["profile"]["balance"].as_i64().unwrap(),
        by: data["profile"]["by"].as_str().unwrap().to_owned(),
    };
    let accounts = books::chains(world, &clients::accounts(seed), state).await;
    let sum = clients::BALANCE * accounts.len() as i64;
    found.extend(transfers::violations(&transfers, &accounts, sum));
    let mut newest = books::newest(&records);
    newest.extend(books::newest(&accounts));
    found.extend(feed::violations(&books::told(&topic), &newest));
    found.extend(books::differing(world, &newest).await);
    let list = books::elements(world, seed).await;
    found.extend(set::violations(&adds, &list, &books::told_elements(&topic, seed)));
    found.extend(ledger::violations(&orders, &books::ledger(world, seed).await));
    found
}

/// How many were done, refused, and left unknown.
fn outcomes<A>(history: &[harness::history::Operation<A>]) -> [usize; 3] {
    use harness::history::Outcome::{Done, Refused, Unknown};
    [Done, Refused, Unknown]
        .map(|outcome| history.iter().filter(|operation| operation.outcome == outcome).count())
}

/// Whoever was told that nobody knows finds out by asking again under the same key: it is done once, whether
/// the server had committed or not.
async fn a_cut_commit_is_answered_honestly(world: &World, seed: u32) {
    let pod = world.pod(0);
    let mut unknown = 0;
    // the relays commit too, and what they ask may be what is cut
    for n in 0..100 {
        let key = format!("cut-{seed}-{n}");
        let body = json!({ "email": format!("{key}@example.com"), "name": "C" });
        let ask = async || pod.send(Method::POST, "/api/v1/users", &[("idempotency-key", &key)], &body).await;
        world.way.cut(1);
        let first = ask().await;
        world.way.spare();
        if first.status == 504 {
            assert_eq!(first.json()["type"], "urn:flyweight:problem:unknown-outcome", "{}", first.text);
            unknown += 1;
        }
        let again = wait::until("an answer", Duration::from_secs(20), async || {
            let again = ask().await;
            (again.status == 201).then_some(again)
        });
        let again = again.await;
        assert!(first.status == 504 || first.text == again.text, "{} and then {}", first.text, again.text);
        assert_eq!(ask().await.text, again.text, "the first answer again");
        let found = pod.get(&format!("/api/v1/users/search?email={key}@example.com")).await;
        assert_eq!(found.json()["items"].as_array().unwrap().len(), 1, "{}", found.text);
        if unknown == CUT_ANSWERS {
            return;
        }
    }
    panic!("only {unknown} answers were cut off");
}
