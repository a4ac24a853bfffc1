//! The pods that the gateway knows: their group, health and load.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crds::settings::Settings;
use parking_lot::RwLock;
use serde::Serialize;

use crate::domain::value::Timestamp;

/// Failed checks in a row that take a pod out.
const FAILURES_MAX: u32 = 2;

/// What is known of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It serves.
    Healthy,
    /// It was silent, broke a connection, or has not been asked yet: asked for an answer only where no other is left.
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
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            seen_ms: AtomicU64::new(0),
        }
    }

    /// Whether requests are sent to it.
    pub fn is_healthy(&self) -> bool {
        self.is(State::Healthy)
    }

    /// Whether it may serve though it was silent or failed: better than no pod at all.
    pub fn is_suspect(&self) -> bool {
        self.is(State::Suspect)
    }

    /// Takes its word for what it serves: names with commas between them; none where it says nothing.
    pub fn says_that_it_serves(&self, said: Option<&str>) {
        if self.served.read().as_ref().map(|served| served.said.as_str()) != said {
            let served =
                said.map(|said| Served { said: said.to_owned(), pools: said.split(',').map(str::to_owned).collect() });
            *self.served.write() = served;
        }
    }

    /// Whether it serves the pool: by its own word, and before that, or where it is of a version that says nothing, by the settings of its group. What they
    /// say may be ahead of a pod that is about to be replaced.
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

    /// It answered a check, well or not. A pod that says no is left out at once, for it knows; one that is silent after the second time.
    pub fn checked(&self, answer: Option<bool>) {
        match answer {
            Some(well) => {
                self.seen_ms.store(Timestamp::now().0 as u64, Ordering::Relaxed);
                self.failures.store(0, Ordering::Relaxed);
                self.turn(if well { State::Healthy } else { State::Refusing });
            }
            None => {
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
                    self.turn(State::Suspect);
                }
            }
        }
    }

    /// It refused a connection or broke one: left out until it answers a check again.
    pub fn failed(&self) {
        self.turn(State::Suspect);
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

    /// Whether any pod takes requests.
    pub fn any_healthy(&self) -> bool {
        self.upstreams.read().iter().any(|upstream| upstream.is_healthy())
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
        let weight_of = |group: &str| settings.groups.iter().find(|g| g.name == group).map_or(0, |g| g.weight);
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
        assert!(registry.any_healthy());
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
        let flight = upstream.start();
        assert_eq!(upstream.in_flight(), 1);
        drop(flight);
        assert_eq!(upstream.in_flight(), 0);
    }
}
