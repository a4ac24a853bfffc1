//! Each server behind the shop is killed and started again under traffic: reads and writes recover by
//! themselves, and no acknowledged write is lost.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, server::Server, wait};
use reqwest::Method;
use serde_json::json;

use crate::stage::{Servers, Stage};

/// How long the shop may take to serve again once a server is back.
const RECOVERY: Duration = Duration::from_secs(15);

/// Picks one of the servers.
type Part = fn(&mut Servers) -> &mut Server;

/// What the clients have seen.
#[derive(Default)]
struct Traffic {
    acknowledged: Mutex<Vec<(String, u64)>>,
    refused: AtomicUsize,
    failed_reads: AtomicUsize,
    slowest_ms: AtomicUsize,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_may_die_under_traffic() {
    let Some(mut stage) = Stage::real("faults of real servers").await else { return };
    let traffic = Arc::new(Traffic::default());
    let clients: Vec<_> =
        (0..4).map(|client| tokio::spawn(drive(stage.api.clone(), traffic.clone(), client))).collect();
    let parts: [(&str, Part); 4] = [
        ("mysql", |servers| &mut servers.mysql),
        ("mongodb", |servers| &mut servers.mongo),
        ("redis", |servers| &mut servers.redis),
        ("kafka", |servers| &mut servers.kafka),
    ];
    for (name, part) in parts {
        progress(&traffic, 50).await;
        wait::until(&format!("{name} before its fault"), Duration::from_secs(15), async || {
            (check(&stage, name).await == "healthy").then_some(())
        })
        .await;
        let server = part(stage.servers.as_mut().unwrap());
        tokio::task::block_in_place(|| server.kill());
        wait::until(&format!("{name} to be missed"), Duration::from_secs(15), async || {
            (check(&stage, name).await != "healthy").then_some(())
        })
        .await;
        let server = part(stage.servers.as_mut().unwrap());
        tokio::task::block_in_place(|| server.restart());
        wait::until(&format!("{name} to be back"), RECOVERY, async || {
            (check(&stage, name).await == "healthy").then_some(())
        })
        .await;
        writes_work(&stage.api).await;
        eprintln!("{name}: {} writes acknowledged so far", traffic.acknowledged.lock().unwrap().len());
    }
    traffic.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(traffic.refused.load(Ordering::Relaxed) > 0, "no write met a fault: the faults did not happen");
    let slowest = traffic.slowest_ms.load(Ordering::Relaxed);
    assert!(slowest < 12_000, "the slowest answer took {slowest} ms");
    let acknowledged = traffic.acknowledged.lock().unwrap().clone();
    for (path, version) in &acknowledged {
        let read = stage.api.get_with(path, &[("if-min-version", &version.to_string())]).await;
        assert_eq!(read.status, 200, "{path} was acknowledged at version {version}: {}", read.text);
    }
    backlog_drains(&stage).await;
}

/// Writes users and products, reads them back, and notes what was acknowledged.
async fn drive(api: Api, traffic: Arc<Traffic>, client: usize) {
    let mut n = 0;
    while !traffic.stop.load(Ordering::Relaxed) {
        n += 1;
        let tag = format!("{client}-{n}-{}", rand::random::<u32>());
        let (path, body) = match n % 2 {
            0 => ("/api/v1/users", json!({ "email": format!("{tag}@example.com"), "name": "A" })),
            _ => ("/api/v1/products", json!({ "name": tag, "price": 1 })),
        };
        let start = Instant::now();
        let answer = api.call(Method::POST, path, &[], Some(body.to_string().into_bytes())).await;
        note_time(&traffic, start);
        match answer {
            Ok(answer) if answer.status == 201 => {
                let location = answer.header("location").to_owned();
                let start = Instant::now();
                let read = api.get_with(&location, &[("if-min-version", "1")]).await;
                note_time(&traffic, start);
                if read.status != 200 {
                    traffic.failed_reads.fetch_add(1, Ordering::Relaxed);
                }
                traffic.acknowledged.lock().unwrap().push((location, 1));
            }
            Ok(answer) if answer.status >= 500 => {
                assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
                traffic.refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => panic!("{}: {}", answer.status, answer.text),
            Err(error) => panic!("the data plane broke off: {error}"),
        }
    }
}

fn note_time(traffic: &Traffic, start: Instant) {
    traffic.slowest_ms.fetch_max(start.elapsed().as_millis() as usize, Ordering::Relaxed);
}

/// Waits until the clients have had so many more writes acknowledged.
async fn progress(traffic: &Traffic, more: usize) {
    let due = traffic.acknowledged.lock().unwrap().len() + more;
    wait::until("acknowledged writes", Duration::from_secs(60), async || {
        (traffic.acknowledged.lock().unwrap().len() >= due).then_some(())
    })
    .await;
}

async fn check(stage: &Stage, name: &str) -> String {
    let health = stage.api.get("/api/v1/health").await.json();
    health["checks"][name]["status"].as_str().unwrap_or_default().to_owned()
}

/// Both stores take writes within the time for recovery.
async fn writes_work(api: &Api) {
    for path in ["/api/v1/users", "/api/v1/products"] {
        wait::until(&format!("writes to {path}"), RECOVERY, async || {
            let tag = rand::random::<u32>();
            let body = json!({ "name": "A", "price": 1 });
            let body = if path.ends_with("users") {
                json!({ "name": "A", "email": format!("{tag}@example.com") })
            } else {
                body
            };
            (api.post(path, &body).await.status == 201).then_some(())
        })
        .await;
    }
}

/// Everything that was committed gets published once all servers are back.
async fn backlog_drains(stage: &Stage) {
    let admin = Api::at(&stage.data_plane.admin);
    wait::until("an empty backlog", Duration::from_secs(60), async || {
        let status = admin.get("/status").await.json();
        let waiting: u64 =
            status["pools"].as_array()?.iter().map(|pool| pool["backlog"].as_u64().unwrap_or(0)).sum();
        (waiting == 0).then_some(())
    })
    .await;
}
