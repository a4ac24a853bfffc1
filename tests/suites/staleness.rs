//! Guarantee 4: every replica serves the new version within 250 ms (p99) of the acknowledgement, and live
//! clients hear of it as soon.

use std::time::{Duration, Instant};

use futures::StreamExt;
use harness::{client::Api, dataplane::DataPlane, wait};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::stage::Stage;

/// Writes that are measured.
const WRITES: usize = 200;
/// The bound of guarantee 4.
const BOUND: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_one_replica_is_served_by_the_other_in_time() {
    let Some(stage) = Stage::real("staleness between two replicas").await else { return };
    let other = tokio::task::block_in_place(|| stage.replica());
    for (collection, body) in [
        ("users", json!({ "email": format!("{}@example.com", rand::random::<u32>()), "name": "0" })),
        ("products", json!({ "name": "0", "price": 1 })),
    ] {
        let created = stage.api.post(&format!("/api/v1/{collection}"), &body).await;
        assert_eq!(created.status, 201, "{}", created.text);
        measure(&stage.api, &other, collection, created.header("location")).await;
    }
}

/// Writes by turns on either replica, and waits until the other serves the new version and its live clients
/// have it.
async fn measure(one: &Api, other: &DataPlane, collection: &str, path: &str) {
    let replicas = [one.clone(), Api::at(&other.url)];
    let mut feeds = Vec::new();
    for replica in &replicas {
        let url = format!("{}/ws?client_id=staleness", replica.base().replace("http", "ws"));
        // 503 until the replica has joined the feed
        let joined = async || Some(connect_async(&url).await.ok()?.0);
        feeds.push(wait::until("the feed", Duration::from_secs(30), joined).await);
    }
    let (mut served, mut heard) = (Vec::new(), Vec::new());
    for n in 0..WRITES {
        let (writer, reader) = (&replicas[n % 2], &replicas[1 - n % 2]);
        assert_eq!(reader.get(path).await.status, 200, "cached");
        let written = writer.send(Method::PATCH, path, &[], &json!({ "name": n.to_string() })).await;
        assert_eq!(written.status, 200, "{}", written.text);
        let (acknowledged, version) = (Instant::now(), written.json()["version"].as_u64().unwrap());
        let until_served = async {
            while reader.get(path).await.json()["version"].as_u64().unwrap() < version {
                assert!(acknowledged.elapsed() < Duration::from_secs(30), "version {version} never came");
            }
            acknowledged.elapsed()
        };
        let feed = &mut feeds[1 - n % 2];
        let until_heard = async {
            loop {
                let next = tokio::time::timeout(Duration::from_secs(30), feed.next()).await;
                let Message::Text(text) = next.unwrap().unwrap().unwrap() else { continue };
                let event: Value = serde_json::from_str(&text).unwrap();
                if path.ends_with(event["key"].as_str().unwrap_or("-"))
                    && event["version"].as_u64() >= Some(version)
                {
                    return acknowledged.elapsed();
                }
            }
        };
        let (by_read, by_feed) = tokio::join!(until_served, until_heard);
        if by_read > BOUND {
            eprintln!("write {n} on replica {}: served after {by_read:?}, heard after {by_feed:?}", n % 2);
        }
        served.push(by_read);
        heard.push(by_feed);
    }
    for (what, mut times) in [("served", served), ("heard", heard)] {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0));
        eprintln!("{collection} {what} by the other replica: p50 {p50:?}, p99 {p99:?}, worst {worst:?}");
        assert!(p99 < BOUND, "{collection}: {what} after {p99:?} (p99)");
    }
}
