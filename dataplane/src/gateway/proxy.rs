//! Sends a request to a pod and, where that cannot do harm, to another when the first fails.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use crds::{pool::Entity, settings::Settings};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use http_body_util::{BodyExt, Limited};
use hyper_util::{client::legacy::Error, rt::TokioIo};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{
    balance::Balancer,
    client::UpstreamClient,
    memory::ConnectionMemory,
    registry::{InFlight, Registry, Upstream},
};
use crate::config::Loaded;

/// Bodies up to so many bytes are kept, so that the request can be sent again.
const KEPT_BODY_MAX: usize = 1 << 20;

/// How often a request is tried, at one pod or another.
const ATTEMPTS_MAX: u32 = 6;

/// The wait before another look for pods, times the attempts so far: 3 s in all, so that discovery has looked again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest that a pod may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers of one hop only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
];

/// Forwards requests.
pub struct Proxy {
    /// The pods.
    pub registry: Registry,
    /// The connections to them.
    pub client: UpstreamClient,
    /// What has been counted.
    pub counts: ProxyCounts,
    settings: watch::Receiver<Arc<Loaded>>,
    balancer: Balancer,
}

/// What the gateway has counted since its start.
#[derive(Debug, Default)]
pub struct ProxyCounts {
    /// Requests taken.
    pub requests: AtomicU64,
    /// Requests sent to another pod after the first failed.
    pub retries: AtomicU64,
    /// Requests that no pod answered.
    pub failures: AtomicU64,
}

enum Failure {
    /// The pod cannot have seen the request.
    NotSent,
    /// The pod may have acted on the request.
    Unknown,
}

impl Proxy {
    /// A proxy over the groups of these settings.
    pub fn new(settings: watch::Receiver<Arc<Loaded>>, client: UpstreamClient) -> Self {
        Self {
            registry: Registry::default(),
            client,
            counts: ProxyCounts::default(),
            settings,
            balancer: Balancer::default(),
        }
    }

    /// The settings that it runs by.
    pub fn settings(&self) -> Arc<Loaded> {
        self.settings.borrow().clone()
    }

    /// Answers a request of a client with what a pod answers.
    pub async fn forward(&self, request: Request, peer: SocketAddr, memory: &ConnectionMemory) -> Response {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let loaded = self.settings();
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let mut candidates = self.candidates(&loaded.settings, &path);
        if is_upgrade(&parts.headers) {
            let affinity = parts.uri.query().unwrap_or_default().to_owned();
            let Some(upstream) = self.balancer.choose(&candidates, &loaded.settings, &affinity) else {
                return self.no_pod();
            };
            return self.tunnel(parts, upstream).await;
        }
        let body = match keep(&parts.headers, body).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        memory.demand(&parts.method, &path, &mut parts.headers);
        prepare(&mut parts, peer);
        let (whole, mut streamed) = match body {
            Kept::Whole(bytes) => (bytes, None),
            Kept::Streamed(body) => (Bytes::new(), Some(body)),
        };
        for attempt in 0..ATTEMPTS_MAX {
            if candidates.is_empty() {
                // A pod that is just being replaced leaves a gap of some milliseconds: better waited for than answered with 503.
                tokio::time::sleep(RETRY_PAUSE * attempt).await;
                candidates = self.candidates(&loaded.settings, &path);
            }
            let Some(upstream) = self.balancer.choose(&candidates, &loaded.settings, &path) else { continue };
            if attempt > 0 {
                self.counts.retries.fetch_add(1, Ordering::Relaxed);
            }
            let once = streamed.is_some();
            let body = streamed.take().unwrap_or_else(|| Body::from(whole.clone()));
            match self.send(&parts, body, &upstream).await {
                Ok(response) => {
                    if response.status().is_success() {
                        memory.remember(&parts.method, &path, response.headers());
                    }
                    return response;
                }
                Err(failure) => {
                    candidates.retain(|candidate| candidate.addr != upstream.addr);
                    let repeatable = match failure {
                        Failure::NotSent => true,
                        Failure::Unknown => parts.method.is_safe() || guarded(&parts.method, &parts.headers),
                    };
                    if once || !repeatable {
                        self.counts.failures.fetch_add(1, Ordering::Relaxed);
                        return problem(
                            StatusCode::BAD_GATEWAY,
                            "the data plane broke off before it answered: the request may or may not have been carried out",
                        );
                    }
                }
            }
        }
        self.no_pod()
    }

    /// The healthy pods, or else the suspect ones, that serve the pool that the path names. What names no pool goes to those that serve all, or to any where
    /// the service has shared its pools out.
    fn candidates(&self, settings: &Settings, path: &str) -> Vec<Arc<Upstream>> {
        let all = self.registry.all();
        let those = |serves: &dyn Fn(&Upstream) -> bool| {
            let fit = |fit: fn(&Upstream) -> bool| -> Vec<Arc<Upstream>> {
                all.iter().filter(|upstream| fit(upstream) && serves(upstream)).cloned().collect()
            };
            let healthy = fit(Upstream::is_healthy);
            if healthy.is_empty() { fit(Upstream::is_suspect) } else { healthy }
        };
        if let Some(pool) = pool_of(settings, path) {
            return those(&|upstream| upstream.serves(&pool, settings));
        }
        let whole = those(&|upstream| settings.pools.iter().all(|pool| upstream.serves(&pool.name, settings)));
        let mut wholes = settings.groups.iter().filter(|group| group.pools.len() == settings.pools.len()).peekable();
        if !whole.is_empty() || settings.groups.is_empty() {
            return whole;
        }
        match wholes.peek() {
            // until its pods are those of these settings, the former ones serve all that there was
            Some(_) => those(&|upstream| wholes.clone().any(|group| group.name == upstream.group)),
            None => those(&|_| true),
        }
    }

    async fn send(&self, parts: &Parts, body: Body, upstream: &Arc<Upstream>) -> Result<Response, Failure> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = self.client.uri(upstream, path).map_err(|_| Failure::NotSent)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers.clone();
        *request.version_mut() = Version::HTTP_11;
        let flight = upstream.start();
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => {
                if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
                    // It is about to end: others take what comes now.
                    upstream.failed();
                }
                Ok(answer(response, flight))
            }
            Ok(Err(error)) => {
                upstream.failed();
                warn!(upstream = %upstream.addr, error = %chain(&error), "the pod failed");
                Err(if error.is_connect() { Failure::NotSent } else { Failure::Unknown })
            }
            Err(_) => {
                warn!(upstream = %upstream.addr, "the pod did not answer in time");
                Err(Failure::Unknown)
            }
        }
    }

    /// Joins the client's connection and one to the pod, after both agreed to change the protocol.
    async fn tunnel(&self, mut parts: Parts, upstream: Arc<Upstream>) -> Response {
        let flight = upstream.start();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = self.client.uri(&upstream, path) else { return self.no_pod() };
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = parts.headers.clone();
        let mut response = match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) | Err(_) => {
                upstream.failed();
                return self.no_pod();
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return answer(response, flight);
        }
        let (Some(client_side), pod_side) =
            (parts.extensions.remove::<hyper::upgrade::OnUpgrade>(), hyper::upgrade::on(&mut response))
        else {
            return problem(StatusCode::BAD_REQUEST, "this connection cannot change its protocol");
        };
        tokio::spawn(async move {
            let _flight = flight;
            let (Ok(client_side), Ok(pod_side)) = tokio::join!(client_side, pod_side) else { return };
            let ended =
                tokio::io::copy_bidirectional(&mut TokioIo::new(client_side), &mut TokioIo::new(pod_side)).await;
            debug!(upstream = %upstream.addr, error = ?ended.err(), "a tunnel ended");
        });
        let (head, _) = response.into_parts();
        let mut reply = Response::new(Body::empty());
        *reply.status_mut() = head.status;
        *reply.headers_mut() = head.headers;
        reply
    }

    fn no_pod(&self) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut response =
            problem(StatusCode::SERVICE_UNAVAILABLE, "no pod of the data plane that serves this is ready; try again");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
}

/// A body, kept whole where it is small enough to be sent twice.
enum Kept {
    Whole(Bytes),
    Streamed(Body),
}

async fn keep(headers: &HeaderMap, body: Body) -> Result<Kept, Response> {
    let length: Option<usize> =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(Kept::Whole(Bytes::new()));
    }
    if length.is_none_or(|length| length > KEPT_BODY_MAX) {
        return Ok(Kept::Streamed(body));
    }
    match Limited::new(body, KEPT_BODY_MAX).collect().await {
        Ok(collected) => Ok(Kept::Whole(collected.to_bytes())),
        Err(_) => Err(problem(StatusCode::BAD_REQUEST, "the body of the request ended before its declared length")),
    }
}

/// Whether a repeated write has no second effect: it carries an idempotency key.
fn guarded(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && headers.contains_key("idempotency-key")
}

fn prepare(parts: &mut Parts, peer: SocketAddr) {
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    // What a client says of earlier hops is not believed: the gateway is the first hop that is trusted.
    if let Ok(value) = HeaderValue::from_str(&peer.ip().to_string()) {
        parts.headers.insert(HeaderName::from_static("x-forwarded-for"), value);
    }
}

fn answer(response: http::Response<hyper::body::Incoming>, flight: InFlight) -> Response {
    let (mut head, body) = response.into_parts();
    for name in HOP_BY_HOP {
        head.headers.remove(name);
    }
    let body = body.map_frame(move |frame| {
        // The request counts as under way until its whole answer has passed.
        let _ = &flight;
        frame
    });
    Response::from_parts(head, Body::new(body))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// The pool that a path names: `/api/v1/products/1`, `/api/v1/pools/stores/1`. Events that are sent are of products. What names no pool that there is, is
/// for a pod to refuse.
fn pool_of(settings: &Settings, path: &str) -> Option<String> {
    let mut segments = path.strip_prefix("/api/v1/")?.split('/');
    let (first, second) = (segments.next()?, segments.next());
    let entity = match (first, second) {
        ("events", None) => Entity::Product,
        ("pools", Some(name)) => {
            return settings.pools.iter().find(|pool| pool.name == name).map(|pool| pool.name.clone());
        }
        _ => entity_of(first)?,
    };
    settings.pools.iter().find(|pool| pool.entity == entity).map(|pool| pool.name.clone())
}

/// The entity whose records have this path.
fn entity_of(collection: &str) -> Option<Entity> {
    Some(match collection {
        "users" => Entity::User,
        "payments" => Entity::Payment,
        "orders" => Entity::Order,
        "products" => Entity::Product,
        "notifications" => Entity::NotificationTemplate,
        "configurations" => Entity::Configuration,
        _ => return None,
    })
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
