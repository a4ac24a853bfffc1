//! What the founding documents type, as it stands there.

use std::{process::Command, time::Duration};

use harness::{client::Api, dataplane::DataPlane, manifests, wait};
use reqwest::Method;
use serde_json::{Value, json};

/// Their variables, all at once.
const VARIABLES: &str = "BATCH_SIZE=1000 BATCH_FLUSH_INTERVAL=1s MAX_CONNECTIONS=100 CONNECTION_TIMEOUT=30s \
                         MAX_RETRY_ATTEMPTS=3 INITIAL_RETRY_DELAY=100ms MAX_RETRY_DELAY=30s \
                         CIRCUIT_BREAKER_THRESHOLD=5 CIRCUIT_BREAKER_TIMEOUT=60s MAX_MEMORY_USAGE=1GB \
                         CLEANUP_THRESHOLD=0.8 GC_INTERVAL=30s WORKERS=5 QUEUE_SIZE=2000 LOG_LEVEL=debug";
const WAIT: Duration = Duration::from_secs(10);

fn started(folder: &std::path::Path) -> DataPlane {
    let (samples, data) = (manifests::samples().display().to_string(), folder.display().to_string());
    let variables: Vec<(&str, &str)> =
        VARIABLES.split_whitespace().filter_map(|one| one.split_once('=')).collect();
    DataPlane::start_with(&["serve", "--manifests", &samples, "--data-dir", &data], &variables)
}

#[tokio::test]
async fn all_variables_are_taken_together_and_an_event_as_curl_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let data_plane = started(dir.path());
    let api = Api::at(&data_plane.url);
    let as_curl = [("content-type", "application/x-www-form-urlencoded")];
    let event = json!({ "product_id": "abc123", "price": 49.99, "stock": 100 });
    let accepted = api.send(Method::POST, "/api/v1/events", &as_curl, &event).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let product = wait::until("the product of the event", WAIT, async || {
        let read = api.get("/api/v1/products/abc123").await;
        (read.status == 200).then(|| read.json())
    })
    .await;
    assert_eq!((&product["price"], &product["stock"]), (&json!(49.99), &json!(100)));
    let warmed = api.send(Method::POST, "/api/v1/repositories/cache/warm", &[], &Value::Null).await;
    assert_eq!((warmed.status, &warmed.json()["complete"]), (200, &json!(true)), "{}", warmed.text);
    let user = json!({ "email": "ada@example.com", "name": "Ada" });
    for status in [201, 409, 409] {
        assert_eq!(api.post("/api/v1/users", &user).await.status, status);
    }
}

#[tokio::test]
async fn a_container_asks_its_process_whether_it_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let mut data_plane = started(dir.path());
    let port = data_plane.admin.rsplit(':').next().unwrap().to_owned();
    let asked = || {
        let output = Command::new(DataPlane::built())
            .arg("health")
            .envs([("LISTEN", "[::]"), ("ADMIN_PORT", &port)])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).lines().count())
    };
    assert_eq!(asked(), (Some(0), 1));
    data_plane.kill();
    assert_eq!(asked(), (Some(1), 0), "nobody answers: that is said as an error");
}
