//! The pods that the gateway knows: their group, health and load.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crds::settings::Settings;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::Notify;

use super::patience::AnswerTime;
use model::value::Timestamp;

/// Failed checks in a row that take a pod out.
const FAILURES_MAX: u32 = 2;

/// Requests that waited in vain for a pod, with no answer from it in between, that eject it.
const UNANSWERED_MAX: u32 = 5;

/// How long a pod that is back gets less than its share: its caches and connections are still to fill.
const SLOW_START: Duration = Duration::from_secs(10);

/// What checks found out about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It serves.
    Healthy,
    /// It was silent, or has not been asked yet: it gets requests only where no other pod is left.
    Suspect,
    /// It says that it does not serve.
    Refusing,
}

/// What a pod says it serves.
#[derive(Debug)]
struct Served {
    /// In its own words.
    said: String,
    pools: BTreeSet<String>,
}

/// A pod of the data plane.
#[derive(Debug)]
pub struct Upstream {
    /// Its address.
    pub addr: SocketAddr,
    /// Its replica group.
    pub group: String,
    /// The pools that it says it serves. Its process may be started anew by other settings.
    served: RwLock<Option<Served>>,
    state: AtomicU8,
    failures: AtomicU32,
    /// Whether requests found it failing or standing still since its last good check.
    ejected: AtomicBool,
    /// Tells the requests that wait for it.
    ejection: Notify,
    unanswered: AtomicU32,
    /// How long it takes to answer.
    pub answer_time: AnswerTime,
    /// Since when it is back.
    back: RwLock<Option<Instant>>,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    seen_ms: AtomicU64,
}

/// Counts a request as under way at a pod until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Upstream>);

/// All pods that are known now.
#[derive(Debug, Default)]
pub struct Registry {
    upstreams: RwLock<Arc<Vec<Arc<Upstream>>>>,
    /// Tells the requests that wait for a pod.
    back: Notify,
}

/// One pod, as `GET /api/v1/gateway/registry` shows it.
#[derive(Debug, Serialize)]
pub struct UpstreamReport {
    /// The service's name.
    pub service: String,
    /// The replica group.
    pub group: String,
    /// The address.
    pub address: SocketAddr,
    /// The group's weight.
    pub weight: u32,
    /// Whether requests are sent to it.
    pub healthy: bool,
    /// Requests under way.
    pub connections: usize,
    /// Requests sent so far.
    pub requests: u64,
    /// When it last answered a check, RFC 3339; none if it never did.
    pub last_seen: Option<String>,
}

impl Upstream {
    /// A pod that is not yet known to be healthy.
    pub fn new(addr: SocketAddr, group: &str) -> Self {
        Self {
            addr,
            group: group.to_owned(),
            served: RwLock::default(),
            state: AtomicU8::new(State::Suspect as u8),
            failures: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            ejection: Notify::new(),
            unanswered: AtomicU32::new(0),
            answer_time: AnswerTime::default(),
            back: RwLock::default(),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            seen_ms: AtomicU64::new(0),
        }
    }

    /// Whether its last check was good. Requests have no say in it: what clients send must not make the
    /// gateway unready.
    pub fn is_ready(&self) -> bool {
        self.is(State::Healthy)
    }

    /// Whether requests are sent to it.
    pub fn is_healthy(&self) -> bool {
        self.is_ready() && !self.ejected.load(Ordering::Acquire)
    }

    /// Whether it may serve though it was silent or failed: better than no pod at all.
    pub fn is_suspect(&self) -> bool {
        !self.is(State::Refusing) && !self.is_healthy()
    }

    /// Its share of the requests by how long it has been back, from 0 to 1.
    pub fn share(&self) -> f64 {
        match *self.back.read() {
            None => 1.0,
            Some(back) => (back.elapsed().as_secs_f64() / SLOW_START.as_secs_f64()).clamp(0.1, 1.0),
        }
    }

    /// Takes its word for what it serves: names with commas between them; none where it says nothing.
    pub fn says_that_it_serves(&self, said: Option<&str>) {
        if self.served.read().as_ref().map(|served| served.said.as_str()) != said {
            let served = said.map(|said| Served {
                said: said.to_owned(),
                pools: said.split(',').map(str::to_owned).collect(),
            });
            *self.served.write() = served;
        }
    }

    /// Whether it serves the pool: by its own word, and before that, or where it is of a version that says
    /// nothing, by the settings of its group. What they say may be ahead of a pod that is about to be
    /// replaced.
    pub fn serves(&self, pool: &str, settings: &Settings) -> bool {
        match &*self.served.read() {
            Some(served) => served.pools.contains(pool),
            None => {
                let mut groups = settings.groups.iter().filter(|group| group.name == self.group);
                groups.any(|group| group.pools.iter().any(|one| one == pool))
            }
        }
    }

    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Acquire) == state as u8
    }

    fn turn(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// It answered a check, well or not. A pod that says no is left out at once, for it knows; one that is
    /// silent after the second time.
    pub fn checked(&self, answer: Option<bool>) {
        match answer {
            Some(well) => {
                self.seen_ms.store(Timestamp::now().0 as u64, Ordering::Relaxed);
                self.failures.store(0, Ordering::Relaxed);
                self.unanswered.store(0, Ordering::Relaxed);
                if well && self.ejected.swap(false, Ordering::AcqRel) {
                    *self.back.write() = Some(Instant::now());
                }
                self.turn(if well { State::Healthy } else { State::Refusing });
            }
            None => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.turn(State::Suspect);
                    self.eject();
                }
            }
        }
    }

    /// It answered a request after so long.
    pub fn answered(&self, took: Duration) {
        self.answer_time.observe(took);
        if self.unanswered.load(Ordering::Relaxed) > 0 {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    /// A request has waited for it in vain: a few of those in a row eject it.
    pub fn kept_waiting(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED_MAX {
            self.eject();
        }
    }

    /// Leaves it out until it answers a check again: it refused a connection, broke one, or stands still.
    pub fn eject(&self) {
        if !self.ejected.swap(true, Ordering::AcqRel) {
            self.ejection.notify_waiters();
        }
    }

    /// Returns once it is ejected, or at once where it is.
    pub async fn until_ejected(&self) {
        let ejection = self.ejection.notified();
        let mut ejection = std::pin::pin!(ejection);
        ejection.as_mut().enable();
        if !self.ejected.load(Ordering::Acquire) {
            ejection.await;
        }
    }

    /// Counts a request.
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// The pods that are known now.
    pub fn all(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.read().clone()
    }

    /// Takes what a check of one of its pods found.
    pub fn checked(&self, upstream: &Upstream, answer: Option<bool>) {
        let was_healthy = upstream.is_healthy();
        upstream.checked(answer);
        if !was_healthy && upstream.is_healthy() {
            self.back.notify_waiters();
        }
    }

    /// Returns once a pod has turned healthy.
    pub async fn until_one_is_back(&self) {
        self.back.notified().await;
    }

    /// Whether any pod answers its checks.
    pub fn any_ready(&self) -> bool {
        self.upstreams.read().iter().any(|upstream| upstream.is_ready())
    }

    /// Takes the addresses of one group; pods that stay keep their state. Returns the new ones.
    pub fn set_group(&self, group: &str, mut addrs: Vec<SocketAddr>) -> Vec<Arc<Upstream>> {
        addrs.sort_unstable();
        addrs.dedup();
        let mut current = self.upstreams.write();
        let mut next: Vec<_> = current
            .iter()
            .filter(|upstream| upstream.group != group || addrs.contains(&upstream.addr))
            .cloned()
            .collect();
        let new: Vec<_> = addrs
            .into_iter()
            .filter(|addr| !next.iter().any(|upstream| upstream.group == group && upstream.addr == *addr))
            .map(|addr| Arc::new(Upstream::new(addr, group)))
            .collect();
        next.extend(new.iter().cloned());
        *current = Arc::new(next);
        new
    }

    /// What the API shows.
    pub fn report(&self, settings: &Settings) -> Vec<UpstreamReport> {
        let weight_of =
            |group: &str| settings.groups.iter().find(|g| g.name == group).map_or(0, |g| g.weight);
        self.all()
            .iter()
            .map(|upstream| UpstreamReport {
                service: settings.service.clone(),
                group: upstream.group.clone(),
                address: upstream.addr,
                weight: weight_of(&upstream.group),
                healthy: upstream.is_healthy(),
                connections: upstream.in_flight(),
                requests: upstream.requests.load(Ordering::Relaxed),
                last_seen: match upstream.seen_ms.load(Ordering::Relaxed) {
                    0 => None,
                    ms => Some(Timestamp(ms as i64).to_string()),
                },
            })
            .collect()
    }
}

/// How long the gateway waits for a connection to a pod.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn a_pod_that_stays_keeps_its_state_and_one_that_goes_is_forgotten() {
        let registry = Registry::default();
        let first = registry.set_group("main", addrs(&[1, 2]));
        registry.set_group("catalog", addrs(&[9]));
        first[0].checked(Some(true));
        assert!(registry.any_ready());
        let new = registry.set_group("main", addrs(&[1, 3]));
        assert_eq!(new.len(), 1);
        let all = registry.all();
        assert_eq!(all.len(), 3);
        assert!(all.iter().any(|upstream| upstream.addr.port() == 1 && upstream.is_healthy()));
        registry.set_group("main", Vec::new());
        assert_eq!(registry.all().len(), 1);
    }

    #[test]
    fn a_pod_serves_what_it_says_and_before_that_what_its_group_should() {
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "service": "shop", "pools": [], "backends": [], "pipeline": {}, "ingest": {}, "gateway": {},
            "groups": [{ "name": "main", "pools": ["users", "products"], "weight": 1 }],
            "security": { "jwtSecret": null, "encryptionSecret": null, "rateLimit": null, "corsAllowOrigins": [] },
            "webSocket": {}, "observability": {}
        }))
        .unwrap();
        let served = |upstream: &Upstream| {
            ["users", "products", "stores"]
                .into_iter()
                .filter(|pool| upstream.serves(pool, &settings))
                .collect::<Vec<_>>()
        };
        let upstream = Upstream::new(addrs(&[1])[0], "main");
        assert_eq!(served(&upstream), ["users", "products"]);
        upstream.says_that_it_serves(Some("users,stores"));
        assert_eq!(served(&upstream), ["users", "stores"]);
        upstream.says_that_it_serves(Some("stores"));
        assert_eq!(served(&upstream), ["stores"], "its process was started anew");
        upstream.says_that_it_serves(None);
        assert_eq!(served(&upstream), ["users", "products"]);
        let former = Upstream::new(addrs(&[2])[0], "former");
        assert_eq!(served(&former), [""; 0], "nothing is known of the group");
        former.says_that_it_serves(Some("products"));
        assert_eq!(served(&former), ["products"], "of a group that is to go, and has not yet");
    }

    #[test]
    fn one_silent_check_is_forgiven_and_a_refusal_is_not() {
        let upstream = Arc::new(Upstream::new(addrs(&[1])[0], "main"));
        upstream.checked(Some(true));
        upstream.checked(None);
        assert!(upstream.is_healthy());
        upstream.checked(None);
        assert!(!upstream.is_healthy() && upstream.is_suspect());
        upstream.checked(Some(true));
        upstream.checked(Some(false));
        assert!(!upstream.is_healthy() && !upstream.is_suspect());
        upstream.checked(Some(true));
        assert!(upstream.is_healthy(), "a pod that says yes again is asked again");
        let flight = upstream.start();
        assert_eq!(upstream.in_flight(), 1);
        drop(flight);
        assert_eq!(upstream.in_flight(), 0);
    }

    #[test]
    fn requests_eject_a_pod_and_leave_the_gateway_ready() {
        let registry = Registry::default();
        let upstream = registry.set_group("main", addrs(&[1])).remove(0);
        upstream.checked(Some(true));
        assert!((upstream.share() - 1.0).abs() < f64::EPSILON, "its first time is no return");
        upstream.eject();
        assert!(!upstream.is_healthy() && upstream.is_suspect() && registry.any_ready());
        upstream.checked(Some(true));
        assert!(upstream.is_healthy() && upstream.share() < 0.5, "it is back, and begins slowly");
        for _ in 1..UNANSWERED_MAX {
            upstream.kept_waiting();
        }
        upstream.answered(Duration::from_millis(1));
        upstream.kept_waiting();
        assert!(upstream.is_healthy(), "an answer in between shows that it does not stand still");
        for _ in 1..UNANSWERED_MAX {
            upstream.kept_waiting();
        }
        assert!(!upstream.is_healthy());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_pod_learns_that_it_is_ejected() {
        let upstream = Arc::new(Upstream::new(addrs(&[1])[0], "main"));
        upstream.checked(Some(true));
        let waiting = upstream.until_ejected();
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        upstream.eject();
        waiting.await;
        upstream.until_ejected().await;
    }
}
