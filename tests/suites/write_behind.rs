//! Acknowledged writes of a write-behind pool are there after `kill -9` at any point, over SQLite and over
//! Kafka with MongoDB, and over MySQL alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use harness::{client::Api, manifests, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

const CLIENTS: usize = 8;
const KEYS: usize = 5;
const KILLS: usize = 6;
/// Acknowledged writes between two kills.
const BETWEEN: usize = 150;
const PATIENCE: Duration = Duration::from_secs(60);

/// What each key was acknowledged at: the version, and the number that was written.
type Acknowledged = Arc<Mutex<Vec<(u64, u64)>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_acknowledged_write_of_the_embedded_log() {
    killed(Stage::embedded_with(manifests::write_behind_samples)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_acknowledged_write_of_the_log_in_kafka() {
    let Some(stage) =
        Stage::real_with("kill -9 of write-behind over Kafka", manifests::write_behind_samples).await
    else {
        return;
    };
    killed(stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_acknowledged_write_of_the_log_in_mysql() {
    let write = |dir: &std::path::Path| {
        manifests::write_samples_over(dir, &["mysql"], "");
        manifests::make_write_behind(dir);
    };
    let Some(stage) = Stage::on_mysql("kill -9 of write-behind over MySQL alone", write).await else {
        return;
    };
    // another replica follows the same log
    let replica = tokio::task::block_in_place(|| stage.replica());
    killed(stage).await;
    drop(replica);
}

/// Kills and restarts the data plane while clients count up, each its own keys.
async fn killed(mut stage: Stage) {
    let acknowledged: Acknowledged = Arc::new(Mutex::new(vec![(0, 0); CLIENTS * KEYS]));
    let (writes, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            tokio::spawn(count_up(
                stage.api.clone(),
                client,
                acknowledged.clone(),
                writes.clone(),
                stop.clone(),
            ))
        })
        .collect();
    for _ in 0..KILLS {
        let due = writes.load(Ordering::SeqCst) + BETWEEN;
        wait::until("enough writes", PATIENCE, async || (writes.load(Ordering::SeqCst) >= due).then_some(()))
            .await;
        tokio::task::block_in_place(|| {
            stage.data_plane.kill();
            stage.data_plane.restart();
        });
    }
    let due = writes.load(Ordering::SeqCst) + BETWEEN;
    wait::until("writes after the last kill", PATIENCE, async || {
        (writes.load(Ordering::SeqCst) >= due).then_some(())
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    check(&stage.api, &acknowledged).await;
    wait::until("the store to have all", PATIENCE, async || {
        let stats = stage.api.get("/api/v1/factory/stats").await.json();
        (stats["pools"]["configurations"]["write_behind"]["waiting"] == 0).then_some(())
    })
    .await;
    // and once more from the store alone
    tokio::task::block_in_place(|| {
        stage.data_plane.kill();
        stage.data_plane.restart();
    });
    check(&stage.api, &acknowledged).await;
    let stats = stage.api.get("/api/v1/factory/stats").await.json();
    let lag = &stats["pools"]["configurations"]["write_behind"];
    assert_eq!(lag["conflicts"], 0, "{lag}");
    eprintln!("{}: {} acknowledged writes, {KILLS} kills, 0 lost", stage.name, writes.load(Ordering::SeqCst));
}

/// Counts up the client's keys in turn until told to stop; what was not answered may have happened.
async fn count_up(
    api: Api,
    client: usize,
    acknowledged: Acknowledged,
    writes: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) {
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let at = client * KEYS + n as usize % KEYS;
        let body = json!({ "value": n }).to_string().into_bytes();
        match api.call(Method::PUT, &path(at), &[], Some(body)).await {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                let version = answer.json()["version"].as_u64().unwrap();
                let before = std::mem::replace(&mut acknowledged.lock().unwrap()[at], (version, n));
                assert!(version > before.0, "{}: version {version} after {}", path(at), before.0);
                writes.fetch_add(1, Ordering::SeqCst);
                let read =
                    api.call(Method::GET, &path(at), &[("if-min-version", &version.to_string())], None).await;
                if let Ok(read) = read.map(|read| (read.status, read.json())).as_ref() {
                    assert!(
                        read.0 == 503 || read.1["value"] == n,
                        "{}: {n} was written, {read:?} was read",
                        path(at)
                    );
                }
            }
            Ok(answer) if matches!(answer.status, 503 | 504) => tokio::task::yield_now().await,
            Ok(answer) => panic!("{}: {}", answer.status, answer.text),
            // killed while it answered
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Every key has what was acknowledged, or what its client wrote later without an answer.
async fn check(api: &Api, acknowledged: &[(u64, u64)]) {
    for (at, (version, n)) in acknowledged.iter().enumerate() {
        let read = wait::until("the read", PATIENCE, async || {
            let read = api.get_with(&path(at), &[("if-min-version", &version.to_string())]).await;
            (read.status == 200).then_some(read)
        })
        .await
        .json();
        let later = |field: &Value, than: u64| field.as_u64().is_some_and(|found| found >= than);
        assert!(
            later(&read["version"], *version) && later(&read["value"], *n),
            "{}: {read}, {version} {n}",
            path(at)
        );
    }
}

fn path(at: usize) -> String {
    format!("/api/v1/configurations/counter-{at}")
}
