//! The live feed of changes: `GET /ws` and `GET /events/stream`, with replay by `since` and never a silent gap.
//!
//! - `topics`: entities, collections or event types, separated by commas; all that the caller may read where it is left out.
//! - `user_id`: only what concerns this user (the user's record, and records with this `user_id`), and shared entities such as products where
//!   `topics` names them. The delete of a record that belonged to a user no more says to whom, so it comes only where `topics` names it.
//! - `since`: the cursor of the last event that the client has. An event stream's `Last-Event-ID` wins over it.
//! - `client_id`: a label for the log.
//!
//! `health_check` comes every 30 seconds and whenever a part of the service begins or ceases to answer; its `data` says which.
//! The bus carries it too, of each replica, for those who read the topic: `key` is the replica. A client of the feed gets that of the replica that serves it.
//!
//! A client that falls behind by more than its queue gets `{"type":"resync","cursor":…}`: it has everything up to the cursor, and what comes
//! next starts anew. With `since` and that cursor on another connection it gets what it missed. If that happens twice within a ping interval the
//! connection is closed with 1013.

pub mod catalogue;
mod client;
pub mod frame;
mod handshake;
mod hub;
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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    catalogue::{Catalogue, LiveEntity},
    client::Client,
    frame::Filter,
    hub::Hub,
};
use super::{error::Problem, health::Check, params::Params, router::BASE};
use crate::{domain::record::Key, events::EventBus, security::caller::Caller, supervisor};

/// The most characters of a client's label.
const LABEL_MAX: usize = 128;

/// The live feed.
pub struct Live {
    hub: Arc<Hub>,
    bus: Arc<dyn EventBus>,
    catalogue: Arc<Catalogue>,
    options: watch::Receiver<LiveOptions>,
    meter: LiveMeter,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct LiveMeter {
    connections: AtomicUsize,
    refused: AtomicU64,
    sent: AtomicU64,
    resyncs: AtomicU64,
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
    /// Starts the feed of these entities, which also tells when `checks` change. It ends at `shutdown`: clients are told to go elsewhere. Options are taken up by new connections.
    pub fn start(
        bus: Arc<dyn EventBus>,
        entities: Vec<LiveEntity>,
        options: watch::Receiver<LiveOptions>,
        checks: watch::Receiver<BTreeMap<String, Check>>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let (hub, catalogue) = (Hub::new(), Arc::new(Catalogue::new(entities)));
        supervisor::LIVE.spawn(hub.run(&bus, catalogue.clone(), checks, shutdown.clone()));
        Arc::new(Self { hub, bus, catalogue, options, meter: LiveMeter::default(), shutdown })
    }

    /// The figures now.
    pub fn figures(&self) -> LiveFigures {
        let LiveMeter { connections, refused, sent, resyncs } = &self.meter;
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

/// The routes of the feed.
pub fn routes(live: Arc<Live>) -> Router {
    Router::new()
        .route("/ws", get(web_socket))
        .route(&format!("{BASE}/ws"), get(web_socket))
        .route(&format!("{BASE}/events/stream"), get(event_stream))
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
    upgrade
        .max_message_size(socket::MESSAGE_BYTES_MAX)
        .max_frame_size(socket::MESSAGE_BYTES_MAX)
        // clients hardly send anything, and there are thousands of them
        .read_buffer_size(4 << 10)
        .write_buffer_size(16 << 10)
        .on_upgrade(move |socket| socket::serve(socket, client, ping_interval, shutdown))
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
    let topics = live.catalogue.topics(params.get("topics"), caller.map(AsRef::as_ref))?;
    let filter = Filter { user, topics, asked: params.get("topics").is_some() };
    let since = last_event.or(params.get("since")).map(str::to_owned);
    Client::connect(live.clone(), label.to_owned(), filter, since).await
}

#[cfg(test)]
mod tests;
