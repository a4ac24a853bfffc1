//! Many versions of many keys, written on two replicas whose relays die by turns, half of them between
//! publish and confirmation: the topic has events twice, but the feed has each version of each key once, in
//! order, and so has a group of consumers whose members come and go.

mod readers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, scale, seed, wait};
use rand::Rng;
use reqwest::Method;
use serde_json::json;
use tokio::sync::watch;

use self::readers::Readers;
use crate::{feed, stage::Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_goes_back_and_no_version_is_missing_whatever_relay_dies() {
    let Some(mut stage) = Stage::real("order of each key").await else { return };
    let (keys, versions) = (scale::of(50, 1_000), scale::of(40, 100));
    let (restarts, rebalances) = (scale::of(4, 20), scale::of(2, 10));
    let seed = seed::of("order");
    let mut choices = seed::choices(seed);
    eprintln!(
        "events: {}, keys: {keys}, relay restarts: {restarts}, rebalances: {rebalances}",
        keys * versions
    );
    let mut other = tokio::task::block_in_place(|| stage.replica());
    let apis = [stage.api.clone(), Api::at(&other.url)];
    let since = feed::place(&apis[0]).await;
    let written = Arc::new(AtomicUsize::new(0));
    let share = keys * versions / (restarts + 1);
    // half a share is left for what follows a restart, however long that takes
    let (allowed, ceiling) = watch::channel(share + share / 2);
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (apis, written, mut ceiling) = (apis.clone(), written.clone(), ceiling.clone());
            tokio::spawn(async move {
                for version in 1..=versions {
                    for key in (client..keys).step_by(8) {
                        ceiling.wait_for(|most| written.load(Ordering::Relaxed) < *most).await.unwrap();
                        write(&apis, &format!("r-{seed}-{key}"), key, version).await;
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let kafka = &stage.servers.as_ref().unwrap().kafka;
    let prefix = format!("r-{seed}-");
    let mut readers =
        ["user", "product"].map(|entity| Readers::join(kafka, entity, &prefix, choices.random()));
    for restart in 1..=restarts {
        let due = share * restart;
        let write_on = || _ = allowed.send_replace(due + share + share / 2);
        wait::until("enough writes", Duration::from_secs(900), async || {
            (written.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
        let (one, two) = match restart.is_multiple_of(2) {
            true => (&mut stage.data_plane, &mut other),
            false => (&mut other, &mut stage.data_plane),
        };
        match restart % 4 {
            1 => die_after_publishing("mysql", one, two, write_on).await,
            2 => die_after_publishing("mongodb", one, two, write_on).await,
            _ => tokio::task::block_in_place(|| {
                one.kill();
                one.restart();
                write_on();
            }),
        }
        if restart.is_multiple_of(restarts / rebalances) {
            let [users, products] = &mut readers;
            tokio::join!(users.rebalance(&apis[0]), products.rebalance(&apis[0]));
        }
    }
    allowed.send_replace(usize::MAX);
    for client in clients {
        client.await.unwrap();
    }
    let newest: BTreeMap<String, u64> =
        (0..keys).map(|key| (format!("r-{seed}-{key}"), versions as u64)).collect();
    feed::assert_has(&apis[0], &since, &newest).await;
    feed::assert_has(&apis[1], &since, &newest).await;
    let [users, products] = readers;
    let (users, products) =
        tokio::join!(users.finish(keys.div_ceil(2), versions), products.finish(keys / 2, versions));
    assert_eq!(
        (users.rebalances, products.rebalances),
        (rebalances, rebalances),
        "times that a group was shared out anew"
    );
    // so the feed, which had none of them, has left them out
    assert!(users.repeats > 0 && products.repeats > 0, "the topic has events twice: {users:?}, {products:?}");
}

/// One replica dies between publish and confirmation: events that the other had claimed, which dies first, so
/// that they are published twice at least. What is then written leads to the crash.
async fn die_after_publishing(
    backend: &str,
    one: &mut DataPlane,
    two: &mut DataPlane,
    write_on: impl FnOnce(),
) {
    let point = format!("{backend}.relay.published:1");
    tokio::task::block_in_place(|| {
        one.kill();
        one.restart_to_crash(&point);
        two.kill();
    });
    write_on();
    // in a debug build; what the other had claimed is free once its lease ends
    wait::until(&format!("the crash at {point}"), Duration::from_secs(60), async || {
        one.has_ended().then_some(())
    })
    .await;
    tokio::task::block_in_place(|| {
        one.restart();
        two.restart();
    });
}

/// Writes one version of one key, on one replica or the other.
async fn write(apis: &[Api; 2], id: &str, key: usize, version: usize) {
    let (start, mut at) = (Instant::now(), version);
    let collection = if key.is_multiple_of(2) { "users" } else { "products" };
    let path = format!("/api/v1/{collection}/{id}");
    let create = match key % 2 {
        0 => json!({ "id": id, "email": format!("{id}@example.com"), "name": "1" }),
        _ => json!({ "id": id, "name": "1", "price": 1 }),
    };
    let guard = format!("\"{}\"", version - 1);
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "{path}: no answer");
        let api = &apis[at % 2];
        at += 1;
        let answer = match version {
            1 => {
                api.call(
                    Method::POST,
                    &format!("/api/v1/{collection}"),
                    &[],
                    Some(create.to_string().into_bytes()),
                )
                .await
            }
            _ => {
                let body = json!({ "name": version.to_string() }).to_string().into_bytes();
                api.call(Method::PATCH, &path, &[("if-match", &guard)], Some(body)).await
            }
        };
        match answer {
            // 409 and 412: an earlier try happened
            Ok(answer) if matches!(answer.status, 200 | 201 | 409 | 412) => return,
            // 503 and 504: not now, or nobody knows
            Ok(answer) if !matches!(answer.status, 503 | 504) => {
                panic!("{path}: {}: {}", answer.status, answer.text)
            }
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
