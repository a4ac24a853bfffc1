//! Counts requests that were refused for who called: by route and caller, each of a bounded number.

use std::collections::HashSet;

use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};

use super::router::BASE;
use crate::domain::strict::shorten;

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
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The refused requests of this process.
pub struct Refusals {
    refused: IntCounterVec,
    callers: Mutex<HashSet<String>>,
}

impl Refusals {
    /// None yet.
    ///
    /// # Errors
    /// A metric of the same name is there already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = "Requests that were refused for who called: 401 without a good token, 403 without the right";
        let opts = Opts::new("flyweight_refused_requests_total", about);
        let refused = IntCounterVec::new(opts, &["status", "route", "caller"])?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { refused, callers: Mutex::default() })
    }

    /// Counts an answer, if it is a refusal.
    pub fn count(&self, status: StatusCode, method: &Method, uri: &Uri, caller: Option<&str>) {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        let (route, caller) = (route_of(method, uri.path()), self.known(caller));
        tracing::debug!(status = status.as_u16(), route, caller, "refused");
        self.refused.with_label_values(&[status.as_str(), &route, &caller]).inc();
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

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn refusals_are_counted_by_route_and_caller_and_both_are_bounded() {
        let registry = Registry::new();
        let refusals = Refusals::new(&registry).unwrap();
        let uri = |path: &str| path.parse::<Uri>().unwrap();
        refusals.count(StatusCode::UNAUTHORIZED, &Method::GET, &uri("/api/v1/orders"), None);
        refusals.count(StatusCode::FORBIDDEN, &Method::DELETE, &uri("/api/v1/orders/o1?x=1"), Some("ann"));
        refusals.count(StatusCode::OK, &Method::GET, &uri("/api/v1/orders"), Some("bob"));
        let shown = text(&registry);
        assert!(shown.contains(r#"{caller="-",route="GET /orders",status="401"} 1"#), "{shown}");
        assert!(shown.contains(r#"{caller="ann",route="DELETE /orders/…",status="403"} 1"#), "{shown}");
        assert!(!shown.contains("bob"));
        for n in 0..1_000 {
            let path = uri(&format!("/api/v1/{n}/{n}"));
            refusals.count(StatusCode::FORBIDDEN, &Method::GET, &path, Some(&format!("caller-{n}")));
        }
        assert!(text(&registry).lines().count() < CALLERS_MAX + 10);
        assert!(text(&registry).contains(r#"caller="others",route="GET /others/…""#));
    }
}
