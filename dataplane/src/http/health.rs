//! `/health`, `/livez` and `/readyz`: what the parts of the process said last.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use tokio::sync::watch;

use super::params::Params;
use crate::problem::Problem;
use store::confined::PoolFault;

/// Names the pools that the process serves, in its answers to `GET /readyz`: the gateway goes by what pods
/// say, since a pool may move from one group to another while pods of both are being replaced.
pub const SERVED: HeaderName = HeaderName::from_static("flyweight-pools");

/// What the process says of itself. Who checks the parts sends the news; asking costs nothing.
pub struct Health {
    /// The newest result of each check.
    pub checks: watch::Receiver<BTreeMap<String, Check>>,
    /// Why requests should not be sent here; none when they should: not before warm-up, nor while shutting
    /// down.
    pub unready: watch::Receiver<Option<String>>,
    /// The pools that are away, with why.
    pub unavailable: Unavailable,
    /// The names of the pools that it serves, with commas between them.
    pub served: HeaderValue,
    /// The figures of the flyweight pools, as in `/factory/stats`.
    pub factory: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The figures that the dashboard shows.
    pub figures: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Whether the rates of callers are shared with other replicas now; none where that was not asked for, or
    /// there is no rate.
    pub rates_are_shared: Box<dyn Fn() -> Option<bool> + Send + Sync>,
    /// What waits: committed events that are not yet published, and accepted ones that are not yet applied.
    pub queues: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// Tells the pools that cannot be used until their owners have mended their collections, with why.
pub type Unavailable = Box<dyn Fn() -> BTreeMap<String, PoolFault> + Send + Sync>;

/// The state of one part: a store, a cache, a bus.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Check {
    /// Whether it answers.
    pub status: Condition,
    /// How long the last answer took, in milliseconds.
    pub latency_ms: f64,
    /// What is wrong, without addresses or secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The settings by which it commits, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Where an acknowledged write can be lost by them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether it has no room left for what is written.
    #[serde(skip)]
    pub is_full: bool,
    /// Whether requests fail without it.
    #[serde(skip)]
    pub critical: bool,
    /// Who else owns what is kept there, where that is so: it is left alone.
    #[serde(skip)]
    pub owned_by: Option<String>,
    /// Whether its password goes out without TLS, which its author did not allow: the next release refuses
    /// that.
    #[serde(skip)]
    pub plaintext_password: bool,
}

/// How well something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It does all that it should.
    #[default]
    Healthy,
    /// It does what it must.
    Degraded,
    /// It does not do what it must.
    Unhealthy,
}

#[derive(Serialize)]
struct Report<'a> {
    status: Condition,
    version: &'a str,
    checks: &'a BTreeMap<String, Check>,
    unavailable: &'a BTreeMap<String, PoolFault>,
    factory: serde_json::Value,
    queues: serde_json::Value,
    rate_limits: Option<&'static str>,
}

/// The state of the whole, from its parts.
pub fn overall<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Condition {
    let weigh = |check: &Check| match (check.status, check.critical) {
        (Condition::Healthy, _) => Condition::Healthy,
        (Condition::Unhealthy, true) => Condition::Unhealthy,
        _ => Condition::Degraded,
    };
    checks.into_iter().map(weigh).max_by_key(|condition| *condition as u8).unwrap_or(Condition::Healthy)
}

/// The state of the whole where some pools are away: the others are served.
pub fn confined(status: Condition, pools_away: usize) -> Condition {
    if status == Condition::Healthy && pools_away > 0 { Condition::Degraded } else { status }
}

/// `GET /health`
pub async fn health(State(health): State<Arc<Health>>) -> Response {
    let checks = health.checks.borrow().clone();
    let unavailable = (health.unavailable)();
    let status = confined(overall(checks.values()), unavailable.len());
    let (factory, queues) = ((health.factory)(), (health.queues)());
    let report = Report {
        status,
        version: env!("CARGO_PKG_VERSION"),
        checks: &checks,
        unavailable: &unavailable,
        factory,
        queues,
        rate_limits: (health.rates_are_shared)().map(|shared| if shared { "shared" } else { "local" }),
    };
    let code = if status == Condition::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = serde_json::to_string(&report).unwrap_or_default();
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// `GET /figures`: what the dashboard shows.
pub async fn figures(State(health): State<Arc<Health>>, uri: Uri) -> Response {
    match Params::read(&uri, &[]) {
        Ok(_) => ([(header::CACHE_CONTROL, "no-store")], axum::Json((health.figures)())).into_response(),
        Err(problem) => problem.respond(&uri),
    }
}

/// `GET /livez`: the process runs.
pub async fn live() -> &'static str {
    "ok"
}

/// `GET /readyz`: requests may be sent here.
pub async fn ready(State(health): State<Arc<Health>>, uri: Uri) -> Response {
    let unready = health.unready.borrow().clone();
    match unready {
        None => ([(SERVED, health.served.clone())], "ok").into_response(),
        Some(why) => Problem::unavailable("not-ready", why).respond(&uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_critical_parts_make_the_whole_unhealthy() {
        let check = |status, critical| Check { status, latency_ms: 1.0, critical, ..Check::default() };
        let (well, cache, store) = (
            check(Condition::Healthy, true),
            check(Condition::Unhealthy, false),
            check(Condition::Unhealthy, true),
        );
        assert_eq!(overall([]), Condition::Healthy);
        assert_eq!(overall([&well]), Condition::Healthy);
        assert_eq!(overall([&well, &cache]), Condition::Degraded);
        assert_eq!(overall([&cache, &store, &well]), Condition::Unhealthy);
        assert_eq!(confined(Condition::Healthy, 0), Condition::Healthy);
        assert_eq!(confined(Condition::Healthy, 1), Condition::Degraded);
        assert_eq!(confined(Condition::Unhealthy, 1), Condition::Unhealthy);
    }
}
