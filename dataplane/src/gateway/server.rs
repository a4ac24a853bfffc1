//! The gateway as a program: discovery, health checks, the listener and the admin port.

use std::{fmt::Write, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::info;

use super::{
    client::UpstreamClient,
    discovery::{self, Discovery},
    health,
    proxy::Proxy,
};
use crate::{
    config::Loaded,
    http::{access_log::AccessLine, request_ids::RequestIds},
    server::{
        self, ClientConnection,
        apart::{Pulse, serve_apart},
        places,
    },
};
use model::{
    budget::{Budget, Budgets},
    routes,
};
use runtime::{shutdown::Shutdown, supervisor};

/// What the gateway needs to run.
pub struct GatewayOptions {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Where probes and scrapers connect.
    pub admin: TcpListener,
    /// The settings, as they change.
    pub settings: watch::Receiver<Arc<Loaded>>,
    /// Where the pods are found.
    pub discovery: Discovery,
    /// Takes connections over TLS, where the API is served so.
    pub tls: Option<TlsAcceptor>,
    /// Calls pods.
    pub client: UpstreamClient,
    /// What requests and answers may hold.
    pub budgets: Budgets,
    /// The way down.
    pub shutdown: Shutdown,
}

#[derive(Clone)]
struct Gateway {
    proxy: Arc<Proxy>,
    shutdown: Shutdown,
}

/// Runs the gateway until it is told to stop and what was under way has ended.
pub async fn run(options: GatewayOptions) {
    let GatewayOptions { listener, admin, settings, discovery, tls, client, budgets, shutdown } = options;
    let gateway =
        Gateway { proxy: Arc::new(Proxy::new(settings, client, budgets)), shutdown: shutdown.clone() };
    let (found, asked) = ((gateway.proxy.clone(), Arc::new(discovery)), gateway.proxy.clone());
    supervisor::DISCOVERY.spawn(move || discover(found.0.clone(), found.1.clone()));
    supervisor::POD_CHECKS.spawn(move || check(asked.clone()));
    if let (Ok(addr), Ok(admin)) = (listener.local_addr(), admin.local_addr()) {
        info!(%addr, %admin, "ready");
    }
    let pulse = Pulse::start();
    let admin_routes = probes(pulse.clone())
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(gateway.clone());
    if let Err(error) = serve_apart(admin, admin_routes) {
        tracing::error!(%error, "the admin port cannot be served");
        return;
    }
    server::serve(listener, tls, router(gateway, pulse), async move { shutdown.stopped().await }).await;
}

fn router(gateway: Gateway, pulse: Pulse) -> Router {
    probes(pulse).route(routes::GATEWAY_REGISTRY.path, get(registry)).fallback(forward).with_state(gateway)
}

fn probes(pulse: Pulse) -> Router<Gateway> {
    Router::new()
        .route(routes::LIVEZ.path, get(async move || pulse.answer()))
        .route(routes::READYZ.path, get(readyz))
}

async fn readyz(State(gateway): State<Gateway>) -> Response {
    if gateway.shutdown.draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    if !gateway.proxy.registry.any_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no pod of the data plane is ready\n").into_response();
    }
    (StatusCode::OK, "ready\n").into_response()
}

async fn registry(State(gateway): State<Gateway>) -> Response {
    let loaded = gateway.proxy.settings();
    Json(serde_json::json!({ "services": gateway.proxy.registry.report(&loaded.settings) })).into_response()
}

async fn forward(
    State(gateway): State<Gateway>,
    Extension(client): Extension<ClientConnection>,
    mut request: Request,
) -> Response {
    let ids = RequestIds::of(request.headers_mut());
    let line = AccessLine::begin(&request);
    let mut response = gateway.proxy.forward(request, client.peer, &client.memory).await;
    ids.tell(&mut response);
    if let Some(line) = line {
        line.end(&response);
    }
    let ends = gateway.shutdown.draining() || client.memory.is_full();
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    response
}

/// What the operator reads, as pods of the data plane say it: which configuration this process runs by, and
/// how many requests it could not pass on. What a pod answered is the pod's own, whatever it was.
async fn status(State(gateway): State<Gateway>) -> Response {
    use std::sync::atomic::Ordering::Relaxed;
    let (proxy, loaded) = (&gateway.proxy, gateway.proxy.settings());
    let ready = proxy.registry.any_ready() && !gateway.shutdown.draining();
    let (total, errors) = (proxy.counts.requests.load(Relaxed), proxy.counts.failures.load(Relaxed));
    Json(serde_json::json!({
        "service": loaded.settings.service,
        "configuration": loaded.hash,
        "ready": ready,
        "requests": { "total": total, "errors": errors },
    }))
    .into_response()
}

async fn metrics(State(gateway): State<Gateway>) -> String {
    use std::sync::atomic::Ordering::Relaxed;
    let counts = &gateway.proxy.counts;
    let mut text = String::new();
    for (name, help, count) in [
        ("requests", "Requests taken.", &counts.requests),
        ("retries", "Requests sent to another pod after the first failed.", &counts.retries),
        ("failures", "Requests that no pod answered.", &counts.failures),
        ("client_faults", "Requests whose body the client did not send as HTTP asks.", &counts.client_faults),
        (
            "refused",
            "Requests refused because those under way hold as much memory as they may.",
            &counts.refused,
        ),
    ] {
        let count = count.load(Relaxed);
        _ = writeln!(
            text,
            "# HELP flyweight_gateway_{name}_total {help}\n# TYPE flyweight_gateway_{name}_total counter\nflyweight_gateway_{name}_total {count}"
        );
    }
    let refused = places::refused();
    _ = writeln!(
        text,
        "# HELP flyweight_refused_connections_total Connections refused because their address had as many as were free.\n\
         # TYPE flyweight_refused_connections_total counter\nflyweight_refused_connections_total {refused}"
    );
    let budgets = &gateway.proxy.budgets;
    for (name, help, read) in [
        ("held_bytes", "Bytes that requests and answers under way hold.", Budget::used as fn(&Budget) -> u64),
        ("held_bytes_max", "The most that they may hold.", Budget::capacity),
    ] {
        let (answers, bodies) = (read(&budgets.answers), read(&budgets.bodies));
        _ = writeln!(
            text,
            "# HELP flyweight_{name} {help}\n# TYPE flyweight_{name} gauge\n\
             flyweight_{name}{{of=\"answers\"}} {answers}\nflyweight_{name}{{of=\"bodies\"}} {bodies}"
        );
    }
    let upstreams = gateway.proxy.registry.all();
    let healthy = upstreams.iter().filter(|upstream| upstream.is_healthy()).count();
    _ = writeln!(
        text,
        "# HELP flyweight_gateway_upstreams Pods by health.\n# TYPE flyweight_gateway_upstreams gauge\n\
         flyweight_gateway_upstreams{{healthy=\"true\"}} {healthy}\nflyweight_gateway_upstreams{{healthy=\"false\"}} {}",
        upstreams.len() - healthy
    );
    text
}

/// Looks for pods, and asks new ones at once, so that they get traffic without waiting for the next round of
/// checks.
async fn discover(proxy: Arc<Proxy>, discovery: Arc<Discovery>) {
    loop {
        let loaded = proxy.settings();
        let groups: Vec<_> = loaded.settings.groups.iter().map(|group| group.name.clone()).collect();
        let new = discovery.refresh(&proxy.registry, &groups).await;
        if !new.is_empty() {
            let addrs: Vec<SocketAddr> = new.iter().map(|upstream| upstream.addr).collect();
            info!(?addrs, "new pods");
            health::check_all(&proxy, &new, check_timeout(&loaded)).await;
        }
        tokio::time::sleep(discovery::INTERVAL).await;
    }
}

/// Checks healthy pods at the declared interval and the others every second, so that a pod that is back gets
/// traffic soon.
async fn check(proxy: Arc<Proxy>) {
    let mut rounds = 0_u64;
    loop {
        let loaded = proxy.settings();
        let interval_s = loaded
            .settings
            .gateway
            .as_ref()
            .map_or(5, |gateway| gateway.health_check.interval.0.as_secs().max(1));
        let due = rounds.is_multiple_of(interval_s);
        let asked: Vec<_> =
            proxy.registry.all().iter().filter(|upstream| due || !upstream.is_healthy()).cloned().collect();
        health::check_all(&proxy, &asked, check_timeout(&loaded)).await;
        rounds += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn check_timeout(loaded: &Loaded) -> Duration {
    loaded.settings.gateway.as_ref().map_or(Duration::from_secs(1), |gateway| gateway.health_check.timeout.0)
}
