//! A service without a broker: replicas tell each other through a store, and promise what they do with one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, manifests, server::Kind, wait};
use reqwest::Method;
use serde_json::json;

use crate::{contract, feed, stage::Stage};

/// Writes whose way to the other replica is measured.
const WRITES: u64 = 100;
/// When half of them are there, and all: how often the log is looked at, what a write costs, and what else
/// this machine does.
const HALF: Duration = Duration::from_millis(250);
const ALL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_over_mysql_alone_from_two_replicas() {
    let write = |dir: &std::path::Path| manifests::write_samples_over(dir, &["mysql"], "");
    let Some(stage) = Stage::on_mysql("the contract over MySQL alone", write).await else { return };
    let other = tokio::task::block_in_place(|| stage.replica());
    contract::contract(&Api::session(&[&stage.data_plane.url, &other.url]), &stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_over_a_log_in_mongodb_from_two_replicas() {
    let write =
        |dir: &std::path::Path| manifests::write_samples_over(dir, &["mongodb", "mysql", "redis"], "");
    let kinds = [(Kind::Mongo, "mongodb"), (Kind::Mysql, "mysql"), (Kind::Redis, "redis")];
    let Some(stage) = Stage::over("the contract over a log in MongoDB", "no Kafka", &kinds, write).await
    else {
        return;
    };
    let other = tokio::task::block_in_place(|| stage.replica());
    contract::contract(&Api::session(&[&stage.data_plane.url, &other.url]), &stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_is_fresh_within_the_interval_and_its_feed_has_all() {
    let write = |dir: &std::path::Path| manifests::write_samples_over(dir, &["mysql"], "");
    let Some(mut stage) = Stage::on_mysql("freshness over MySQL alone", write).await else { return };
    let other = tokio::task::block_in_place(|| stage.replica());
    let (here, there) = (stage.api.clone(), Api::at(&other.url));
    let since = feed::place(&here).await;
    let mut took = Vec::new();
    for _ in 0..WRITES {
        took.push(told(&here, &there, took.len() as u64 + 1).await);
    }
    took.sort_unstable();
    let (half, last) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("another replica had a new version after {half:?} (half of {WRITES}), {last:?} (all)");
    assert!(half < HALF && last < ALL, "{took:?}");
    // a cursor of one replica is a place at the other
    let newest = BTreeMap::from([("lamp".to_owned(), WRITES)]);
    feed::assert_has(&there, &since, &newest).await;
    killed(&mut stage, &other, &since, newest).await;
}

/// Writes a version at one replica, and says how long the other one served the one before.
async fn told(here: &Api, there: &Api, version: u64) -> Duration {
    let path = "/api/v1/products/lamp";
    let body = json!({ "name": "Lamp", "price": version });
    let written = match version {
        1 => here.post("/api/v1/products", &json!({ "id": "lamp", "name": "Lamp", "price": 1 })).await,
        _ => here.send(Method::PUT, path, &[], &body).await,
    };
    assert_eq!(written.json()["version"], version, "{}", written.text);
    let begun = Instant::now();
    wait::until("the other replica to have it", PATIENCE, async || {
        let read = there.get(path).await;
        (read.status == 200 && read.json()["version"] == version).then_some(())
    })
    .await;
    begun.elapsed()
}

/// What a replica acknowledged before it was killed is in the feed of the other, which publishes it.
async fn killed(stage: &mut Stage, other: &DataPlane, since: &str, mut newest: BTreeMap<String, u64>) {
    for round in 0..3 {
        for n in 0..20 {
            let id = format!("r{round}-{n}");
            let created =
                stage.api.post("/api/v1/products", &json!({ "id": id, "name": "x", "price": 1 })).await;
            assert_eq!(created.status, 201, "{}", created.text);
            newest.insert(id, 1);
        }
        tokio::task::block_in_place(|| stage.data_plane.kill());
        feed::assert_has(&Api::at(&other.url), since, &newest).await;
        tokio::task::block_in_place(|| stage.data_plane.restart());
    }
}
