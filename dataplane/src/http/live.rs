//! The live feed of changes: `GET /ws` and `GET /events/stream`, with replay by `since` and never a silent
//! gap.
//!
//! - `topics`: entities, collections or event types, separated by commas; all that the caller may read where
//!   it is left out.
//! - `user_id`: only what concerns this user (the user's record, and records with this `user_id`), and shared
//!   entities such as products where `topics` names them. The event of a deleted record says in `owner` whose
//!   it was.
//! - `since`: the cursor of the last event that the client has. An event stream's `Last-Event-ID` wins over
//!   it.
//! - `client_id`: a label for the log.
//! - `ticket`, or `access_token`: who calls, for browsers, which send no header here. The guard takes both
//!   out of the address (`http::credentials`).
//!
//! The right to what is subscribed is that of the moment, at each frame (`right`). A WebSocket is closed with
//! 4401 when its token ends, and with 4403 when the policy no longer lets the caller read one of its topics;
//! an event stream ends with `{"type":"closed","code":4401,"reason":…}`. Who named no topics has those that
//! the caller could read when the connection was made.
//!
//! `health_check` comes every 30 seconds and whenever a part of the service begins or ceases to answer; its
//! `data` says which. The bus carries it too, of each replica, for those who read the topic: `key` is the
//! replica. A client of the feed gets that of the replica that serves it.
//!
//! A client that falls behind by more than its queue gets `{"type":"resync","cursor":…}`: it has everything
//! up to the cursor, and what comes next starts anew. With `since` and that cursor on another connection it
//! gets what it missed. If that happens twice within a ping interval the connection is closed with 1013.

pub mod catalogue;
mod client;
pub mod closing;
pub mod frame;
pub mod handshake;
mod hub;
mod right;
mod socket;
mod stream;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::get,
};
use crds::service::messaging::WebSocket as LiveOptions;
use http::Uri;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    catalogue::{Catalogue, LiveEntity},
    client::Client,
    frame::Filter,
    hub::Hub,
    right::Right,
};
use super::{health::Check, params::Params};
use crate::problem::Problem;
use crate::security::{caller::Caller, policy::Policies};
use events::EventBus;
use model::{key::Key, routes};
use runtime::supervisor;

/// The most characters of a client's label.
const LABEL_MAX: usize = 128;

/// The live feed.
pub struct Live {
    hub: Arc<Hub>,
    bus: Arc<dyn EventBus>,
    catalogue: Arc<Catalogue>,
    policies: Arc<Policies>,
    options: watch::Receiver<LiveOptions>,
    meter: LiveMeter,
    shutdown: CancellationToken,
}

/// What the feed is made from.
pub struct LiveParts {
    /// Where events come from.
    pub bus: Arc<dyn EventBus>,
    /// What is served.
    pub entities: Vec<LiveEntity>,
    /// The policies of the entities' pools.
    pub policies: Arc<Policies>,
    /// Options, which new connections take up.
    pub options: watch::Receiver<LiveOptions>,
    /// The newest checks of the service's parts, which the feed tells.
    pub checks: watch::Receiver<BTreeMap<String, Check>>,
    /// Its end: clients are told to go elsewhere.
    pub shutdown: CancellationToken,
}

struct LiveMeter {
    connections: AtomicUsize,
    refused: AtomicU64,
    sent: AtomicU64,
    resyncs: AtomicU64,
    /// Clients whose right ended, by the close code.
    ended: IntCounterVec,
}

/// What the feed did, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFigures {
    /// Clients that are connected now.
    pub connections: usize,
    /// Clients refused since the start because there were too many.
    pub refused: u64,
    /// Events sent since the start.
    pub sent: u64,
    /// How often clients fell behind, since the start.
    pub resyncs: u64,
}

impl Live {
    /// Starts the feed.
    ///
    /// # Errors
    /// A metric of the same name is there already.
    pub fn start(parts: LiveParts, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let LiveParts { bus, entities, policies, options, checks, shutdown } = parts;
        let meter = LiveMeter::new(registry)?;
        let (hub, catalogue) = (Hub::new(), Arc::new(Catalogue::new(entities)));
        supervisor::LIVE.spawn(hub.run(&bus, catalogue.clone(), checks, shutdown.clone()));
        Ok(Arc::new(Self { hub, bus, catalogue, policies, options, meter, shutdown }))
    }

    /// The figures now.
    pub fn figures(&self) -> LiveFigures {
        let LiveMeter { connections, refused, sent, resyncs, ended: _ } = &self.meter;
        LiveFigures {
            connections: connections.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            sent: sent.load(Ordering::Relaxed),
            resyncs: resyncs.load(Ordering::Relaxed),
        }
    }

    fn options(&self) -> LiveOptions {
        self.options.borrow().clone()
    }

    /// Never 0, which no clock could keep.
    fn ping_interval(&self) -> Duration {
        self.options.borrow().ping_interval.0.max(Duration::from_millis(10))
    }
}

impl LiveMeter {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let about = "Feed clients sent away, by close code: 4401 the token ended, 4403 the policy no longer lets them read";
        let ended = IntCounterVec::new(Opts::new("flyweight_feed_ended_total", about), &["code"])?;
        registry.register(Box::new(ended.clone()))?;
        // both are there before anybody is sent away
        for code in [right::TOKEN, right::POLICY] {
            ended.with_label_values(&[&code.to_string()]);
        }
        let (connections, (refused, sent, resyncs)) = Default::default();
        Ok(Self { connections, refused, sent, resyncs, ended })
    }
}

/// Whether a path is one of the feed, which browsers ask without headers of their own.
pub fn is_feed(path: &str) -> bool {
    [routes::WEB_SOCKET.path, routes::WEB_SOCKET_OF_API.path, routes::EVENT_STREAM.path].contains(&path)
}

/// The routes of the feed.
pub fn routes(live: Arc<Live>) -> Router {
    Router::new()
        .route(routes::WEB_SOCKET.path, get(web_socket))
        .route(routes::WEB_SOCKET_OF_API.path, get(web_socket))
        .route(routes::EVENT_STREAM.path, get(event_stream))
        .with_state(live)
}

async fn web_socket(State(live): State<Arc<Live>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let uri = parts.uri.clone();
    let upgrade = match handshake::take(&mut parts).await {
        Ok(upgrade) => upgrade,
        Err(response) => return *response,
    };
    // the client is let in before it is answered: what it does next is in its feed
    let client = match connect(&live, &uri, parts.extensions.get(), None).await {
        Ok(client) => client,
        Err(problem) => return problem.respond(&uri),
    };
    let (ping_interval, shutdown) = (live.ping_interval(), live.shutdown.clone());
    upgrade.on_upgrade(move |socket| socket::serve(socket, client, ping_interval, shutdown))
}

async fn event_stream(State(live): State<Arc<Live>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let last = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    match connect(&live, &parts.uri, parts.extensions.get(), last).await {
        Ok(client) => stream::respond(client, live.ping_interval(), live.shutdown.clone()),
        Err(problem) => problem.respond(&parts.uri),
    }
}

async fn connect(
    live: &Arc<Live>,
    uri: &Uri,
    caller: Option<&Arc<Caller>>,
    last_event: Option<&str>,
) -> Result<Client, Problem> {
    let params = Params::read(uri, &["user_id", "client_id", "topics", "since"])?;
    let user = params.get("user_id").map(|user| user.parse::<Key>().map(|key| key.to_string())).transpose();
    let user = user.map_err(|message| Problem::field("user_id", message))?;
    let label = params.get("client_id").unwrap_or("none");
    if label.is_empty() || label.chars().count() > LABEL_MAX || label.chars().any(char::is_control) {
        return Err(Problem::field("client_id", format!("must have 1 to {LABEL_MAX} printable characters")));
    }
    // changes are told from before the look at what is allowed now
    let changes = live.policies.changes();
    let right = Right::new(&live.catalogue, changes, params.get("topics"), caller.cloned())?;
    let filter = Filter { user, topics: right.topics().clone(), asked: params.get("topics").is_some() };
    let since = last_event.or(params.get("since")).map(str::to_owned);
    Client::connect(live.clone(), label.to_owned(), filter, right, since).await
}

#[cfg(test)]
mod tests;
