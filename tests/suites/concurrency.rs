//! Many at once: one wins each version, one effect for each idempotency key, pages that hold still while
//! records come.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use harness::{
    client::{Answer, Api},
    wait,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::Stage;

/// Requests with repeated keys: so many in all, over so many keys.
const REQUESTS: usize = 10_000;
const KEYS: usize = 2_000;
const WRITERS: usize = 64;
const VERSIONS: u64 = 10;
/// How long a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn concurrency_is_safe_over_embedded_stores() {
    concurrency(&Stage::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrency_is_safe_over_real_servers() {
    let Some(stage) = Stage::real("concurrency over real servers").await else { return };
    concurrency(&stage).await;
    lists_of_another_replica(&stage).await;
}

/// A list that one replica keeps is given up when the event of another's delete arrives; where an event is
/// lost, after 5 s.
async fn lists_of_another_replica(stage: &Stage) {
    let other = tokio::task::block_in_place(|| stage.replica());
    let other = Api::at(&other.url);
    for path in ["/api/v1/users", "/api/v1/products"] {
        let mut slowest = Duration::ZERO;
        for index in 0..20 {
            let id = format!("gone-{index}");
            let body = json!({ "id": id, "email": format!("{id}@example.com"), "name": "G" });
            let body =
                if path.ends_with("users") { body } else { json!({ "id": id, "name": "G", "price": 1 }) };
            assert_eq!(stage.api.post(path, &body).await.status, 201);
            let list = format!("{path}/search?q=G&limit=1000");
            let shown = async || other.get(&list).await.text.contains(&format!("\"{id}\""));
            let second = Duration::from_secs(5);
            wait::until("the other replica lists it", second, async || shown().await.then_some(())).await;
            assert_eq!(
                stage.api.send(Method::DELETE, &format!("{path}/{id}"), &[], &Value::Null).await.status,
                204
            );
            let answered = Instant::now();
            wait::until("the other replica lists it no more", second, async || {
                (!shown().await).then_some(())
            })
            .await;
            slowest = slowest.max(answered.elapsed());
        }
        eprintln!("{path}: another replica's lists were right after {slowest:?} at most");
    }
}

async fn concurrency(stage: &Stage) {
    // users are in tables, products in documents
    for (path, body) in [
        ("/api/v1/users", json!({ "email": "w@example.com", "name": "W" })),
        ("/api/v1/products", json!({ "name": "W", "price": 1 })),
    ] {
        one_writer_wins_each_version(&stage.api, path, &body).await;
    }
    for path in ["/api/v1/users", "/api/v1/products"] {
        one_effect_for_each_key(&stage.api, path).await;
    }
    pages_hold_still(&stage.api).await;
}

/// All writers read one version and write under it: exactly one may.
async fn one_writer_wins_each_version(api: &Api, path: &str, body: &Value) {
    let created = api.post(path, body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let one = Arc::new(created.header("location").to_owned());
    for version in 1..=VERSIONS {
        let tag = format!("\"{version}\"");
        let writes = (0..WRITERS).map(|writer| {
            let (api, one, tag) = (api.clone(), Arc::clone(&one), tag.clone());
            tokio::spawn(async move {
                let patch = json!({ "name": format!("{version}-{writer}") });
                patiently(&api, Method::PATCH, &one, ("if-match", &tag), &patch).await
            })
        });
        let answers: Vec<_> = join_all(writes).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        let lost = answers.iter().filter(|answer| answer.status == 412).count();
        assert_eq!(
            (won.len(), lost),
            (1, WRITERS - 1),
            "{path}, version {version}: {:?}",
            statuses(&answers)
        );
        let next = (version + 1).to_string();
        let read = api.get_with(&one, &[("if-min-version", &next)]).await;
        assert_eq!(read.json()["name"], won[0].json()["name"], "{path}: another's write is there");
        assert_eq!(read.json()["version"], version + 1);
    }
}

/// A client that is told to try again, because there is too much to do, does so: what was refused was not
/// done.
async fn patiently(api: &Api, method: Method, path: &str, header: (&str, &str), body: &Value) -> Answer {
    let started = Instant::now();
    loop {
        let answer = api.send(method.clone(), path, &[header], body).await;
        if answer.status != 503 {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{path}: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..50))).await;
    }
}

fn statuses(answers: &[Answer]) -> HashMap<u16, usize> {
    answers.iter().fold(HashMap::new(), |mut counts, answer| {
        *counts.entry(answer.status).or_default() += 1;
        counts
    })
}

/// Each key comes several times, mixed and at once: one record each, and always the same answer.
async fn one_effect_for_each_key(api: &Api, path: &str) {
    let run = rand::random::<u32>();
    let before = api.get(path).await.json()["total"].as_u64().unwrap();
    let started = Instant::now();
    let calls = (0..REQUESTS).map(|index| {
        // neighbours have the same key now, and later ones again
        let number = index / 2 % KEYS;
        let (api, key) = (api.clone(), format!("k-{run}-{number}"));
        let body = match path.ends_with("users") {
            true => json!({ "email": format!("k{run}-{number}@example.com"), "name": "K" }),
            false => json!({ "name": format!("k{number}"), "price": 1 }),
        };
        async move { (number, patiently(&api, Method::POST, path, ("idempotency-key", &key), &body).await) }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(48).collect().await;
    eprintln!("{path}: {REQUESTS} requests with {KEYS} keys in {:?}", started.elapsed());
    let mut first: HashMap<usize, &str> = HashMap::new();
    for (number, answer) in &answers {
        assert_eq!(answer.status, 201, "{path}: {}", answer.text);
        let known = *first.entry(*number).or_insert(&answer.text);
        assert_eq!(known, answer.text, "{path}: key {number} had another answer");
    }
    let after = api.get(path).await.json()["total"].as_u64().unwrap();
    assert_eq!(after - before, KEYS as u64, "{path}: one effect for each key");
}

/// Cursor pages over records that were there at the start show each once, while others come before and after
/// them.
async fn pages_hold_still(api: &Api) {
    let run = rand::random::<u32>();
    let path = "/api/v1/configurations";
    let put = async |id: String| {
        let answer = api
            .send(Method::PUT, &format!("{path}/{id}"), &[], &json!({ "value": 1, "category": "c" }))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    };
    for index in 0..60 {
        put(format!("m{run}-{index:03}")).await;
    }
    let writing = async {
        for index in 0..120 {
            put(format!("{}{run}-{index:03}-late", ["a", "m", "z"][index % 3])).await;
        }
    };
    let reading = async {
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit=7");
        loop {
            let page = api.get(&next).await;
            assert_eq!(page.status, 200, "{}", page.text);
            let page = page.json();
            seen.extend(
                page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            let Some(cursor) = page["next_cursor"].as_str() else { return seen };
            next = format!("{path}?limit=7&cursor={cursor}");
        }
    };
    let (seen, ()) = tokio::join!(reading, writing);
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "a record is on two pages");
    for index in 0..60 {
        assert!(seen.contains(&format!("m{run}-{index:03}")), "{index} is on no page");
    }
}
