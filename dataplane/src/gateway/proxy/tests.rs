//! Which requests go to another pod after one broke off: pods here count what reaches them and never answer.

use std::{net::SocketAddr, path::PathBuf, sync::atomic::AtomicUsize};

use rustls::{ClientConfig, RootCertStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use axum::{body::Body, extract::Request};

use super::*;
use crate::config::Source;
use crate::gateway::errand::{ATTEMPTS_MAX, POD_WAIT};
use crate::server::memory::ConnectionMemory;

const PATH: &str = "/api/v1/products";

/// A gateway before pods at these addresses.
fn gateway(addrs: Vec<SocketAddr>) -> Proxy {
    _ = rustls::crypto::ring::default_provider().install_default();
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/samples"));
    let loaded = Source::Manifests { dir, service: None }.load().unwrap();
    let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let proxy =
        Proxy::new(watch::channel(Arc::new(loaded)).1, UpstreamClient::new(tls, false), Budgets::default());
    for pod in proxy.registry.set_group("default", addrs) {
        pod.says_that_it_serves(Some("products"));
        pod.checked(Some(true));
    }
    proxy
}

/// A pod that reads requests and breaks off, or answers them.
async fn pod(seen: &Arc<AtomicUsize>, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, seen) = (listener.local_addr().unwrap(), seen.clone());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut bytes = [0; 4_096];
            if socket.read(&mut bytes).await.is_ok_and(|len| len > 0) {
                seen.fetch_add(1, Ordering::SeqCst);
                _ = socket.write_all(answer).await;
            }
        }
    });
    addr
}

fn request(method: &str, key: Option<&str>) -> Request {
    let mut request = http::Request::builder().method(method).uri(PATH);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::empty()).unwrap()
}

async fn forward(proxy: &Proxy, request: Request) -> StatusCode {
    proxy.forward(request, ([127, 0, 0, 1], 1).into(), &ConnectionMemory::default()).await.status()
}

#[tokio::test]
async fn only_what_has_no_second_effect_is_sent_again_after_a_pod_broke_off() {
    let seen = Arc::new(AtomicUsize::new(0));
    for (method, key, repeated) in [
        ("GET", None, true),
        ("HEAD", None, true),
        ("POST", Some("k1"), true),
        ("POST", None, false),
        // these keep no answer under a key
        ("PUT", Some("k2"), false),
        ("PUT", None, false),
        ("PATCH", Some("k3"), false),
        ("DELETE", None, false),
    ] {
        // as many pods as there are attempts, so that none has to be waited for
        let mut addrs = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            addrs.push(pod(&seen, b"").await);
        }
        let before = seen.load(Ordering::SeqCst);
        let status = forward(&gateway(addrs), request(method, key)).await;
        let (reached, name) = (seen.load(Ordering::SeqCst) - before, format!("{method} with key {key:?}"));
        match repeated {
            true => assert_eq!(
                (reached, status),
                (ATTEMPTS_MAX as usize, StatusCode::SERVICE_UNAVAILABLE),
                "{name}"
            ),
            false => assert_eq!((reached, status), (1, StatusCode::BAD_GATEWAY), "{name}"),
        }
    }
}

#[tokio::test]
async fn what_no_pod_can_have_seen_is_sent_to_another() {
    let seen = Arc::new(AtomicUsize::new(0));
    let good = pod(&seen, b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    for method in ["POST", "PUT", "DELETE"] {
        let mut addrs = vec![good];
        for _ in 0..2 {
            // nobody listens there any more
            addrs.push(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        }
        let before = seen.load(Ordering::SeqCst);
        assert_eq!(forward(&gateway(addrs), request(method, None)).await, StatusCode::CREATED, "{method}");
        assert_eq!(seen.load(Ordering::SeqCst) - before, 1, "{method}");
    }
}

#[tokio::test]
async fn a_request_waits_for_the_pod_that_takes_the_place_of_all_that_were_known() {
    let seen = Arc::new(AtomicUsize::new(0));
    let good = pod(&seen, b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    // between none and more than a request is sent to
    for known in [0, 1, 2, 7] {
        let mut gone = Vec::new();
        for _ in 0..known {
            gone.push(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
        }
        let proxy = gateway(gone);
        let asked = forward(&proxy, request("POST", None));
        let mut asked = std::pin::pin!(asked);
        let waited = tokio::time::timeout(Duration::from_millis(700), &mut asked).await;
        assert!(waited.is_err(), "{known} were known, and it did not wait for another");
        let pod = proxy.registry.set_group("default", vec![good]).remove(0);
        pod.says_that_it_serves(Some("products"));
        proxy.registry.checked(&pod, Some(true));
        assert_eq!(asked.await, StatusCode::CREATED, "{known} were known");
    }
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_pod() {
    let start = std::time::Instant::now();
    let status = forward(&gateway(Vec::new()), request("GET", None)).await;
    assert_eq!((status, start.elapsed().as_secs()), (StatusCode::SERVICE_UNAVAILABLE, POD_WAIT.as_secs()));
}

#[tokio::test]
async fn a_broken_upload_ends_its_connection_but_not_that_of_other_streams() {
    for (version, ends) in [(Version::HTTP_11, true), (Version::HTTP_2, false)] {
        let broken =
            futures::stream::iter([Err::<axum::body::Bytes, _>(std::io::Error::other("taken back"))]);
        let request = http::Request::post(PATH).version(version).body(Body::from_stream(broken)).unwrap();
        let memory = ConnectionMemory::default();
        let answer = gateway(Vec::new()).forward(request, ([127, 0, 0, 1], 1).into(), &memory).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{version:?}");
        assert_eq!(answer.headers().contains_key(header::CONNECTION), ends, "{version:?}");
    }
}

#[tokio::test]
async fn what_would_not_fit_into_memory_is_refused_and_all_else_goes_on() {
    let seen = Arc::new(AtomicUsize::new(0));
    let gateway = gateway(vec![
        pod(&seen, b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await,
    ]);
    let bodies = &gateway.budgets.bodies;
    let held = bodies.share();
    assert!(held.grow(bodies.capacity()));
    let ask = async |length: usize| {
        let request = http::Request::post(PATH).body(Body::from("x".repeat(length))).unwrap();
        gateway.forward(request, ([127, 0, 0, 1], 1).into(), &ConnectionMemory::default()).await
    };
    let refused = ask(100_000).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(seen.load(Ordering::SeqCst), 0, "no pod was asked");
    let counted = [&gateway.counts.refused, &gateway.counts.failures, &gateway.counts.client_faults];
    assert_eq!(counted.map(|count| count.load(Ordering::Relaxed)), [1, 0, 0], "it is nobody's failure");
    assert_eq!(ask(1_000).await.status(), StatusCode::CREATED, "small ones go on");
    drop(held);
    assert_eq!(ask(100_000).await.status(), StatusCode::CREATED);
    assert_eq!(bodies.used(), 0, "nothing is held once it was answered");
}
