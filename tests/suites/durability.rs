//! What was answered with 201 is there after `kill -9`, over SQLite and over MySQL.

use std::time::Duration;

use harness::{client::Api, wait};
use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

const CREATES: usize = 1_000;
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_answered_create_in_sqlite() {
    killed(Stage::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_answered_create_in_mysql() {
    let Some(stage) = Stage::real("kill -9 over MySQL").await else { return };
    killed(stage).await;
}

/// Creates users from several clients, and kills and restarts the data plane while they are at it.
async fn killed(mut stage: Stage) {
    let seed: u32 = rand::random();
    eprintln!("stage: {}, seed: {seed}", stage.name);
    let api = stage.api.clone();
    let answered = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (api, answered, next) = (api.clone(), answered.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= CREATES {
                        return;
                    }
                    create(&api, &answered, seed, n).await;
                }
            })
        })
        .collect();
    let mut broken = 0;
    for kill in 1..=KILLS {
        let due = CREATES * kill / (KILLS + 1);
        wait::until("enough creates", Duration::from_secs(60), async || {
            (answered.lock().unwrap().len() >= due).then_some(())
        })
        .await;
        broken += 1;
        tokio::task::block_in_place(|| {
            stage.data_plane.kill();
            stage.data_plane.restart();
        });
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(broken, KILLS);
    let answered = answered.lock().unwrap().clone();
    assert_eq!(answered.len(), CREATES);
    for path in &answered {
        let read = api.get(path).await;
        assert_eq!(read.status, 200, "{path} was answered with 201");
    }
    let mut distinct = answered.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), CREATES);
}

/// Creates one user; a create that was not answered is tried again under the same id, and may turn out to have happened.
async fn create(api: &Api, answered: &std::sync::Mutex<Vec<String>>, seed: u32, n: usize) {
    let id = format!("u-{seed}-{n}");
    let body = json!({ "id": id, "email": format!("{id}@example.com"), "name": "A" }).to_string().into_bytes();
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "{id}: no answer");
        match api.call(Method::POST, "/api/v1/users", &[], Some(body.clone())).await {
            Ok(answer) if matches!(answer.status, 201 | 409) => break,
            Ok(answer) if answer.status != 503 => panic!("{}: {}", answer.status, answer.text),
            // Not ready again yet, or killed while it answered.
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
    answered.lock().unwrap().push(format!("/api/v1/users/{id}"));
}
