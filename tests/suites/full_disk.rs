//! A full disk: writes are refused with the cause, reads go on, and it heals by itself; nothing that was
//! acknowledged is lost.

use std::{
    fs,
    io::Write,
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
    process::Command,
    time::Duration,
};

use futures::FutureExt;
use harness::{
    client::{Answer, Api},
    dataplane::DataPlane,
    manifests, skipped, wait,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

const SOON: Duration = Duration::from_secs(15);

/// A small disk of its own, in memory.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(dir)),
            Ok(output) => Err(format!("no disk can be mounted: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => Err(format!("no disk can be mounted: {error}")),
        }
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_with_its_cause_and_loses_none_that_was_acknowledged() {
    let disk = match Disk::mount("24m") {
        Ok(disk) => disk,
        Err(why) => return skipped("a full disk", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    manifests::write_behind_samples(dir.path());
    let mut data_plane = tokio::task::block_in_place(|| DataPlane::embedded(dir.path(), &data(&disk)));
    let (api, admin) = (Api::at(&data_plane.url), Api::at(&data_plane.admin));
    let product =
        |id: &str| json!({ "id": id, "name": "Lamp", "price": 1, "description": "x".repeat(5_000) });
    assert_eq!(api.post("/api/v1/products", &product("before")).await.status, 201);
    assert_eq!(api.get("/api/v1/health").await.json()["status"], "healthy");

    disk.fill();
    let (mut kept, body) = (vec!["before".to_owned()], "x".repeat(5_000));
    // a page or two of the log may still be there to be used again
    let refused = until_refused(async |n| {
        let id = format!("p{n}");
        let answer = api.post("/api/v1/products", &product(&id)).await;
        if answer.status == 201 {
            kept.push(id);
        }
        answer
    })
    .await;
    is_full(&refused);
    let event = json!({ "product_id": "before", "price": 2, "stock": 5 });
    let mut settled = Vec::new();
    let refused = until_refused(async |_| api.post("/api/v1/events", &event).await).await;
    is_full(&refused);
    let refused = until_refused(async |n| {
        let key = format!("k{n}");
        let answer = put(&api, &key, &json!({ "value": { "text": body } })).await;
        if answer.status == 201 {
            settled.push(key);
        }
        answer
    })
    .await;
    is_full(&refused);

    assert_eq!(api.get("/api/v1/products/before").await.status, 200);
    assert_eq!(api.get("/api/v1/products?limit=5").await.status, 200);
    assert_eq!(admin.get("/readyz").await.status, 200, "reads go on");
    let health = wait::until("/health to tell it", SOON, async || {
        let health = api.get("/api/v1/health").await;
        (health.json()["status"] == "degraded").then_some(health)
    })
    .await;
    assert_eq!(health.status, 200);
    let why = health.json()["checks"]["disk"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("full"), "{}", health.text);
    let status = admin.get("/status").await.json();
    let full = |backend: &Value| backend["storageFull"].as_str().is_some_and(|why| why.contains("full"));
    assert!(status["backends"].as_array().unwrap().iter().any(full), "{status}");

    disk.free();
    wait::until("writes to go on", SOON, async || {
        let id = format!("after{}", kept.len());
        let written = api.post("/api/v1/products", &product(&id)).await.status == 201;
        written.then(|| kept.push(id))
    })
    .await;
    assert_eq!(api.post("/api/v1/events", &event).await.status, 202);
    let late = put(&api, "late", &json!({ "value": { "n": 1 } })).await;
    assert_eq!(late.status, 201, "{}", late.text);
    settled.push("late".to_owned());
    wait::until("/health to be well again", SOON, async || {
        (api.get("/api/v1/health").await.json()["status"] == "healthy").then_some(())
    })
    .await;

    tokio::task::block_in_place(|| {
        data_plane.kill();
        data_plane.restart();
    });
    for id in &kept {
        assert_eq!(api.get(&format!("/api/v1/products/{id}")).await.status, 200, "{id} was acknowledged");
    }
    for key in &settled {
        assert_eq!(
            api.get(&format!("/api/v1/configurations/{key}")).await.status,
            200,
            "{key} was acknowledged"
        );
    }
    wait::until("the accepted event to be applied", SOON, async || {
        let price = api.get("/api/v1/products/before").await.json()["price"].to_string();
        (price.trim_matches('"') == "2").then_some(())
    })
    .await;
    let patched = api.send(Method::PATCH, "/api/v1/products/before", &[], &json!({ "name": "Lamp 2" })).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
}

/// How many full disks a MySQL may die of by itself: then there is nothing to see of who calls it.
const DISKS: usize = 4;

/// The shop over a MySQL whose disk is full, while those of the others are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mysql_on_a_full_disk_refuses_writes_with_its_cause_and_takes_them_again_when_there_is_room() {
    for _ in 0..DISKS {
        let disk = match Disk::mount("512m") {
            Ok(disk) => disk,
            Err(why) => return skipped("MySQL on a full disk", &why),
        };
        let Some(mut stage) = Stage::real_on(disk.0.path(), "MySQL on a full disk").await else { return };
        let seen = AssertUnwindSafe(is_full_and_free_again(&disk, &stage)).catch_unwind().await;
        let has_died = stage.servers.as_mut().is_some_and(|servers| servers.mysql.has_ended());
        drop(stage);
        match seen {
            Ok(()) => return,
            Err(_) if has_died => eprintln!("this MySQL died of its full disk"),
            Err(panic) => resume_unwind(panic),
        }
    }
    panic!("MySQL died of {DISKS} full disks");
}

async fn is_full_and_free_again(disk: &Disk, stage: &Stage) {
    let (api, admin) = (&stage.api, Api::at(&stage.data_plane.admin));
    let store = |code: &str| json!({ "code": code, "city": "Berlin", "opening_hours": { "all": "x".repeat(20_000) } });
    assert_eq!(api.post("/api/v1/pools/stores", &store("before")).await.status, 201);

    disk.fill();
    let mut kept = vec!["before".to_owned()];
    let refused = until_refused(async |n| {
        let code = format!("s{n}");
        let answer = api.post("/api/v1/pools/stores", &store(&code)).await;
        if answer.status == 201 {
            kept.push(code);
        }
        answer
    })
    .await;
    is_full(&refused);
    for path in ["/api/v1/pools/stores/before", "/api/v1/pools/stores?limit=5"] {
        let answer = api.get(path).await;
        let health = api.get("/api/v1/health").await.json()["checks"]["mysql"].clone();
        assert_eq!(answer.status, 200, "reads go on: {path}: {}: {health}", answer.text);
    }
    assert_eq!(admin.get("/readyz").await.status, 200, "reads go on");
    let product = json!({ "name": "Lamp", "price": 1 });
    assert_eq!(api.post("/api/v1/products", &product).await.status, 201, "another store has room");
    let health = wait::until("/health to tell it", SOON, async || {
        let health = api.get("/api/v1/health").await.json();
        (health["checks"]["mysql"]["status"] == "degraded").then_some(health)
    })
    .await;
    let why = health["checks"]["mysql"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("full") && why.contains("reads go on"), "{health}");
    let status = admin.get("/status").await.json();
    let mysql = status["backends"].as_array().unwrap().iter().find(|one| one["name"] == "mysql").unwrap();
    assert!(mysql["storageFull"].as_str().is_some_and(|why| why.contains("full")), "{mysql}");

    disk.free();
    wait::until("writes to go on", SOON, async || {
        let code = format!("after{}", kept.len());
        let written = api.post("/api/v1/pools/stores", &store(&code)).await.status == 201;
        written.then(|| kept.push(code))
    })
    .await;
    wait::until("/health to be well again", SOON, async || {
        (api.get("/api/v1/health").await.json()["checks"]["mysql"]["status"] == "healthy").then_some(())
    })
    .await;
    for code in &kept {
        assert_eq!(
            api.get(&format!("/api/v1/pools/stores/{code}")).await.status,
            200,
            "{code} was acknowledged"
        );
    }
}

async fn put(api: &Api, key: &str, body: &Value) -> Answer {
    api.send(Method::PUT, &format!("/api/v1/configurations/{key}"), &[], body).await
}

fn data(disk: &Disk) -> std::path::PathBuf {
    Path::join(disk.0.path(), "data")
}

/// The first answer that is no success.
async fn until_refused(mut ask: impl AsyncFnMut(usize) -> Answer) -> Answer {
    for n in 0..1_000 {
        let answer = ask(n).await;
        if answer.status >= 300 {
            return answer;
        }
    }
    panic!("the disk does not get full");
}

fn is_full(answer: &Answer) {
    assert_eq!(answer.status, 507, "{}", answer.text);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:flyweight:problem:insufficient-storage", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("full"), "{problem}");
}
