//! The hub: one task takes events from the bus and hands each to the clients that want it, through a bounded
//! queue for each client.
//!
//! A client whose queue is full leaves the hub at that moment, with the cursor up to which it has everything;
//! so a slow client costs the others nothing and knows what it missed. The last frames are kept, so that a
//! client which replayed can join just after the frame that it had last.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, watch},
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    catalogue::Catalogue,
    frame::{self, Filter, Frame, State},
};
use crate::http::health::Check;
use events::EventBus;
use model::event::Envelope;

/// Frames kept for clients that join after one of them.
const KEPT: usize = 4_096;
/// The bytes that these may have.
const KEPT_BYTES: usize = 16 << 20;
/// How often clients are told that the feed is alive, beside the moments when the service's state changes.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Hands events to clients.
pub struct Hub {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    /// Clients that are not bound to one user, or asked for topics.
    broad: HashMap<u64, Arc<Slot>>,
    by_user: HashMap<String, HashMap<u64, Arc<Slot>>>,
    kept: VecDeque<Arc<Frame>>,
    kept_bytes: usize,
    /// The number of the first kept frame.
    first: u64,
    /// The numbers of kept frames.
    numbers: HashMap<String, u64>,
    /// The place of the last frame.
    cursor: Option<String>,
    closed: bool,
}

struct Slot {
    filter: Filter,
    queue: mpsc::Sender<Arc<Frame>>,
    lost: Arc<OnceLock<Option<String>>>,
}

/// A client's place in the hub; it leaves when this is dropped.
pub struct Seat {
    hub: Arc<Hub>,
    id: u64,
    user: Option<String>,
    queue: mpsc::Receiver<Arc<Frame>>,
    lost: Arc<OnceLock<Option<String>>>,
}

/// What a seat gets.
pub enum Given {
    /// The next frame.
    Frame(Arc<Frame>),
    /// The client left the hub: it has everything up to this cursor, which is none when nothing was sent
    /// before.
    Lost(Option<String>),
    /// The hub is closed.
    Closed,
}

impl Hub {
    /// A hub without clients.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { table: Mutex::default() })
    }

    /// Takes events from the bus until `shutdown`. Subscribe to the bus before clients are let in: `live` and
    /// `gaps` are taken at once.
    pub fn run(
        self: &Arc<Self>,
        bus: &Arc<dyn EventBus>,
        catalogue: Arc<Catalogue>,
        mut checks: watch::Receiver<BTreeMap<String, Check>>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (hub, mut live, mut gaps) = (self.clone(), bus.live(), bus.gaps());
        // the bus must live as long as its feed is read
        let bus = bus.clone();
        async move {
            // a pod knows its name by this
            let replica = std::env::var("HOSTNAME").unwrap_or_default();
            let mut health = interval_at(Instant::now() + HEALTH_CHECK_INTERVAL, HEALTH_CHECK_INTERVAL);
            let mut state = State::of(&checks.borrow_and_update());
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    Ok(()) = gaps.changed() => hub.table.lock().lose_all(),
                    event = live.recv() => match event {
                        Ok(event) => {
                            if let Some(frame) = Frame::of(&event, &catalogue) {
                                hub.table.lock().send(frame);
                            } else {
                                hub.table.lock().cursor = event.cursor.clone();
                            }
                        }
                        Err(RecvError::Lagged(events)) => {
                            tracing::warn!(events, "live clients start over: the process fell behind the feed");
                            hub.table.lock().lose_all();
                        }
                        Err(RecvError::Closed) => break,
                    },
                    Ok(()) = checks.changed() => {
                        let now = State::of(&checks.borrow_and_update());
                        if now != state {
                            state = now;
                            hub.tell(&bus, &catalogue, frame::health_check(&replica, &state));
                        }
                    }
                    _ = health.tick() => hub.tell(&bus, &catalogue, frame::health_check(&replica, &state)),
                }
            }
            hub.table.lock().close();
        }
    }

    /// Tells the clients how this replica does, and whoever else reads the bus. The clients of other replicas
    /// are told of theirs.
    fn tell(&self, bus: &Arc<dyn EventBus>, catalogue: &Catalogue, event: Envelope) {
        self.table.lock().send_health_check(catalogue, &event);
        let bus = bus.clone();
        tokio::spawn(async move {
            // a bus that is away is what such events tell of: the next one comes soon
            if let Err(error) = bus.publish(&[event]).await {
                tracing::debug!(%error, "how the service does was not published");
            }
        });
    }

    /// Lets a client in, with a queue of so many frames: from now on, or just after the frame with a cursor.
    /// None when that frame is not kept, or more frames follow it than the queue takes.
    pub fn join(self: &Arc<Self>, filter: Filter, after: Option<&str>, queue_size: usize) -> Option<Seat> {
        let mut table = self.table.lock();
        let start = match after {
            Some(cursor) => table.numbers.get(cursor)? + 1,
            None => table.first + table.kept.len() as u64,
        };
        let (sender, queue) = mpsc::channel(queue_size.max(1));
        for frame in table.kept.range((start - table.first) as usize..).filter(|frame| filter.wants(frame)) {
            sender.try_send(frame.clone()).ok()?;
        }
        let (id, user, lost) = (table.next_id, filter.user.clone(), Arc::default());
        table.next_id += 1;
        if !table.closed {
            table.add(id, Arc::new(Slot { filter, queue: sender, lost: Arc::clone(&lost) }));
        }
        Some(Seat { hub: self.clone(), id, user, queue, lost })
    }
}

impl Table {
    fn add(&mut self, id: u64, slot: Arc<Slot>) {
        if let Some(user) = &slot.filter.user {
            self.by_user.entry(user.clone()).or_default().insert(id, slot.clone());
        }
        if slot.filter.user.is_none() || slot.filter.asked {
            self.broad.insert(id, slot);
        }
    }

    fn remove(&mut self, id: u64, user: Option<&str>) {
        self.broad.remove(&id);
        if let Some(user) = user
            && let Some(slots) = self.by_user.get_mut(user)
        {
            slots.remove(&id);
            if slots.is_empty() {
                self.by_user.remove(user);
            }
        }
    }

    fn send(&mut self, frame: Arc<Frame>) {
        let mut full = Vec::new();
        let mut offer = |id: u64, slot: &Slot| {
            if slot.filter.wants(&frame) && slot.queue.try_send(frame.clone()).is_err() {
                full.push((id, slot.filter.user.clone(), slot.lost.clone()));
            }
        };
        // clients of one user are found by the user where an event concerns one
        let of_one = frame.user();
        let broad = self.broad.iter().filter(|(_, slot)| of_one.is_none() || slot.filter.user.is_none());
        broad.for_each(|(id, slot)| offer(*id, slot));
        if let Some(slots) = of_one.and_then(|user| self.by_user.get(user)) {
            slots.iter().for_each(|(id, slot)| offer(*id, slot));
        }
        for (id, user, lost) in full {
            // said before the queue ends with the slot
            _ = lost.set(self.cursor.clone());
            self.remove(id, user.as_deref());
        }
        self.keep(frame);
    }

    fn keep(&mut self, frame: Arc<Frame>) {
        self.cursor.clone_from(&frame.cursor);
        let Some(cursor) = frame.cursor.clone() else { return };
        self.numbers.insert(cursor, self.first + self.kept.len() as u64);
        self.kept_bytes += frame.text.len();
        self.kept.push_back(frame);
        while self.kept.len() > KEPT || self.kept_bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.first += 1;
            self.kept_bytes -= oldest.text.len();
            if let Some(cursor) = &oldest.cursor {
                self.numbers.remove(cursor);
            }
        }
    }

    /// One frame more or less does not matter here, so a full queue is left alone.
    fn send_health_check(&self, catalogue: &Catalogue, event: &Envelope) {
        let Some(frame) = Frame::health_check(self.cursor.clone(), catalogue, event) else { return };
        let narrow = self.by_user.values().flatten().filter(|(_, slot)| !slot.filter.asked);
        for (_, slot) in self.broad.iter().chain(narrow).filter(|(_, slot)| slot.filter.wants(&frame)) {
            _ = slot.queue.try_send(frame.clone());
        }
    }

    /// Sends all clients away with what they have: what comes next does not follow on it.
    fn lose_all(&mut self) {
        for slot in self.broad.values().chain(self.by_user.values().flat_map(HashMap::values)) {
            _ = slot.lost.set(self.cursor.clone());
        }
        self.clear();
    }

    fn close(&mut self) {
        self.closed = true;
        self.clear();
    }

    fn clear(&mut self) {
        self.broad.clear();
        self.by_user.clear();
        self.first += self.kept.len() as u64;
        self.kept.clear();
        self.kept_bytes = 0;
        self.numbers.clear();
    }
}

impl Seat {
    /// The next that it gets, once there is something.
    pub async fn next(&mut self) -> Given {
        match self.queue.recv().await {
            Some(frame) => Given::Frame(frame),
            None => self.lost.get().map_or(Given::Closed, |cursor| Given::Lost(cursor.clone())),
        }
    }

    /// The next frame, if it is there already.
    pub fn next_now(&mut self) -> Option<Arc<Frame>> {
        self.queue.try_recv().ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.table.lock().remove(self.id, self.user.as_deref());
    }
}
