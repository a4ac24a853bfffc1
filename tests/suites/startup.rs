//! Starting and stopping: ready soon, one process for one data folder, a graceful end, hot settings.

use std::{fs, process::Command, time::Duration};

use harness::{
    client::Api,
    dataplane::{DataPlane, bin_dir},
    manifests, wait,
};
use serde_json::json;

use crate::stage::Stage;

#[tokio::test]
async fn the_sample_shop_is_ready_in_under_a_second() {
    let dir = tempfile::tempdir().unwrap();
    // The first start makes the tables; what users feel is measured from the process's start to its being
    // ready.
    let start = std::time::Instant::now();
    let data_plane = DataPlane::embedded(&manifests::samples(), dir.path());
    let took = start.elapsed();
    assert_eq!(Api::at(&data_plane.url).get("/readyz").await.status, 200);
    assert!(took < Duration::from_secs(1), "ready after {took:?}");
}

#[tokio::test]
async fn migrating_prepares_the_stores_and_ends_as_often_as_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = Command::new(bin_dir().join("flyweight-dataplane"))
            .args(["migrate", "--manifests"])
            .arg(manifests::samples())
            .arg("--data-dir")
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(dir.path().join("mysql.db").is_file(), "the store is there");
    }
    let data_plane = DataPlane::embedded(&manifests::samples(), dir.path());
    let users = Api::at(&data_plane.url).get("/api/v1/users").await;
    assert_eq!(users.status, 200, "{}", users.text);
}

#[tokio::test]
async fn two_processes_do_not_share_a_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let _first = DataPlane::embedded(&manifests::samples(), dir.path());
    let second = Command::new(bin_dir().join("flyweight-dataplane"))
        .args(["serve", "--port", "0", "--admin-port", "0", "--manifests"])
        .arg(manifests::samples())
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{message}");
    assert!(message.contains("in use by another process"), "{message}");
}

#[tokio::test]
async fn a_port_in_use_is_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Command::new(bin_dir().join("flyweight-dataplane"))
        .args(["serve", "--admin-port", "0", "--port", &port.to_string(), "--manifests"])
        .arg(manifests::samples())
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains(&format!("port {port}")) && message.contains("--port"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way() {
    let mut stage = Stage::embedded();
    let api = stage.api.clone();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let api = api.clone();
            tokio::spawn(async move {
                let mut created = Vec::new();
                loop {
                    let body =
                        json!({ "name": format!("writer {writer}"), "price": 1 }).to_string().into_bytes();
                    match api.call(reqwest::Method::POST, "/api/v1/products", &[], Some(body)).await {
                        Ok(answer) if answer.status == 201 => {
                            created.push(answer.header("location").to_owned())
                        }
                        Ok(answer) => panic!("{}: {}", answer.status, answer.text),
                        // Refused or closed before it was sent: the process is gone.
                        Err(_) => return created,
                    }
                }
            })
        })
        .collect();
    wait::until("some writes", Duration::from_secs(10), async || {
        (api.get("/api/v1/products?limit=1").await.json()["total"].as_u64()? > 20).then_some(())
    })
    .await;
    let status = tokio::task::block_in_place(|| stage.data_plane.terminate());
    assert!(status.success(), "{status}");
    let mut created = Vec::new();
    for writer in writers {
        created.extend(writer.await.unwrap());
    }
    tokio::task::block_in_place(|| stage.data_plane.restart());
    for location in &created {
        assert_eq!(api.get(location).await.status, 200, "{location}");
    }
}

#[tokio::test]
async fn a_changed_ttl_acts_without_a_restart_and_a_fault_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(manifests::samples()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let data_plane = DataPlane::embedded(&folder, &dir.path().join("data"));
    let admin = Api::at(&data_plane.admin);
    let configuration =
        async || admin.get("/status").await.json()["configuration"].as_str().map(str::to_owned);
    let first = configuration().await.unwrap();

    let tiers = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path).unwrap().contains("ttl: 60s"))
        .expect("the samples have a tier with a ttl of 60s");
    let text = fs::read_to_string(&tiers).unwrap();
    fs::write(&tiers, text.replacen("ttl: 60s", "ttl: 7s", 1)).unwrap();
    let second = wait::until("the new ttl", Duration::from_secs(10), async || {
        configuration().await.filter(|now| *now != first)
    })
    .await;

    fs::write(&tiers, text.replacen("ttl: 60s", "ttl: never", 1)).unwrap();
    fs::write(folder.join("probe.yaml"), "kind: Nothing\n").unwrap();
    wait::until("the process to go on", Duration::from_secs(5), async || {
        (admin.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(configuration().await.unwrap(), second, "the last good configuration goes on");

    fs::write(&tiers, text).unwrap();
    wait::until("the first ttl again", Duration::from_secs(10), async || {
        configuration().await.filter(|now| *now == first)
    })
    .await;
}
