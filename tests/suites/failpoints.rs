//! A crash at each step from a write to its event ends in the same state as none: nothing lost, nothing twice.

use std::time::Duration;

use harness::wait;

use crate::{durability, feed, stage::Stage};

/// The points, and how often each is passed before the crash.
const POINTS: [&str; 8] = [
    "commit.before:1",
    "commit.before:3",
    "commit.after:1",
    "commit.after:4",
    "relay.claimed:1",
    "relay.published:1",
    "relay.published:2",
    "relay.confirmed:1",
];
/// Records written around each crash.
const RECORDS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_each_step_changes_nothing_in_embedded_stores() {
    crashed(Stage::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_each_step_changes_nothing_over_real_servers() {
    let Some(stage) = Stage::real("crashes at each step over real servers").await else { return };
    crashed(stage).await;
}

async fn crashed(mut stage: Stage) {
    let seed: u32 = rand::random();
    eprintln!("stage: {}, seed: {seed}", stage.name);
    let api = stage.api.clone();
    for (at, point) in POINTS.into_iter().enumerate() {
        let since = feed::place(&api).await;
        feed::drained(&api, Duration::from_secs(60)).await;
        tokio::task::block_in_place(|| {
            stage.data_plane.kill();
            stage.data_plane.restart_with(&[("FLYWEIGHT_CRASH_AT", point)]);
        });
        let writing = tokio::spawn({
            let api = api.clone();
            async move {
                let mut paths = Vec::new();
                for n in 0..RECORDS {
                    paths.push(durability::write(&api, seed, at * RECORDS + n).await);
                }
                paths
            }
        });
        wait::until(&format!("the crash at {point}"), Duration::from_secs(60), async || {
            stage.data_plane.has_ended().then_some(())
        })
        .await;
        tokio::task::block_in_place(|| stage.data_plane.restart());
        let paths = writing.await.unwrap();
        durability::check(&api, &since, &paths).await;
        eprintln!("{point}: nothing lost, nothing twice");
    }
}
