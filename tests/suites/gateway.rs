//! The gateway before two replicas over the same real stores: reads follow writes, and a killed replica costs
//! no request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use harness::{client::Api, connection::Connection, dataplane::DataPlane, manifests, wait};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_costs_no_read_and_its_changes_reach_the_other() {
    let Some(stage) = Stage::real("two replicas behind the gateway").await else { return };
    let mut second = stage.replica();
    let gateway = DataPlane::start(&[
        "gateway",
        "--manifests",
        &manifests::samples().display().to_string(),
        "--upstream",
        &upstream(&stage.data_plane),
        "--upstream",
        &upstream(&second),
    ]);
    let api = Api::at(&gateway.url);
    healthy(&api, 2).await;
    let created = api.post("/api/v1/products", &json!({ "name": "Lamp", "price": 1 })).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = created.header("location").to_owned();

    changes_reach_both(&stage.api, &Api::at(&second.url), &path).await;
    what_a_connection_deleted_is_gone(&api).await;
    a_connection_ends_with_the_answer_that_fills_its_memory(&api).await;

    let (reads, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (api, path, reads, stop) = (api.clone(), path.clone(), reads.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let read = api.get(&path).await;
                    assert_eq!(read.status, 200, "{}", read.text);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    some_reads(&reads).await;
    tokio::task::block_in_place(|| second.kill());
    healthy(&api, 1).await;
    some_reads(&reads).await;
    tokio::task::block_in_place(|| second.restart());
    healthy(&api, 2).await;
    some_reads(&reads).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_asked_for_what_it_serves_whatever_its_group_should() {
    // by the gateway's settings another group has products now, and its pods are still to come
    const MAIN: &str = "    - name: main\n      replicas: 2\n";
    const APART: &str = "    - name: catalog\n      replicas: 1\n      poolRefs: [{ name: products }]\n    - name: main\n      replicas: 2\n      \
        poolRefs: [{ name: users }, { name: orders }, { name: payments }, { name: templates }, { name: configurations }, { name: stores }]\n";
    let stage = Stage::embedded();
    let dir = tempfile::tempdir().unwrap();
    manifests::write_samples_with(dir.path(), "");
    let service = dir.path().join("service.yaml");
    let text = std::fs::read_to_string(&service).unwrap();
    assert!(text.contains(MAIN), "{text}");
    std::fs::write(&service, text.replace(MAIN, APART)).unwrap();
    let gateway = DataPlane::start(&[
        "gateway",
        "--manifests",
        &dir.path().display().to_string(),
        "--upstream",
        &upstream(&stage.data_plane),
    ]);
    let api = Api::at(&gateway.url);
    healthy(&api, 1).await;
    for path in
        ["/api/v1/products", "/api/v1/users", "/api/v1/pools/stores", "/api/v1/pools", "/api/v1/health"]
    {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    let admin =
        reqwest::get(format!("{}/status", gateway.admin)).await.unwrap().json::<Value>().await.unwrap();
    let said = json!({ "total": 5, "errors": 0 });
    assert_eq!(
        (&admin["service"], &admin["ready"], &admin["requests"]),
        (&json!("shop"), &json!(true), &said)
    );
    assert!(admin["configuration"].as_str().is_some_and(|hash| !hash.is_empty()), "{admin}");
}

/// Writes at one replica are seen at the other, and no reader of either ever sees a version go back.
async fn changes_reach_both(writer: &Api, reader: &Api, path: &str) {
    let mut seen = 0;
    for price in 2..12 {
        let patched = writer.send(Method::PATCH, path, &[], &json!({ "price": price })).await;
        assert_eq!(patched.status, 200, "{}", patched.text);
        let version = patched.json()["version"].as_u64().unwrap();
        wait::until("the change at the other replica", Duration::from_secs(5), async || {
            let now = reader.get(path).await.json()["version"].as_u64()?;
            assert!(now >= seen, "version {now} after {seen}");
            seen = now;
            (now == version).then_some(())
        })
        .await;
    }
}

/// Whichever replica answers: a delete is a write, and reads follow their connection's writes.
async fn what_a_connection_deleted_is_gone(api: &Api) {
    let mut connection = Connection::open(api.base()).await;
    for _ in 0..20 {
        let created =
            connection.call(Method::POST, "/api/v1/products", &json!({ "name": "Cup", "price": 1 })).await;
        let path = created.header("location").to_owned();
        for _ in 0..4 {
            let read = connection.call(Method::GET, &path, &Value::Null).await;
            assert_eq!(read.status, 200, "both replicas have it in memory: {}", read.text);
        }
        let deleted = connection.call(Method::DELETE, &path, &Value::Null).await;
        assert_eq!((deleted.status, deleted.header("etag")), (204, "\"2\""), "{}", deleted.text);
        for _ in 0..4 {
            let read = connection.call(Method::GET, &path, &Value::Null).await;
            assert_eq!(read.status, 404, "{}", read.text);
        }
    }
}

/// It remembers 1,024 records, and is ended before it would forget one.
async fn a_connection_ends_with_the_answer_that_fills_its_memory(api: &Api) {
    let mut connection = Connection::open(api.base()).await;
    let create = json!({ "op": "create", "data": { "name": "Cup", "price": 1 } });
    let body = json!({ "operations": vec![create; 1_000] });
    let batch = connection.call(Method::POST, "/api/v1/products/batch", &body).await;
    assert_eq!((batch.status, batch.header("connection")), (207, ""), "{}", batch.text);
    for more in 1_001..=1_024 {
        let created =
            connection.call(Method::POST, "/api/v1/products", &json!({ "name": "Cup", "price": 1 })).await;
        let ends = if more == 1_024 { "close" } else { "" };
        assert_eq!((created.status, created.header("connection")), (201, ends), "after {more} records");
    }
}

async fn healthy(api: &Api, pods: usize) {
    wait::until(&format!("{pods} healthy pods"), Duration::from_secs(15), async || {
        let registry = api.get("/api/v1/gateway/registry").await.json();
        let healthy = registry["services"].as_array()?.iter().filter(|pod| pod["healthy"] == true).count();
        (healthy == pods).then_some(())
    })
    .await;
}

async fn some_reads(reads: &AtomicUsize) {
    let due = reads.load(Ordering::Relaxed) + 200;
    wait::until("reads", Duration::from_secs(30), async || {
        (reads.load(Ordering::Relaxed) >= due).then_some(())
    })
    .await;
}

fn upstream(data_plane: &DataPlane) -> String {
    format!("main={}", data_plane.url.trim_start_matches("http://"))
}
