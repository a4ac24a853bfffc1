//! Sends a request to a pod and, where that cannot do harm, to another when the first fails or stands still.

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
use crds::settings::Settings;
use futures::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use super::{
    balance::Balancer,
    client::UpstreamClient,
    client_address, hops,
    memory::{ASKS_ABOUT, ConnectionMemory},
    patience::RetryBudget,
    registry::{Registry, Upstream},
    route,
    send::{self, Answer, Failure, Payload},
    upload::{Upload, UploadFault},
};
use crate::config::Loaded;

/// How often a request is tried, at one pod or another.
const ATTEMPTS_MAX: u32 = 6;

/// The wait before another look for pods, times the attempts so far: 3 s in all, so that discovery has looked again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest that pods may take to begin an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

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
    budget: RetryBudget,
}

/// What the gateway has counted since its start.
#[derive(Debug, Default)]
pub struct ProxyCounts {
    /// Requests taken.
    pub requests: AtomicU64,
    /// Requests sent to another pod after the first failed or while it stood still.
    pub retries: AtomicU64,
    /// Requests that no pod answered.
    pub failures: AtomicU64,
    /// Requests whose body the client did not send as HTTP asks, or not to its end.
    pub client_faults: AtomicU64,
}

/// A request that can be sent, and where to.
struct Errand<'a> {
    proxy: &'a Proxy,
    settings: &'a Settings,
    parts: &'a Parts,
    whole: Bytes,
    /// Pods that have not failed it.
    candidates: Vec<Arc<Upstream>>,
}

type Attempt<'a> = BoxFuture<'a, Result<Answer, (Failure, Arc<Upstream>)>>;

impl Proxy {
    /// A proxy over the groups of these settings.
    pub fn new(settings: watch::Receiver<Arc<Loaded>>, client: UpstreamClient) -> Self {
        Self {
            registry: Registry::default(),
            client,
            counts: ProxyCounts::default(),
            settings,
            balancer: Balancer::default(),
            budget: RetryBudget::default(),
        }
    }

    /// The settings that it runs by.
    pub fn settings(&self) -> Arc<Loaded> {
        self.settings.borrow().clone()
    }

    /// Answers a request of a client with what a pod answers.
    pub async fn forward(&self, request: Request, peer: SocketAddr, memory: &ConnectionMemory) -> Response {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        self.budget.deposit();
        let loaded = self.settings();
        let (mut parts, body) = request.into_parts();
        let upload = match Upload::take(body).await {
            Ok(upload) => upload,
            Err(fault) => return self.not_uploaded(fault),
        };
        hops::prepare(&mut parts, peer, &client_address::trusted(&loaded.settings));
        memory.demand(&parts.method, &parts.uri, &mut parts.headers);
        if !parts.method.is_safe() {
            parts.headers.insert(ASKS_ABOUT, HeaderValue::from_static("1"));
        }
        let upgrade = hops::offers_websocket(&parts.headers).then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        let candidates = route::candidates(&self.registry, &loaded.settings, parts.uri.path());
        let mut errand =
            Errand { proxy: self, settings: &loaded.settings, parts: &parts, whole: Bytes::new(), candidates };
        let answered = match upload {
            Upload::Whole(bytes) => {
                errand.whole = bytes;
                errand.carry_out().await
            }
            Upload::Streamed(streamed) => errand.send_once(Payload::Streamed(streamed)).await,
        };
        match answered {
            Ok(answer) => {
                memory.remember(&parts.uri, answer.head().status(), answer.head().headers());
                answer.respond(upgrade)
            }
            Err(response) => response,
        }
    }

    fn not_uploaded(&self, fault: UploadFault) -> Response {
        self.counts.client_faults.fetch_add(1, Ordering::Relaxed);
        let mut response = match fault {
            UploadFault::Broken => problem(
                StatusCode::BAD_REQUEST,
                "the body is not framed as HTTP/1.1 asks, or ended before its declared length",
            ),
            UploadFault::Slow => problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
        };
        // what follows on this connection cannot be told from the rest of the body
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn no_pod(&self) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut response =
            problem(StatusCode::SERVICE_UNAVAILABLE, "no pod of the data plane that serves this is ready; try again");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    fn unknown(&self) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        problem(
            StatusCode::BAD_GATEWAY,
            "the data plane broke off before it answered: the request may or may not have been carried out",
        )
    }

    fn too_late(&self) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let seconds = ANSWER_TIMEOUT.as_secs();
        problem(
            StatusCode::GATEWAY_TIMEOUT,
            &format!(
                "the data plane did not answer within {seconds} s: the request may or may not have been carried out"
            ),
        )
    }
}

impl<'a> Errand<'a> {
    /// Sends the request until a pod answers, as often as that does no harm.
    async fn carry_out(&mut self) -> Result<Answer, Response> {
        for attempt in 0..ATTEMPTS_MAX {
            let Some(upstream) = self.next_pod(attempt).await else { continue };
            if attempt > 0 {
                self.proxy.counts.retries.fetch_add(1, Ordering::Relaxed);
            }
            match self.ask(upstream).await {
                Ok(answer) => return Ok(answer),
                Err(Some(failure)) if !self.may_repeat(failure) => return Err(self.proxy.unknown()),
                Err(Some(_)) => (),
                Err(None) => return Err(self.proxy.too_late()),
            }
        }
        Err(self.proxy.no_pod())
    }

    /// Sends a request whose body cannot be sent again.
    async fn send_once(&mut self, payload: Payload) -> Result<Answer, Response> {
        let mut upstream = None;
        for attempt in 0..ATTEMPTS_MAX {
            upstream = self.next_pod(attempt).await;
            if upstream.is_some() {
                break;
            }
        }
        let Some(upstream) = upstream else { return Err(self.proxy.no_pod()) };
        match tokio::time::timeout(ANSWER_TIMEOUT, send::attempt(&self.proxy.client, self.parts, payload, upstream))
            .await
        {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err((Failure::Client, _))) => Err(self.proxy.not_uploaded(UploadFault::Broken)),
            Ok(Err((Failure::NotSent, _))) => Err(self.proxy.no_pod()),
            Ok(Err((Failure::Unknown, _))) => Err(self.proxy.unknown()),
            Err(_) => Err(self.proxy.too_late()),
        }
    }

    /// The pod to ask next. A pod that is just being replaced leaves a gap of some milliseconds: better waited for than answered with 503.
    async fn next_pod(&mut self, attempt: u32) -> Option<Arc<Upstream>> {
        if self.candidates.is_empty() {
            sleep(RETRY_PAUSE * attempt).await;
            self.candidates = route::candidates(&self.proxy.registry, self.settings, self.parts.uri.path());
        }
        self.choose(&self.candidates)
    }

    fn choose(&self, candidates: &[Arc<Upstream>]) -> Option<Arc<Upstream>> {
        self.proxy.balancer.choose(candidates, self.settings, self.parts.uri.path())
    }

    fn attempt(&self, upstream: Arc<Upstream>) -> Attempt<'a> {
        let (client, parts, whole) = (&self.proxy.client, self.parts, Payload::Whole(self.whole.clone()));
        Box::pin(send::attempt(client, parts, whole, upstream))
    }

    /// Asks one pod, and others beside it where it stands still and the request is safe. None where the time for an answer is over.
    async fn ask(&mut self, upstream: Arc<Upstream>) -> Result<Answer, Option<Failure>> {
        let due = Instant::now() + ANSWER_TIMEOUT;
        let is_safe = self.parts.method.is_safe();
        let patience = if is_safe { Instant::now() + upstream.answer_time.patience() } else { due };
        let mut first = self.attempt(upstream.clone());
        tokio::select! {
            answered = &mut first => return answered.map_err(|(failure, failed)| {
                self.forget(&failed);
                Some(failure)
            }),
            () = sleep_until(patience) => (),
        }
        if !is_safe {
            warn!(upstream = %upstream.addr, "the pod did not answer in time");
            return Err(None);
        }
        upstream.kept_waiting();
        self.ask_others(first, upstream, due).await
    }

    /// The first answer of all who are asked: the pod that keeps the request waiting, one more where the budget allows, and more as pods are ejected.
    async fn ask_others(
        &mut self,
        first: Attempt<'a>,
        slow: Arc<Upstream>,
        due: Instant,
    ) -> Result<Answer, Option<Failure>> {
        let mut attempts = FuturesUnordered::from_iter([first]);
        let mut waiting: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let until_ejected = |upstream: Arc<Upstream>| -> BoxFuture<'static, ()> {
            Box::pin(async move { upstream.until_ejected().await })
        };
        self.forget(&slow);
        waiting.push(until_ejected(slow));
        let mut may_ask = self.proxy.budget.withdraw();
        let mut failure = Failure::Unknown;
        loop {
            if may_ask && let Some(other) = self.choose(&self.candidates) {
                self.proxy.counts.retries.fetch_add(1, Ordering::Relaxed);
                self.forget(&other);
                attempts.push(self.attempt(other.clone()));
                waiting.push(until_ejected(other));
            }
            may_ask = false;
            tokio::select! {
                Some(answered) = attempts.next() => match answered {
                    Ok(answer) => return Ok(answer),
                    Err((why, _)) => failure = why,
                },
                // a pod that is ejected will hardly answer: the next one needs no budget
                Some(()) = waiting.next() => may_ask = true,
                () = sleep_until(due) => return Err(None),
            }
            if attempts.is_empty() && !may_ask {
                return Err(Some(failure));
            }
        }
    }

    fn forget(&mut self, upstream: &Upstream) {
        self.candidates.retain(|candidate| candidate.addr != upstream.addr);
    }

    fn may_repeat(&self, failure: Failure) -> bool {
        match failure {
            Failure::NotSent => true,
            Failure::Unknown => self.parts.method.is_safe() || guarded(&self.parts.method, &self.parts.headers),
            Failure::Client => false,
        }
    }
}

/// Whether a repeated write has no second effect: it carries an idempotency key.
fn guarded(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && headers.contains_key("idempotency-key")
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], Body::from(body.to_string())).into_response()
}

#[cfg(test)]
mod tests;
