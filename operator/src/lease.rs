//! Which replica works: the holder of one Lease.
//!
//! A holder that cannot renew stops writing [`MARGIN`] before anybody else may take over. Times are measured
//! by each replica's own monotonic clock, from the moment at which it saw the Lease change, so that clocks
//! need not agree; a paused process finds its term over.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    api::{REQUEST_TIMEOUT, ask},
    model::error::Error,
};

/// How long before the end of the Lease its holder stops writing; longer than a request may take.
const MARGIN: Duration = Duration::from_secs(REQUEST_TIMEOUT.as_secs() + 1);
const RETRY: Duration = Duration::from_secs(1);

/// Whether this replica leads, for those who write.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

/// The other end of [`Leadership`], for the one who renews the Lease.
#[derive(Clone, Debug)]
pub struct Term(Arc<watch::Sender<Option<Instant>>>);

impl Leadership {
    /// A pair that does not lead.
    pub fn new() -> (Term, Self) {
        let (sender, receiver) = watch::channel(None);
        (Term(Arc::new(sender)), Self(receiver))
    }

    /// Whether a request that is sent now ends before another replica may begin to lead.
    pub fn is_valid(&self) -> bool {
        self.0.borrow().is_some_and(|end| Instant::now() < end)
    }
}

impl Term {
    /// Leads up to this moment.
    pub fn until(&self, end: Instant) {
        self.0.send_replace(Some(end));
    }

    /// Leads no more.
    pub fn end(&self) {
        self.0.send_replace(None);
    }

    fn is_over(&self) -> bool {
        self.0.borrow().is_none_or(|end| Instant::now() >= end)
    }
}

/// Takes, renews and releases the Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration: Duration,
    term: Term,
    seen: Option<Seen>,
}

/// The Lease as it was when it last changed.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    resource_version: String,
    at: Instant,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
enum Step {
    Create,
    Replace,
    Wait,
}

impl Elector {
    /// An elector that does not hold the Lease yet. `duration` is at least 10 s.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        duration: Duration,
        term: Term,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration,
            term,
            seen: None,
        }
    }

    /// Returns when this replica leads. `reached` is told whether the API server answers.
    pub async fn acquire(&mut self, reached: impl Fn(bool)) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => reached(true),
                Err(error) => {
                    tracing::warn!(%error, "cannot take the lease");
                    reached(false);
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Renews the Lease; returns when it is lost.
    pub async fn keep(&mut self) {
        let renew_every = (self.duration - MARGIN) / 3;
        let mut pause = renew_every;
        while !self.term.is_over() {
            sleep(pause).await;
            pause = match self.attempt().await {
                Ok(true) => renew_every,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the lease");
                    RETRY
                }
            };
        }
        self.term.end();
    }

    /// Lets another replica lead at once.
    pub async fn release(&mut self) {
        self.term.end();
        match ask("get", "Lease", &self.name, self.api.get_opt(&self.name)).await {
            Ok(Some(mut lease)) if self.holds(&lease) => {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = None;
                spec.renew_time = None;
                if let Err(error) = ask("release", "Lease", &self.name, self.replace(&lease)).await {
                    tracing::warn!(%error, "cannot release the lease");
                }
            }
            _ => (),
        }
    }

    /// Tries once; says whether this replica leads.
    async fn attempt(&mut self) -> Result<bool, Error> {
        // The term is counted from before the request: others count from when they see it done.
        let started = Instant::now();
        let current = ask("get", "Lease", &self.name, self.api.get_opt(&self.name)).await?;
        self.see(current.as_ref(), started);
        let outcome = match self.decide(current.as_ref(), started) {
            Step::Wait => return Ok(false),
            Step::Create => {
                let lease = self.renewed(None);
                ask("create", "Lease", &self.name, self.api.create(&PostParams::default(), &lease)).await
            }
            Step::Replace => ask("renew", "Lease", &self.name, self.replace(&self.renewed(current))).await,
        };
        match outcome {
            Ok(lease) => {
                self.see(Some(&lease), started);
                self.term.until(started + self.duration - MARGIN);
                Ok(true)
            }
            Err(Error::Api { source, .. }) if is_conflict(&source) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn see(&mut self, lease: Option<&Lease>, at: Instant) {
        let version = lease.and_then(|lease| lease.metadata.resource_version.clone());
        if self.seen.as_ref().map(|seen| &seen.resource_version) != version.as_ref() {
            self.seen = version.map(|resource_version| Seen { resource_version, at });
        }
    }

    fn decide(&self, lease: Option<&Lease>, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let holder = holder(lease);
        if holder.is_none_or(|holder| holder == self.identity) {
            return Step::Replace;
        }
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|s| u64::try_from(s).ok()).map_or(self.duration, Duration::from_secs);
        match &self.seen {
            Some(seen) if now.duration_since(seen.at) >= duration => Step::Replace,
            _ => Step::Wait,
        }
    }

    fn renewed(&self, current: Option<Lease>) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let former = lease.spec.take().unwrap_or_default();
        let mine = former.holder_identity.as_deref() == Some(&self.identity);
        let transitions = former.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            acquire_time: if mine { former.acquire_time } else { now.clone() },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
            renew_time: now,
            ..LeaseSpec::default()
        });
        lease
    }

    /// Refused when somebody else changed the Lease in between: it carries the resource version.
    async fn replace(&self, lease: &Lease) -> kube::Result<Lease> {
        self.api.replace(&self.name, &PostParams::default(), lease).await
    }

    fn holds(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.identity)
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elector() -> Elector {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Elector::new(client, "default", "lease", "me", Duration::from_secs(15), Leadership::new().0)
    }

    fn lease(holder: Option<&str>, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        }
    }

    #[tokio::test]
    async fn a_free_or_own_lease_is_taken_and_a_living_one_is_not() {
        let mut elector = elector();
        let now = Instant::now();
        assert_eq!(elector.decide(None, now), Step::Create);
        for (holder, step) in [(None, Step::Replace), (Some(""), Step::Replace), (Some("me"), Step::Replace)]
        {
            assert_eq!(elector.decide(Some(&lease(holder, "1")), now), step, "{holder:?}");
        }
        let other = lease(Some("other"), "7");
        elector.see(Some(&other), now);
        assert_eq!(elector.decide(Some(&other), now), Step::Wait);
        assert_eq!(elector.decide(Some(&other), now + Duration::from_secs(14)), Step::Wait);
        assert_eq!(elector.decide(Some(&other), now + Duration::from_secs(15)), Step::Replace);
    }

    #[tokio::test]
    async fn each_renewal_of_another_holder_starts_the_wait_anew() {
        let mut elector = elector();
        let now = Instant::now();
        elector.see(Some(&lease(Some("other"), "7")), now);
        let renewed = lease(Some("other"), "8");
        elector.see(Some(&renewed), now + Duration::from_secs(10));
        assert_eq!(elector.decide(Some(&renewed), now + Duration::from_secs(20)), Step::Wait);
        elector.see(Some(&renewed), now + Duration::from_secs(20));
        assert_eq!(elector.decide(Some(&renewed), now + Duration::from_secs(25)), Step::Replace);
    }

    #[tokio::test]
    async fn transitions_count_changes_of_the_holder_only() {
        let elector = elector();
        let spec = |lease: Lease| lease.spec.unwrap();
        assert_eq!(spec(elector.renewed(Some(lease(Some("me"), "1")))).lease_transitions, Some(4));
        let taken = spec(elector.renewed(Some(lease(Some("other"), "1"))));
        assert_eq!((taken.lease_transitions, taken.holder_identity.as_deref()), (Some(5), Some("me")));
    }

    #[test]
    fn a_term_ends_by_itself() {
        let (term, leadership) = Leadership::new();
        assert!(!leadership.is_valid() && term.is_over());
        let now = Instant::now();
        term.until(now + Duration::from_secs(60));
        assert!(leadership.is_valid() && !term.is_over());
        // What a process that was paused for long finds when it goes on.
        term.until(now);
        assert!(!leadership.is_valid() && term.is_over());
    }

    #[tokio::test]
    async fn a_silent_server_does_not_keep_a_replica_from_ending() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let mut elector =
            Elector::new(client, "default", "lease", "me", Duration::from_secs(15), Leadership::new().0);
        assert!(tokio::time::timeout(REQUEST_TIMEOUT * 2, elector.release()).await.is_ok());
    }
}
