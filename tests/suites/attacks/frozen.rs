//! One of three pods stands still: readers behind the gateway hardly notice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{client::Api, scale};
use reqwest::Method;
use serde_json::json;

use super::{Shop, healthy, healthy_pods, probing::Times};

/// Readers at once.
const READERS: usize = 8;
/// Reads after the pod was frozen.
const READS: (usize, usize) = (1_000, 20_000);
const P99_MAX: Duration = Duration::from_secs(1);
const PATH: &str = "/api/v1/configurations/c1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_beside_a_frozen_pod_take_less_than_a_second() {
    let shop = Shop::open(3, "").await;
    for pod in &shop.pods {
        let written = Api::at(&pod.url).send(Method::PUT, PATH, &[], &json!({ "value": 1 })).await;
        assert_eq!(written.status, 201, "{}", written.text);
    }
    let api = Api::at(&shop.gateway.url);
    // what a pod usually takes is known before it stands still
    let usual = read(&api, 50 * READERS).await;
    shop.pods[1].freeze();
    let reads = scale::of(READS.0, READS.1);
    let beside = read(&api, reads).await;
    assert!(shop.pods[1].is_frozen());
    eprintln!("reads by {READERS}: before: {usual}; beside a frozen pod: {beside}");
    assert_eq!(beside.count(), reads);
    assert!(beside.p99() < P99_MAX, "{beside}");
    assert_eq!(healthy_pods(&api).await, Some(2), "the frozen pod is known");
    shop.pods[1].thaw();
    healthy(&shop.gateway, 3).await;
}

/// So many reads by all readers together; how long they took.
async fn read(api: &Api, reads: usize) -> Times {
    let begun = Arc::<AtomicUsize>::default();
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(read_in_turn(api.clone(), begun.clone(), reads))).collect();
    let mut all = Vec::new();
    for reader in readers {
        all.extend(reader.await.unwrap());
    }
    Times::of(all)
}

/// The reads of one reader, until all together have begun so many.
async fn read_in_turn(api: Api, begun: Arc<AtomicUsize>, reads: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    while begun.fetch_add(1, Ordering::Relaxed) < reads {
        let start = Instant::now();
        let read = api.get(PATH).await;
        times.push(start.elapsed());
        assert_eq!(read.status, 200, "{}", read.text);
    }
    times
}
