//! Counts requests that were refused: by why, by route and, where it matters who called, by caller, each of a
//! bounded number.

use std::collections::HashSet;

use axum::response::Response;
use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::router::BASE;
use crate::problem::Reason;
use model::strict::shorten;

/// The callers that are told apart in one process: more are counted together.
const CALLERS_MAX: usize = 100;
/// What requests without a good token are counted as.
const NOBODY: &str = "-";
/// What is counted together.
const OTHERS: &str = "others";
/// The first parts of paths that are told apart: whoever asks at random makes no more labels.
const ROUTES: [&str; 24] = [
    "audit",
    "batch",
    "configurations",
    "dead-letters",
    "events",
    "factory",
    "figures",
    "flags",
    "health",
    "notifications",
    "ofrep",
    "orders",
    "payments",
    "pipeline",
    "pools",
    "products",
    "queues",
    "repositories",
    "schemas",
    "sessions",
    "status",
    "users",
    "ws",
    "openapi.json",
];
/// The statuses of refusals.
const REFUSED: [StatusCode; 5] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::SERVICE_UNAVAILABLE,
];
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The refused requests of this process.
pub struct Refusals {
    refused: IntCounterVec,
    /// Whether callers' rates are shared with other replicas.
    shared: IntGauge,
    callers: Mutex<HashSet<String>>,
}

impl Refusals {
    /// None yet.
    ///
    /// # Errors
    /// A metric of the same name is there already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = "Requests that were refused: 401 without a good token, 403 without the right, 413 too large, \
                     429 beyond the rate, 503 for overload or what is away";
        let opts = Opts::new("flyweight_refused_requests_total", about);
        let refused = IntCounterVec::new(opts, &["status", "reason", "route", "caller"])?;
        registry.register(Box::new(refused.clone()))?;
        let about = "Whether the rates of callers are shared with other replicas: 0 while each has its own.";
        let shared = IntGauge::new("flyweight_rate_limits_shared", about)?;
        registry.register(Box::new(shared.clone()))?;
        Ok(Self { refused, shared, callers: Mutex::default() })
    }

    /// Counts an answer, if it is a refusal.
    pub fn count(&self, response: &Response, method: &Method, uri: &Uri, caller: Option<&str>) {
        let status = response.status();
        if !REFUSED.contains(&status) {
            return;
        }
        // what the process cannot take is nobody's in particular
        let by_caller = !matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::SERVICE_UNAVAILABLE);
        let (route, caller) = (route_of(method, uri.path()), self.known(caller.filter(|_| by_caller)));
        let Reason(reason) = response.extensions().get().copied().unwrap_or(Reason(NOBODY));
        tracing::debug!(status = status.as_u16(), reason, route, caller, "refused");
        self.refused.with_label_values(&[status.as_str(), reason, &route, &caller]).inc();
    }

    /// Notes whether callers' rates are shared with other replicas.
    pub fn note_shared(&self, shared: bool) {
        self.shared.set(shared.into());
    }

    fn known(&self, caller: Option<&str>) -> String {
        let Some(caller) = caller else { return NOBODY.to_owned() };
        let (caller, mut callers) = (shorten(caller), self.callers.lock());
        if !callers.contains(&caller) && callers.len() >= CALLERS_MAX {
            return OTHERS.to_owned();
        }
        callers.insert(caller.clone());
        caller
    }
}

/// The route of a path: `GET /orders/…`.
fn route_of(method: &Method, path: &str) -> String {
    let method = if METHODS.contains(method) { method.as_str() } else { OTHERS };
    let mut parts = path.strip_prefix(BASE).unwrap_or(path).split('/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    let known = ROUTES.iter().find(|known| **known == first).copied().unwrap_or(OTHERS);
    format!("{method} /{known}{}", if parts.next().is_some() { "/…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn refusals_are_counted_by_route_and_caller_and_both_are_bounded() {
        let registry = Registry::new();
        let refusals = Refusals::new(&registry).unwrap();
        let uri = |path: &str| path.parse::<Uri>().unwrap();
        let count = |status: StatusCode, method: &Method, uri: &Uri, caller: Option<&str>| {
            let answer = Problem::new(status, "why", "", "").respond(uri);
            refusals.count(&answer, method, uri, caller);
        };
        count(StatusCode::UNAUTHORIZED, &Method::GET, &uri("/api/v1/orders"), None);
        count(StatusCode::FORBIDDEN, &Method::DELETE, &uri("/api/v1/orders/o1?x=1"), Some("ann"));
        count(StatusCode::OK, &Method::GET, &uri("/api/v1/orders"), Some("bob"));
        let shown = text(&registry);
        assert!(shown.contains(r#"{caller="-",reason="why",route="GET /orders",status="401"} 1"#), "{shown}");
        assert!(
            shown.contains(r#"{caller="ann",reason="why",route="DELETE /orders/…",status="403"} 1"#),
            "{shown}"
        );
        assert!(!shown.contains("bob"));
        for status in REFUSED {
            count(status, &Method::GET, &uri("/api/v1/users"), Some("eve"));
            let caller = if matches!(status.as_u16(), 413 | 503) { "-" } else { "eve" };
            let told = format!(
                r#"{{caller="{caller}",reason="why",route="GET /users",status="{}"}} 1"#,
                status.as_str()
            );
            assert!(text(&registry).contains(&told), "{told}");
        }
        for n in 0..1_000 {
            let path = uri(&format!("/api/v1/{n}/{n}"));
            count(StatusCode::FORBIDDEN, &Method::GET, &path, Some(&format!("caller-{n}")));
        }
        assert!(text(&registry).lines().count() < CALLERS_MAX + REFUSED.len() + 10);
        assert!(text(&registry).contains(r#"caller="others",reason="why",route="GET /others/…""#));
    }
}
