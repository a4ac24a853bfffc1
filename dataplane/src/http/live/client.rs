//! One client's way through the feed: a replay at its own pace first, then a seat in the hub, and a new seat
//! after it lost its place.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use futures::{StreamExt, stream::BoxStream};
use http::StatusCode;
use tokio::task::coop::consume_budget;
use tracing::debug;

use super::{
    Live,
    frame::{Filter, Frame},
    hub::{Given, Seat},
    right::{Ended, Right},
};
use crate::problem::Problem;
use events::BusError;
use model::event::Envelope;

/// A client of the feed. Counts as a connection until it is dropped.
pub struct Client {
    live: Arc<Live>,
    label: String,
    filter: Filter,
    right: Right,
    source: Source,
    /// The place of the last event that went by, wanted or not.
    cursor: Option<String>,
    lost_at: Option<Instant>,
    _admission: Admission,
}

enum Source {
    Replay(BoxStream<'static, Result<Arc<Envelope>, BusError>>),
    Hub(Seat),
    /// Nothing more comes.
    End,
}

/// What a client is sent.
pub enum Item {
    /// An event.
    Frame(Arc<Frame>),
    /// Events are missing from here on: the client has everything up to the cursor.
    Resync {
        /// The place, where one is known.
        cursor: Option<String>,
        /// Whether this happens again and again.
        hopeless: bool,
    },
    /// The right to it has ended.
    Ended(Ended),
    /// Nothing more comes.
    End,
}

impl Client {
    /// Lets a client in: `since` a cursor, or from now on. What happens after this returns is sent.
    ///
    /// # Errors
    /// 503 when there are too many, or the bus is away; 400 when the cursor is none; 410 when what follows it
    /// is no longer kept.
    pub async fn connect(
        live: Arc<Live>,
        label: String,
        filter: Filter,
        right: Right,
        since: Option<String>,
    ) -> Result<Self, Problem> {
        let admission = Admission::ask(&live)?;
        let source = first_source(&live, &filter, since.as_deref()).await?;
        debug!(client_id = label, "live client connected");
        Ok(Self { live, label, filter, right, source, cursor: since, lost_at: None, _admission: admission })
    }

    /// Who this is, for the log.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The right to what it is sent.
    pub fn right(&self) -> &Right {
        &self.right
    }

    /// Notes that it was sent away.
    pub fn count(&self, ended: &Ended) {
        debug!(
            client_id = self.label,
            code = ended.code(),
            reason = ended.reason(),
            "a live client is sent away"
        );
        self.live.meter.ended.with_label_values(&[&ended.code().to_string()]).inc();
    }

    /// What is to be sent next, once there is something. Nothing is lost when this is dropped while it waits.
    pub async fn next(&mut self) -> Item {
        // before it waits, and once there is something
        if let Err(ended) = self.right.check() {
            return Item::Ended(ended);
        }
        let item = self.given().await;
        self.right.check().map_or_else(Item::Ended, |()| item)
    }

    async fn given(&mut self) -> Item {
        loop {
            // a replay of what this client does not want must not hold up others
            consume_budget().await;
            match &mut self.source {
                Source::End => return Item::End,
                Source::Hub(seat) => match seat.next().await {
                    Given::Frame(frame) => return Item::Frame(self.sent(frame)),
                    Given::Lost(cursor) => {
                        if cursor.is_some() {
                            self.cursor = cursor;
                        }
                        return self.resync();
                    }
                    Given::Closed => self.source = Source::End,
                },
                Source::Replay(events) => match events.next().await {
                    Some(Ok(event)) => {
                        if let Some(frame) = self.replayed(&event) {
                            return Item::Frame(self.sent(frame));
                        }
                    }
                    Some(Err(error)) => {
                        debug!(client_id = self.label, %error, "a replay ended early");
                        return self.resync();
                    }
                    None => self.source = Source::End,
                },
            }
        }
    }

    /// What is to be sent next, if it is there already.
    pub fn next_now(&mut self) -> Option<Arc<Frame>> {
        let Source::Hub(seat) = &mut self.source else { return None };
        self.right.check().ok()?;
        let frame = seat.next_now()?;
        Some(self.sent(frame))
    }

    /// Takes a replayed event, and moves into the hub where that is just behind it.
    fn replayed(&mut self, event: &Envelope) -> Option<Arc<Frame>> {
        self.cursor.clone_from(&event.cursor);
        if let Some(seat) =
            event.cursor.as_deref().and_then(|cursor| join(&self.live, &self.filter, Some(cursor)))
        {
            self.source = Source::Hub(seat);
        }
        Frame::of(event, &self.live.catalogue).filter(|frame| self.filter.wants(frame))
    }

    /// Goes on from now, and says what is missing.
    fn resync(&mut self) -> Item {
        self.live.meter.resyncs.fetch_add(1, Ordering::Relaxed);
        let again = self.lost_at.replace(Instant::now());
        let hopeless = again.is_some_and(|at| at.elapsed() < self.live.ping_interval());
        self.source = seat(&self.live, &self.filter);
        Item::Resync { cursor: self.cursor.clone(), hopeless }
    }

    fn sent(&mut self, frame: Arc<Frame>) -> Arc<Frame> {
        self.cursor.clone_from(&frame.cursor);
        self.live.meter.sent.fetch_add(1, Ordering::Relaxed);
        frame
    }
}

async fn first_source(live: &Arc<Live>, filter: &Filter, since: Option<&str>) -> Result<Source, Problem> {
    let source = match since {
        // a feed that was not joined yet cannot promise everything from now on
        None => live.bus.head().await.map(|_| seat(live, filter)),
        Some(cursor) => match join(live, filter, Some(cursor)) {
            Some(seat) => Ok(Source::Hub(seat)),
            None => live.bus.replay(cursor).await.map(Source::Replay),
        },
    };
    source.map_err(|error| match error {
        BusError::BadCursor => Problem::field("since", "is not a cursor of this feed"),
        BusError::Expired => {
            let detail =
                "the events after the cursor are no longer kept: read the records anew and connect without a cursor";
            Problem::new(StatusCode::GONE, "expired", "The cursor is too old", detail)
        }
        BusError::Unavailable(_) | BusError::Full(_) => {
            Problem::unavailable("bus-unavailable", "the event bus cannot be reached: try again")
        }
    })
}

fn seat(live: &Live, filter: &Filter) -> Source {
    join(live, filter, None).map_or(Source::End, Source::Hub)
}

fn join(live: &Live, filter: &Filter, after: Option<&str>) -> Option<Seat> {
    live.hub.join(filter.clone(), after, live.options().queue_size as usize)
}

/// Counts a connection for as long as it lives.
struct Admission(Arc<Live>);

impl Admission {
    fn ask(live: &Arc<Live>) -> Result<Self, Problem> {
        let connections_max = live.options().max_connections as usize;
        let admitted =
            live.meter.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, |connections| {
                (connections < connections_max).then_some(connections + 1)
            });
        if admitted.is_err() {
            live.meter.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Problem::overload(
                "too-many-connections",
                "there are too many live connections: try again",
            ));
        }
        Ok(Self(live.clone()))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.meter.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
