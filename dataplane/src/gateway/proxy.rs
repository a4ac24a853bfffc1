//! What forwarding a request needs, what it counts, and how it refuses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, Version, header, request::Parts};
use tokio::sync::watch;

use super::{
    balance::Balancer, client::UpstreamClient, patience::RetryBudget, registry::Registry, upload::UploadFault,
};
use crate::{config::Loaded, problem::Problem};
use model::budget::Budgets;

/// The longest that pods may take to begin an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Forwards requests.
pub struct Proxy {
    /// The pods.
    pub registry: Registry,
    /// The connections to them.
    pub client: UpstreamClient,
    /// What has been counted.
    pub counts: ProxyCounts,
    /// What requests and answers may hold.
    pub budgets: Budgets,
    settings: watch::Receiver<Arc<Loaded>>,
    pub(super) balancer: Balancer,
    pub(super) budget: RetryBudget,
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
    /// Requests refused because those under way hold as much memory as they may.
    pub refused: AtomicU64,
}

impl Proxy {
    /// A proxy over the groups of these settings.
    pub fn new(settings: watch::Receiver<Arc<Loaded>>, client: UpstreamClient, budgets: Budgets) -> Self {
        Self {
            registry: Registry::default(),
            client,
            counts: ProxyCounts::default(),
            budgets,
            settings,
            balancer: Balancer::default(),
            budget: RetryBudget::default(),
        }
    }

    /// The settings that it runs by.
    pub fn settings(&self) -> Arc<Loaded> {
        self.settings.borrow().clone()
    }

    /// The answer to a request with this head whose body did not come as it should.
    pub(super) fn not_uploaded(&self, fault: UploadFault, parts: &Parts) -> Response {
        let problem = match fault {
            UploadFault::NoMemory => return self.no_memory(&parts.uri),
            UploadFault::Broken => {
                let detail = "the body is not framed as HTTP asks, or ended before its declared length";
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "broken-body",
                    "The body did not come as declared",
                    detail,
                )
            }
            UploadFault::Slow => Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                "The body did not arrive in time",
                "the body did not arrive in time: send it again",
            ),
        };
        self.counts.client_faults.fetch_add(1, Ordering::Relaxed);
        let mut response = problem.respond(&parts.uri);
        // What follows on this connection cannot be told from the rest of the body. HTTP/2 has frames for
        // that.
        if parts.version <= Version::HTTP_11 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    pub(super) fn no_memory(&self, uri: &Uri) -> Response {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Problem::no_memory().respond(uri)
    }

    pub(super) fn no_pod(&self, uri: &Uri) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let detail = "no pod of the data plane that serves this is ready; try again";
        Problem::unavailable("no-pod", detail).respond(uri)
    }

    pub(super) fn unknown(&self, uri: &Uri) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let detail =
            "the data plane broke off before it answered: the request may or may not have been carried out";
        let title = "Nobody knows what became of the request";
        Problem::new(StatusCode::BAD_GATEWAY, "broken-off", title, detail).respond(uri)
    }

    pub(super) fn too_late(&self, uri: &Uri) -> Response {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        let seconds = ANSWER_TIMEOUT.as_secs();
        let detail = format!(
            "the data plane did not answer within {seconds} s: the request may or may not have been carried out"
        );
        let title = "No answer came in time";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", title, detail).respond(uri)
    }
}

#[cfg(test)]
mod tests;
