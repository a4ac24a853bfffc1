//! What one replica remembers between reconciles. All of it can be lost: it only saves work.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::{ResourceExt, api::DynamicObject};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::child::{ChildRef, Live, pack};

/// How long a write may be ahead of the watch that shows it.
const AHEAD_MAX: Duration = Duration::from_secs(3);
/// How long nothing is done to a child that was done to it just before: where it looks as if it had not been,
/// a view lags behind, or somebody undoes it at once, and trying again would be a hot loop.
const JUST: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// With the quarter that may be added this is less than the 30 s within which all is well again once the API
/// server is.
const BACKOFF_LAST: Duration = Duration::from_secs(20);

/// What one replica remembers, by the uid of the resource that it is about.
#[derive(Default)]
pub struct Memory {
    written: Mutex<HashMap<String, HashMap<ChildRef, Written>>>,
    done: Mutex<HashMap<(String, ChildRef), Done>>,
    /// When a child was last tried to be changed.
    tried: Mutex<HashMap<(String, ChildRef), Instant>>,
    /// When a pod was last told what changed.
    notified: Mutex<HashMap<(String, String), Instant>>,
    failures: Mutex<HashMap<String, Failures>>,
    reported: Mutex<HashMap<String, Instant>>,
}

/// The failures in a row of one object.
struct Failures {
    count: u32,
    last: Instant,
}

/// What was last done to a child.
struct Done {
    at: Instant,
    /// What it was written with; none where it was deleted.
    hash: Option<String>,
}

/// A child as it was last written by this replica.
struct Written {
    hash: String,
    /// The resource version that the write led to.
    version: u64,
    /// The answer of the API server, until the watch has caught up with it.
    ahead: Option<(Instant, Arc<DynamicObject>)>,
}

impl Memory {
    /// Takes down that a child was written, with the API server's answer.
    pub fn wrote(&self, owner: &str, child: &ChildRef, hash: &str, object: &DynamicObject) {
        let version = version(object);
        let mut answer = object.clone();
        pack(&mut answer);
        let written =
            Written { hash: hash.to_owned(), version, ahead: Some((Instant::now(), Arc::new(answer))) };
        self.did(owner, child, Some(hash));
        self.written.lock().entry(owner.to_owned()).or_default().insert(child.clone(), written);
    }

    /// Takes down that a child was deleted.
    pub fn deleted(&self, owner: &str, child: &ChildRef) {
        self.did(owner, child, None);
        if let Some(children) = self.written.lock().get_mut(owner) {
            children.remove(child);
        }
    }

    fn did(&self, owner: &str, child: &ChildRef, hash: Option<&str>) {
        let mut done = self.done.lock();
        done.retain(|_, done| done.at.elapsed() < JUST);
        let now = Done { at: Instant::now(), hash: hash.map(str::to_owned) };
        done.insert((owner.to_owned(), child.clone()), now);
    }

    /// Whether the child was written with this hash, or deleted where there is none, only just.
    pub fn just_did(&self, owner: &str, child: &ChildRef, hash: Option<&str>, now: Instant) -> bool {
        let done = self.done.lock();
        let last = done.get(&(owner.to_owned(), child.clone()));
        last.is_some_and(|last| now.duration_since(last.at) < JUST && last.hash.as_deref() == hash)
    }

    /// Takes down that a child is tried to be changed once the time that is returned is over: a second after
    /// the attempt before.
    pub fn next_try(&self, owner: &str, child: &ChildRef, now: Instant) -> Duration {
        let mut tried = self.tried.lock();
        tried.retain(|_, at| now.duration_since(*at) < JUST);
        let key = (owner.to_owned(), child.clone());
        let wait =
            tried.get(&key).map_or(Duration::ZERO, |last| (*last + JUST).saturating_duration_since(now));
        tried.insert(key, now + wait);
        wait
    }

    /// Takes down that an attempt to change a child has ended: the API server may have got it as late as now.
    pub fn tried(&self, owner: &str, child: &ChildRef, now: Instant) {
        let mut tried = self.tried.lock();
        let last = tried.entry((owner.to_owned(), child.clone())).or_insert(now);
        *last = now.max(*last);
    }

    /// Takes down that a pod was told what changed.
    pub fn notified(&self, owner: &str, pod: &str) {
        let mut told = self.notified.lock();
        told.retain(|_, at| at.elapsed() < JUST);
        told.insert((owner.to_owned(), pod.to_owned()), Instant::now());
    }

    /// Whether the pod was told what changed only just.
    pub fn just_notified(&self, owner: &str, pod: &str, now: Instant) -> bool {
        let told = self.notified.lock();
        told.get(&(owner.to_owned(), pod.to_owned())).is_some_and(|at| now.duration_since(*at) < JUST)
    }

    /// Whether the child is exactly what the API server made of this content: writing it again would change
    /// nothing.
    pub fn is_answer(&self, owner: &str, live: &Live, hash: &str) -> bool {
        let written = self.written.lock();
        let written = written.get(owner).and_then(|children| children.get(&live.reference));
        written.is_some_and(|written| written.hash == hash && written.version == version(&live.object))
    }

    /// Whether this replica has already written the child like this, so that a difference is somebody else's.
    pub fn has_written(&self, owner: &str, child: &ChildRef, hash: &str) -> bool {
        let written = self.written.lock();
        written
            .get(owner)
            .and_then(|children| children.get(child))
            .is_some_and(|written| written.hash == hash)
    }

    /// The watched children, each replaced by what was written where the watch lags behind.
    pub fn newest(&self, owner: &str, watched: Vec<Live>, now: Instant) -> Vec<Live> {
        let mut written = self.written.lock();
        let Some(children) = written.get_mut(owner) else { return watched };
        let mut newest: HashMap<ChildRef, Live> =
            watched.into_iter().map(|live| (live.reference.clone(), live)).collect();
        for (reference, written) in children {
            let Some((at, object)) = &written.ahead else { continue };
            let seen = newest.get(reference).map(|live| version(&live.object));
            if now.duration_since(*at) > AHEAD_MAX || seen >= Some(version(object)) {
                written.ahead = None;
            } else {
                newest.insert(reference.clone(), Live::new(reference.kind, object.clone()));
            }
        }
        newest.into_values().collect()
    }

    /// How long to wait after one more failure: doubling from 1 s to 20 s, with up to a quarter more so that
    /// objects spread out.
    pub fn backoff(&self, uid: &str) -> Duration {
        let now = Instant::now();
        let mut all = self.failures.lock();
        let failures = all.entry(uid.to_owned()).or_insert(Failures { count: 0, last: now });
        let wait = BACKOFF_FIRST.saturating_mul(1 << failures.count.min(16)).min(BACKOFF_LAST);
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
        wait.mul_f64(1.0 + rand::random_range(0.0..0.25))
    }

    /// How long nothing may be tried although something changed: after a failure each change would be another
    /// attempt at once.
    pub fn rest(&self, uid: &str) -> Option<Duration> {
        let failures = self.failures.lock();
        BACKOFF_FIRST.checked_sub(failures.get(uid)?.last.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Takes down that a reconcile succeeded.
    pub fn succeeded(&self, uid: &str) {
        self.failures.lock().remove(uid);
    }

    /// Whether what is said of an object (its status by its uid alone) may be written again: the last write
    /// is at least this long ago.
    pub fn may_report(&self, uid: &str, every: Duration) -> bool {
        self.until_report(uid, every).is_none()
    }

    /// How long it takes until they may; none when they may now.
    pub fn until_report(&self, uid: &str, every: Duration) -> Option<Duration> {
        every.checked_sub(self.reported.lock().get(uid)?.elapsed()).filter(|rest| !rest.is_zero())
    }

    /// Takes down that a status was written, or tried to be.
    pub fn reported(&self, uid: &str) {
        self.reported.lock().insert(uid.to_owned(), Instant::now());
    }

    /// Forgets resources that are gone.
    pub fn retain(&self, living: &HashSet<String>) {
        self.written.lock().retain(|uid, _| living.contains(uid));
        self.failures.lock().retain(|uid, _| living.contains(uid));
        self.reported.lock().retain(|what, _| what.split(' ').next().is_some_and(|uid| living.contains(uid)));
    }
}

/// Resource versions of one resource are numbers that grow.
fn version(object: &DynamicObject) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use kube::core::TypeMeta;

    use super::*;
    use crate::model::child::ChildKind;

    fn object(version: &str) -> Arc<DynamicObject> {
        let mut object = DynamicObject {
            types: Some(TypeMeta::default()),
            metadata: Default::default(),
            data: Default::default(),
        };
        object.metadata.name = Some("shop".to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        Arc::new(object)
    }

    fn versions(lives: Vec<Live>) -> Vec<String> {
        lives.iter().filter_map(|live| live.object.resource_version()).collect()
    }

    #[test]
    fn a_write_hides_an_older_view_until_the_watch_has_seen_it() {
        let memory = Memory::default();
        let watched = |version| vec![Live::new(ChildKind::Service, object(version))];
        let child = watched("9").remove(0).reference;
        memory.wrote("uid", &child, "h", &object("10"));
        assert_eq!(versions(memory.newest("uid", watched("9"), Instant::now())), ["10"]);
        assert_eq!(versions(memory.newest("uid", vec![], Instant::now())), ["10"]);
        assert_eq!(versions(memory.newest("uid", watched("11"), Instant::now())), ["11"]);
        // Seen once, a deletion is a deletion.
        assert!(memory.newest("uid", vec![], Instant::now()).is_empty());
        assert!(memory.has_written("uid", &child, "h") && !memory.has_written("uid", &child, "other"));
    }

    #[test]
    fn nothing_is_done_twice_at_once() {
        let memory = Memory::default();
        let child = Live::new(ChildKind::Service, object("1")).reference;
        memory.wrote("uid", &child, "h", &object("1"));
        let just = |owner, hash| memory.just_did(owner, &child, hash, Instant::now());
        assert!(
            just("uid", Some("h"))
                && !just("uid", Some("other"))
                && !just("uid", None)
                && !just("other", Some("h"))
        );
        memory.deleted("uid", &child);
        assert!(just("uid", None) && !just("uid", Some("h")));
        assert!(!memory.just_did("uid", &child, None, Instant::now() + JUST));
        let wait = |later| memory.next_try("uid", &child, Instant::now() + later);
        assert_eq!(wait(Duration::ZERO), Duration::ZERO);
        assert!(
            wait(JUST / 2) <= JUST / 2 && wait(JUST / 2) > JUST,
            "the second waits for the first, the third for both"
        );
        assert_eq!(wait(JUST * 4), Duration::ZERO);
        memory.tried("uid", &child, Instant::now() + JUST * 5);
        assert!(wait(JUST * 5) > JUST / 2, "an attempt that took long counts from its end");
        memory.notified("uid", "a");
        assert!(
            memory.just_notified("uid", "a", Instant::now())
                && !memory.just_notified("uid", "b", Instant::now())
        );
        assert!(!memory.just_notified("uid", "a", Instant::now() + JUST));
    }

    #[test]
    fn what_the_server_made_of_a_write_is_not_written_again() {
        let memory = Memory::default();
        let live = |version| Live::new(ChildKind::Service, object(version));
        memory.wrote("uid", &live("10").reference, "h", &object("10"));
        assert!(memory.is_answer("uid", &live("10"), "h"));
        assert!(!memory.is_answer("uid", &live("11"), "h") && !memory.is_answer("uid", &live("10"), "other"));
    }

    #[test]
    fn a_write_that_no_watch_ever_shows_is_let_go() {
        let memory = Memory::default();
        let child = Live::new(ChildKind::Service, object("1")).reference;
        memory.wrote("uid", &child, "h", &object("1"));
        let later = Instant::now() + AHEAD_MAX + Duration::from_millis(1);
        assert!(memory.newest("uid", vec![], later).is_empty());
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_starts_anew() {
        let memory = Memory::default();
        let waits: Vec<Duration> = (0..10).map(|_| memory.backoff("uid")).collect();
        assert!(waits[0] >= BACKOFF_FIRST && waits[0] <= BACKOFF_FIRST.mul_f64(1.25));
        assert!(waits[3] >= BACKOFF_FIRST.mul_f64(6.0));
        assert!(
            waits.iter().all(|wait| *wait <= BACKOFF_LAST.mul_f64(1.25) && *wait < Duration::from_secs(30))
        );
        assert!(
            memory.rest("uid").is_some_and(|rest| rest <= BACKOFF_FIRST),
            "changes do not shorten the first wait"
        );
        memory.succeeded("uid");
        assert_eq!(memory.rest("uid"), None);
        assert!(memory.backoff("uid") <= BACKOFF_FIRST.mul_f64(1.25));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let memory = Memory::default();
        memory.reported("a");
        memory.retain(&HashSet::new());
        assert!(memory.may_report("a", Duration::MAX));
    }
}
