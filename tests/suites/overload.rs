//! Five times the load that can be borne: what is accepted is as much as before and nearly as quick, the rest is told so early, and all is well
//! again when the load goes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, scale, wait};
use reqwest::Method;
use serde_json::json;

use crate::stage::Stage;

/// Clients that keep the store busy.
const CLIENTS: usize = 64;
/// How many times as many are too many.
const TOO_MANY: usize = 5;

/// What a load got.
struct Load {
    goodput: f64,
    p99: Duration,
    refused: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_refused_early_and_the_rest_is_served() {
    if !scale::is_soak() {
        // beside other suites it would measure the machine
        eprintln!("left to make soak");
        return;
    }
    overloaded(&Stage::embedded()).await;
}

async fn overloaded(stage: &Stage) {
    let length = Duration::from_secs(60);
    let normal = load(&stage.api, CLIENTS, length).await;
    let admin = Api::at(&stage.data_plane.admin);
    let probes = async {
        let (start, mut slowest) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < length {
            let asked = Instant::now();
            assert_eq!(admin.get("/livez").await.status, 200);
            assert_eq!(admin.get("/metrics").await.status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (over, slowest_probe) = tokio::join!(load(&stage.api, CLIENTS * TOO_MANY, length), probes);
    let start = Instant::now();
    wait::until("recovery", Duration::from_secs(5), async || {
        (load(&stage.api, 8, Duration::from_millis(300)).await.refused == 0).then_some(())
    })
    .await;
    eprintln!(
        "normal: {:.0}/s, p99 {:?}; overload: {:.0}/s, p99 {:?}, {} refused; slowest probe {slowest_probe:?}; recovered in {:?}",
        normal.goodput,
        normal.p99,
        over.goodput,
        over.p99,
        over.refused,
        start.elapsed()
    );
    assert_eq!(normal.refused, 0, "the normal load is borne");
    assert!(over.refused > 0, "the overload was none");
    assert!(over.goodput >= 0.9 * normal.goodput, "goodput fell");
    assert!(over.p99 <= 4 * normal.p99, "accepted writes became slow");
}

/// Creates users from so many clients for a while. A refused client waits a little, as it is told.
async fn load(api: &Api, clients: usize, length: Duration) -> Load {
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let times = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (api, stop, refused, times) = (api.clone(), stop.clone(), refused.clone(), times.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let body = json!({ "email": format!("{}@example.com", rand::random::<u128>()), "name": "A" });
                    let sent = Instant::now();
                    let answer =
                        api.call(Method::POST, "/api/v1/users", &[], Some(body.to_string().into_bytes())).await;
                    let answer = answer.unwrap();
                    match answer.status {
                        201 => times.lock().unwrap().push(sent.elapsed()),
                        503 => {
                            assert!(!answer.header("retry-after").is_empty());
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                        }
                        other => panic!("{other}: {}", answer.text),
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let elapsed = start.elapsed();
    let mut times = std::mem::take(&mut *times.lock().unwrap());
    times.sort();
    let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    Load { goodput: times.len() as f64 / elapsed.as_secs_f64(), p99, refused: refused.load(Ordering::Relaxed) }
}
