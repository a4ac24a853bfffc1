//! A crash at each step from a write to its event ends in the same state as none: nothing lost, nothing
//! twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use harness::{client::Api, seed, wait};

use crate::{durability, feed, stage::Stage};

/// The points over embedded stores, whose users and products are in two files, and how often each is passed
/// before the crash.
const EMBEDDED: [&str; 11] = [
    "sqlite.commit.before:1",
    "sqlite.commit.before:3",
    "sqlite.commit.after:1",
    "sqlite.commit.after:4",
    "mysql.relay.claimed:1",
    "mysql.relay.published:1",
    "mysql.relay.published:2",
    "mysql.relay.confirmed:1",
    "mongodb.relay.claimed:1",
    "mongodb.relay.published:1",
    "mongodb.relay.confirmed:1",
];
/// The points over real servers: each step of each outbox.
const REAL: [&str; 13] = [
    "mysql.commit.before:2",
    "mysql.commit.after:1",
    "mysql.relay.claimed:1",
    "mysql.relay.published:2",
    "mysql.relay.confirmed:1",
    "mongodb.commit.before:1",
    "mongodb.commit.after:2",
    "mongodb.relay.claimed:1",
    "mongodb.relay.published:1",
    "mongodb.outbox.answered:1",
    "mongodb.outbox.filed:1",
    "mongodb.outbox.pulled:1",
    "mongodb.relay.confirmed:1",
];
/// Records written around each crash, at least; and fewer than so many.
const RECORDS: usize = 6;
const RECORDS_MAX: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_each_step_changes_nothing_in_embedded_stores() {
    crashed(Stage::embedded(), &EMBEDDED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_each_step_changes_nothing_over_real_servers() {
    let Some(stage) = Stage::real("crashes at each step over real servers").await else { return };
    crashed(stage, &REAL).await;
}

async fn crashed(mut stage: Stage, points: &[&str]) {
    let seed = seed::of("failpoints");
    eprintln!("stage: {}", stage.name);
    let api = stage.api.clone();
    for (at, point) in points.iter().enumerate() {
        let since = feed::place(&api).await;
        feed::drained(&api, Duration::from_secs(60)).await;
        tokio::task::block_in_place(|| {
            stage.data_plane.kill();
            stage.data_plane.restart_to_crash(point);
        });
        let has_crashed = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn({
            let (api, has_crashed) = (api.clone(), has_crashed.clone());
            async move {
                let mut paths = Vec::new();
                // several events may have gone together: then it takes more of them to come to the point
                while paths.len() < RECORDS || !has_crashed.load(Ordering::Relaxed) {
                    paths.push(durability::write(&api, seed, at * RECORDS_MAX + paths.len()).await);
                }
                paths
            }
        });
        wait::until(&format!("the crash at {point}"), Duration::from_secs(60), async || {
            stage.data_plane.has_ended().then_some(())
        })
        .await;
        has_crashed.store(true, Ordering::Relaxed);
        tokio::task::block_in_place(|| stage.data_plane.restart());
        let paths = writing.await.unwrap();
        durability::check(&api, &since, &paths).await;
        nothing_is_left(&api).await;
        eprintln!("{point}: nothing lost, nothing twice");
    }
}

/// No outbox holds anything, not even a mark of what it held.
async fn nothing_is_left(api: &Api) {
    wait::until("outboxes without a trace", Duration::from_secs(30), async || {
        let health = api.get("/api/v1/health").await.json();
        let outboxes = health["queues"]["outbox"].as_object()?;
        outboxes.values().all(|outbox| outbox["events"] == 0 && outbox["oldest_ms"] == 0).then_some(())
    })
    .await;
}
