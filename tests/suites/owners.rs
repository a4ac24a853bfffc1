//! Two services with the sample manifests and databases of their own, on one Redis and one Kafka: neither
//! sees anything of the other.

use std::{fs, path::Path, time::Duration};

use harness::{
    client::Api,
    dataplane::DataPlane,
    manifests::{samples, write_backends, write_encryption_key},
    root,
    server::run_sql,
    wait,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::json;

use crate::stage::{Servers, Stage};

const PATIENCE: Duration = Duration::from_secs(30);
const LAMP: &str = "/api/v1/products/lamp";
const ONLY: &str = "/api/v1/products/only";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_on_one_redis_and_kafka_never_meet() {
    let Some(stage) = Stage::real_with("owners", |dir| write_samples(dir, "shop", "")).await else { return };
    let (servers, a) = (stage.servers.as_ref().unwrap(), &stage.api);
    for (id, price) in [("lamp", 1), ("only", 1)] {
        let created = a.post("/api/v1/products", &json!({ "id": id, "name": "of A", "price": price })).await;
        assert_eq!(created.status, 201, "{}", created.text);
    }
    assert_eq!(a.get(ONLY).await.status, 200, "it is in the shared tier");
    let prefix = wait::until("a topic", PATIENCE, async || prefix_of(servers)).await;

    let dir = tempfile::tempdir().unwrap();
    let other = tokio::task::block_in_place(|| neighbour(servers, dir.path(), "shop_b", ""));
    let b = Api::at(&other.url);
    assert_eq!(b.get(ONLY).await.status, 404, "a record of another service");
    let created = b.post("/api/v1/products", &json!({ "id": "lamp", "name": "of B", "price": 1 })).await;
    assert_eq!(created.status, 201, "{}", created.text);
    // written like the first: it owns neither keys nor topics, and tells whose they are
    let dir = tempfile::tempdir().unwrap();
    let third = tokio::task::block_in_place(|| neighbour(servers, dir.path(), "shop_c", &prefix));
    let (c, admin) = (Api::at(&third.url), Api::at(&third.admin));
    wait::until("both to be refused", PATIENCE, async || {
        let status = admin.get("/status").await.json();
        let owned = |backend: &&serde_json::Value| {
            backend["ownedBy"].as_str().is_some_and(|by| by.starts_with("shop@"))
        };
        (status["ready"] == true && status["backends"].as_array()?.iter().filter(owned).count() == 2)
            .then_some(())
    })
    .await;
    assert_eq!(c.get(ONLY).await.status, 404, "a record of another service");
    let created = c.post("/api/v1/products", &json!({ "id": "lamp", "name": "of C", "price": 1 })).await;
    assert_eq!(created.status, 201, "{}", created.text);

    let event = json!({ "product_id": "lamp", "price": 99, "stock": 9 });
    assert_eq!(c.post("/api/v1/events", &event).await.status, 503, "its log is another's");
    assert_eq!(a.post("/api/v1/events", &event).await.status, 202);
    wait::until("the event is applied", PATIENCE, async || {
        (a.get(LAMP).await.json()["stock"] == 9).then_some(())
    })
    .await;
    for (api, name) in [(&b, "of B"), (&c, "of C")] {
        let theirs = api.get(LAMP).await.json();
        assert_eq!((&theirs["name"], &theirs["version"]), (&json!(name), &json!(1)), "{theirs}");
    }
    for (api, well) in [(a, "healthy"), (&b, "healthy"), (&c, "degraded")] {
        let health = api.get("/health").await.json();
        assert_eq!(health["status"], well, "{health}");
    }
}

/// What the only service so far lets its topics start with.
fn prefix_of(servers: &Servers) -> Option<String> {
    let kafka: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers.kafka.url()).create().unwrap();
    let metadata = tokio::task::block_in_place(|| kafka.fetch_metadata(None, PATIENCE)).ok()?;
    metadata.topics().iter().find_map(|topic| topic.name().strip_suffix(".changes").map(str::to_owned))
}

/// The samples as they are, with another database in MongoDB, and with prefixes where they are told.
fn write_samples(dir: &Path, database: &str, prefix: &str) {
    fs::create_dir_all(dir).unwrap();
    for file in fs::read_dir(samples()).unwrap() {
        let path = file.unwrap().path();
        let mut text =
            fs::read_to_string(&path).unwrap().replace("database: shop", &format!("database: {database}"));
        if !prefix.is_empty() {
            let (kafka, redis) = ("      kafka:\n", "  redis:\n    backendRef:");
            text = text.replace(kafka, &format!("{kafka}        topicPrefix: \"{prefix}.\"\n"));
            text = text.replace(redis, &format!("  redis:\n    keyPrefix: \"{prefix}:\"\n    backendRef:"));
        }
        fs::write(dir.join(path.file_name().unwrap()), text).unwrap();
    }
}

/// Another service with the samples: databases of its own, on the same servers.
fn neighbour(servers: &Servers, dir: &Path, database: &str, prefix: &str) -> DataPlane {
    let url = servers.mysql.url();
    let grant = format!("CREATE DATABASE {database}; GRANT ALL ON {database}.* TO 'shop'@'%'");
    run_sql(&url.replace("shop:shop-secret", "root:root-secret"), &grant);
    let mysql = url.strip_suffix("/shop").unwrap().to_owned() + "/" + database;
    run_sql(&mysql, &fs::read_to_string(root().join("configs/sql/stores.sql")).unwrap());
    let [manifests, backends, security] = ["manifests", "backends", "security"].map(|name| dir.join(name));
    let urls = [
        ("mysql", mysql),
        ("mongodb", servers.mongo.url()),
        ("redis", servers.redis.url()),
        ("kafka", servers.kafka.url()),
    ];
    write_backends(&backends, &urls);
    write_encryption_key(&security);
    write_samples(&manifests, database, prefix);
    DataPlane::real(&manifests, &backends, &security)
}
