//! Asks each pod whether it serves.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures::stream::{FuturesUnordered, StreamExt};
use http::Request;

use super::{proxy::Proxy, registry::Upstream};
use crate::http::health::SERVED;

/// Checks all pods at once and returns when each has answered or its time is up.
pub async fn check_all(proxy: &Proxy, upstreams: &[Arc<Upstream>], timeout: Duration) {
    let mut checks: FuturesUnordered<_> =
        upstreams.iter().map(|upstream| check(proxy, upstream, timeout)).collect();
    while checks.next().await.is_some() {}
}

async fn check(proxy: &Proxy, upstream: &Upstream, timeout: Duration) {
    let Ok(uri) = proxy.client.uri(upstream, "/readyz") else { return };
    let Ok(request) = Request::get(uri).body(Body::empty()) else { return };
    let answer = match tokio::time::timeout(timeout, proxy.client.request(request)).await {
        Ok(Ok(response)) => {
            let well = response.status().is_success();
            if well {
                upstream.says_that_it_serves(
                    response.headers().get(SERVED).and_then(|pools| pools.to_str().ok()),
                );
            }
            Some(well)
        }
        Ok(Err(_)) | Err(_) => None,
    };
    proxy.registry.checked(upstream, answer);
}
