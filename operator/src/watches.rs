//! Follows the cluster: one watch per kind, each with its own patience after errors, and what to look at
//! after a change.
//!
//! A watch may lose an event without anybody noticing. So each list is read anew from time to time, which
//! finds out and costs no reconcile where nothing differs.

use std::{fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use crds::{
    pool::FlyweightPool,
    service::{
        FlyweightService, ServiceSpec,
        backends::Backend,
        security::{TLS_SUFFIX, Tls},
    },
    tier::CacheTier,
};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::ObjectRef,
        utils::Backoff,
        watcher::{Config, DefaultBackoff, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    caches::{Caches, Feeds},
    drift::foreign::keep,
    metrics::Metrics,
    model::{
        child::{APP, ChildKind, MANAGER, label, orphan_of, pack},
        validated::ENCRYPTION_SUFFIX,
    },
    wake::{Request, Wake},
    watches::change::{Cache, Change},
};

/// The longest wait of a watch after an error. The library's own go up to half a minute, and an API server
/// that breaks watches again and again brings them there; what changes meanwhile is seen that much later, and
/// 30 s is what all of it may take.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

mod change;
mod defined;

/// Proxies and load balancers cut connections that are silent for a few minutes.
const WATCH_SECONDS: u32 = 200;
/// Objects of a list that are in memory as trees at once, before they are packed.
const PAGE: u32 = 100;
/// How long a list that is being read may stand still. The library gives up silent watches, but waits for
/// ever for a page of a list.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
/// How often a list is read anew, so that a lost event is made good within half a minute.
const ANEW_EVERY: Duration = Duration::from_secs(20);
/// The same for each object that it holds, where that is more, from 200 objects on: reading must stay cheap.
const ANEW_PER_OBJECT: Duration = Duration::from_millis(100);
/// Up to so much more, so that the kinds are not read all at once.
const ANEW_SPREAD: f64 = 0.2;

/// What every watch needs.
#[derive(Clone)]
pub struct Links {
    /// The connection to the API server.
    pub client: Client,
    /// The namespace, or all.
    pub namespace: Option<String>,
    /// What is known.
    pub caches: Arc<Caches>,
    /// Whom to wake.
    pub wake: Wake,
    /// Where interruptions are counted.
    pub metrics: Metrics,
}

impl Links {
    /// Starts all watches; they end with `tasks`.
    pub fn start(&self, feeds: Feeds, tasks: &mut JoinSet<()>) {
        let Feeds { services, pools, tiers, pods, secrets, children } = feeds;
        let all = Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        let ours = all.clone().labels(&format!("{}={MANAGER}", label::MANAGED_BY));
        let ours_by_app = all.clone().labels(&format!("{}={APP}", label::NAME));
        tasks.spawn(self.clone().follow(
            self.api(),
            Cache::new(services, ()),
            all.clone(),
            "FlyweightService",
        ));
        tasks.spawn(self.clone().follow(self.api(), Cache::new(pools, ()), all.clone(), "FlyweightPool"));
        tasks.spawn(self.clone().follow(self.api(), Cache::new(tiers, ()), all.clone(), "CacheTier"));
        tasks.spawn(self.clone().follow(self.api(), Cache::new(secrets, ()), all, "Secret"));
        tasks.spawn(self.clone().follow(self.api(), Cache::new(pods, ()), ours_by_app, "Pod"));
        for (kind, writer) in children {
            let resource = kind.resource();
            let api = match &self.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
                None => Api::all_with(self.client.clone(), &resource),
            };
            let cache = Cache::new(writer, resource);
            match kind {
                ChildKind::Certificate => {
                    tasks.spawn(self.clone().follow_where_defined(api, cache, ours.clone(), kind))
                }
                _ => tasks.spawn(self.clone().follow(api, cache, ours.clone(), kind.name())),
            };
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn follow<K>(self, api: Api<K>, mut cache: Cache<K>, config: Config, kind: &'static str)
    where
        K: Watched + Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
    {
        self.read(&api, &mut cache, &config, kind).await;
    }

    async fn read<K>(&self, api: &Api<K>, cache: &mut Cache<K>, config: &Config, kind: &'static str)
    where
        K: Watched + Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
    {
        loop {
            let events = watcher(api.clone(), config.clone()).backoff(Patience::default()).modify(K::strip);
            let mut events = std::pin::pin!(events);
            let mut patience = Patient::Reading(Instant::now() + STANDSTILL_MAX);
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = sleep_until(patience.end()) => {
                        if matches!(patience, Patient::Reading(_)) {
                            self.metrics.watch_failed(kind);
                            tracing::warn!(kind, "a list came to a standstill: it is read anew");
                        }
                        break;
                    }
                };
                match event {
                    Some(Ok(event)) => {
                        let found = cache.take(&event);
                        patience.after(&event, cache.len());
                        self.pass_on(&found).await;
                    }
                    Some(Err(error)) => {
                        self.metrics.watch_failed(kind);
                        tracing::warn!(kind, %error, "a watch was interrupted");
                    }
                    None => return,
                }
            }
        }
    }

    async fn pass_on<K: Watched>(&self, found: &[(Arc<K>, Change)]) {
        for (object, change) in found {
            object.note(&self.caches);
            for request in object.requests(*change, &self.caches) {
                self.wake.send(request).await;
            }
        }
    }
}

/// What is waited for, and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Patient {
    /// The list, or its next page.
    Reading(Instant),
    /// Changes; then the list is read anew.
    Following(Instant),
}

impl Patient {
    fn end(self) -> Instant {
        let (Self::Reading(end) | Self::Following(end)) = self;
        end
    }

    /// What is waited for after this event, with so many objects known.
    fn after<K>(&mut self, event: &Event<K>, objects: usize) {
        match event {
            Event::Init | Event::InitApply(_) => *self = Self::Reading(Instant::now() + STANDSTILL_MAX),
            Event::InitDone => *self = Self::Following(Instant::now() + until_anew(objects)),
            Event::Apply(_) | Event::Delete(_) => (),
        }
    }
}

/// How long to trust a list with so many objects.
fn until_anew(objects: usize) -> Duration {
    let cheap = ANEW_PER_OBJECT.saturating_mul(u32::try_from(objects).unwrap_or(u32::MAX));
    ANEW_EVERY.max(cheap).mul_f64(1.0 + rand::random_range(0.0..ANEW_SPREAD))
}

/// An object whose changes matter.
trait Watched: ResourceExt {
    /// What to look at when it came, changed or went. A status is no reason to look at others: it is made of
    /// what they say.
    fn requests(&self, change: Change, caches: &Caches) -> Vec<Request>;

    /// Takes down whom it belongs to, where it is looked for by that.
    fn note(&self, _: &Caches) {}

    /// Drops what nobody reads, to save memory.
    fn strip(&mut self) {
        self.managed_fields_mut().clear();
    }
}

impl Watched for FlyweightService {
    fn requests(&self, change: Change, caches: &Caches) -> Vec<Request> {
        let mut requests = vec![Request::Service(ObjectRef::from_obj(self))];
        if change == Change::Spec {
            let namespace = self.namespace().unwrap_or_default();
            let pools = caches
                .pools_in(&namespace)
                .into_iter()
                .map(|pool| Request::Pool(ObjectRef::from_obj(&*pool)));
            requests.extend(pools);
            requests.extend(tiers_in(caches, &namespace));
        }
        requests
    }
}

impl Watched for FlyweightPool {
    fn requests(&self, change: Change, caches: &Caches) -> Vec<Request> {
        let mut requests = vec![Request::Pool(ObjectRef::from_obj(self))];
        if change == Change::Spec {
            let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
            requests.extend(tiers_in(caches, &namespace));
            let refers = |spec: &ServiceSpec| spec.pool_refs.iter().any(|one| one.name == name);
            requests.extend(services_where(caches, &namespace, refers));
        }
        requests
    }
}

impl Watched for CacheTier {
    fn requests(&self, change: Change, caches: &Caches) -> Vec<Request> {
        let mut requests = vec![Request::Tier(ObjectRef::from_obj(self))];
        if change == Change::Spec {
            requests.extend(services_where(caches, &self.namespace().unwrap_or_default(), |_| true));
        }
        requests
    }
}

impl Watched for PartialObjectMeta<Secret> {
    fn requests(&self, _: Change, caches: &Caches) -> Vec<Request> {
        let name = self.name_any();
        services_where(caches, &self.namespace().unwrap_or_default(), |spec| names_secret(spec, &name))
            .collect()
    }
}

impl Watched for Pod {
    fn requests(&self, _: Change, _: &Caches) -> Vec<Request> {
        let namespace = self.namespace().unwrap_or_default();
        let service = self.labels().get(label::INSTANCE);
        service.map(|name| Request::Service(ObjectRef::new(name).within(&namespace))).into_iter().collect()
    }

    fn strip(&mut self) {
        self.managed_fields_mut().clear();
        self.spec = None;
    }
}

impl Watched for DynamicObject {
    fn note(&self, caches: &Caches) {
        caches.note_child(self);
    }

    fn strip(&mut self) {
        keep(self.managed_fields_mut());
        pack(self);
    }

    fn requests(&self, _: Change, _: &Caches) -> Vec<Request> {
        let namespace = self.namespace().unwrap_or_default();
        let owners = self.owner_references().iter();
        let owners = owners.filter_map(|owner| ObjectRef::from_owner_ref(Some(&namespace), owner, ()));
        let orphan = orphan_of(self).map(|service| ObjectRef::new(service).within(&namespace));
        owners.chain(orphan).map(Request::Service).collect()
    }
}

fn tiers_in(caches: &Caches, namespace: &str) -> impl Iterator<Item = Request> {
    caches.tiers_in(namespace).into_iter().map(|tier| Request::Tier(ObjectRef::from_obj(&*tier)))
}

fn services_where(
    caches: &Caches,
    namespace: &str,
    matches: impl Fn(&ServiceSpec) -> bool,
) -> impl Iterator<Item = Request> {
    let services = caches.services_in(namespace).into_iter().filter(move |service| matches(&service.spec));
    services.map(|service| Request::Service(ObjectRef::from_obj(&*service)))
}

/// Whether the service may use the Secret. Those that are called after the service are found by their
/// endings.
fn names_secret(spec: &ServiceSpec, name: &str) -> bool {
    let backend = |backend: &Backend| {
        let Backend { name: _, mysql, mongodb, redis, kafka } = backend;
        let secrets = [
            mysql.as_ref().map(|one| &one.secret_ref),
            mongodb.as_ref().map(|one| &one.secret_ref),
            redis.as_ref().map(|one| &one.secret_ref),
            kafka.as_ref().map(|one| &one.secret_ref),
        ];
        secrets.into_iter().flatten().any(|secret| secret.name == name)
    };
    let jwt = spec.security.jwt.as_ref().and_then(|jwt| jwt.secret_ref.as_ref());
    let encryption = spec.security.encryption.as_ref().map(|secret| &secret.secret_ref);
    let tls = |tls: &Tls| match &tls.secret_ref {
        Some(secret) => secret.name == name,
        None => name.ends_with(TLS_SUFFIX),
    };
    let payments = spec.pipeline.payments.http.as_ref().and_then(|http| http.secret_ref.as_ref());
    let notifications = spec.pipeline.notifications.secret_ref.as_ref();
    name.ends_with(ENCRYPTION_SUFFIX)
        || spec.backends.iter().any(backend)
        || [payments, notifications].into_iter().flatten().any(|secret| secret.name == name)
        || spec.security.tls.as_ref().is_some_and(tls)
        || [jwt, encryption].into_iter().flatten().any(|secret| secret.name == name)
}

/// The library's waits, up to the longest here.
#[derive(Default)]
struct Patience(DefaultBackoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(PATIENCE_MAX))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_stands_still_has_an_end_and_each_of_its_objects_moves_it_on() {
        let mut patience = Patient::Following(Instant::now());
        for event in [Event::Init, Event::InitApply(()), Event::InitApply(())] {
            let before = Instant::now();
            patience.after(&event, 0);
            assert!(matches!(patience, Patient::Reading(end) if end >= before + STANDSTILL_MAX), "{event:?}");
        }
        patience.after(&Event::<()>::InitDone, 0);
        assert!(matches!(patience, Patient::Following(_)));
        let before = patience;
        patience.after(&Event::Apply(()), 1);
        assert_eq!(patience, before, "changes do not put off that the list is read anew");
    }
}
