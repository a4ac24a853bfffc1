//! Follows the cluster: one watch per kind, each with its own patience after errors, and what to look at after a change.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use crds::{
    pool::FlyweightPool,
    service::{FlyweightService, ServiceSpec, backends::Backend},
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
        reflector::{ObjectRef, store::Writer},
        watcher::{Config, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc::Sender, task::JoinSet};

use crate::{
    caches::{Caches, Feeds},
    child::{APP, MANAGER, label},
    metrics::Metrics,
};

/// Proxies and load balancers cut connections that are silent for a few minutes.
const WATCH_SECONDS: u32 = 200;

/// Asks for reconciles.
#[derive(Clone)]
pub struct Wake {
    /// Services to look at.
    pub services: Sender<ObjectRef<FlyweightService>>,
    /// Pools to look at.
    pub pools: Sender<ObjectRef<FlyweightPool>>,
    /// Tiers to look at.
    pub tiers: Sender<ObjectRef<CacheTier>>,
}

/// What to look at after a change.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// A service, its children and its status.
    Service(ObjectRef<FlyweightService>),
    /// A pool's status.
    Pool(ObjectRef<FlyweightPool>),
    /// A tier's status.
    Tier(ObjectRef<CacheTier>),
}

impl Wake {
    /// Asks for one reconcile. Requests for the same object while one waits are one.
    pub async fn send(&self, request: Request) {
        // The receivers end with the process' term of office, and the requests with them.
        let _ = match request {
            Request::Service(service) => self.services.send(service).await.map_err(drop),
            Request::Pool(pool) => self.pools.send(pool).await.map_err(drop),
            Request::Tier(tier) => self.tiers.send(tier).await.map_err(drop),
        };
    }
}

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
        let all = Config::default().timeout(WATCH_SECONDS);
        let ours = all.clone().labels(&format!("{}={MANAGER}", label::MANAGED_BY));
        let ours_by_app = all.clone().labels(&format!("{}={APP}", label::NAME));
        tasks.spawn(self.clone().follow(self.api(), services, all.clone(), "FlyweightService"));
        tasks.spawn(self.clone().follow(self.api(), pools, all.clone(), "FlyweightPool"));
        tasks.spawn(self.clone().follow(self.api(), tiers, all.clone(), "CacheTier"));
        tasks.spawn(self.clone().follow(self.api(), secrets, all, "Secret"));
        tasks.spawn(self.clone().follow(self.api(), pods, ours_by_app, "Pod"));
        for (kind, writer) in children {
            let api = match &self.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource()),
                None => Api::all_with(self.client.clone(), &kind.resource()),
            };
            tasks.spawn(self.clone().follow(api, writer, ours.clone(), kind.name()));
        }
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn follow<K>(self, api: Api<K>, writer: Writer<K>, config: Config, kind: &'static str)
    where
        K: Watched + Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
    {
        let changes = watcher(api, config).default_backoff().modify(K::strip).reflect(writer).touched_objects();
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            match change {
                Ok(object) => {
                    for request in object.requests(&self.caches) {
                        self.wake.send(request).await;
                    }
                }
                Err(error) => {
                    self.metrics.watch_failed(kind);
                    tracing::warn!(kind, %error, "a watch was interrupted");
                }
            }
        }
    }
}

/// An object whose changes matter.
trait Watched: ResourceExt {
    /// What to look at when it was created, changed or deleted.
    fn requests(&self, caches: &Caches) -> Vec<Request>;

    /// Drops what nobody reads, to save memory.
    fn strip(&mut self) {
        self.managed_fields_mut().clear();
    }
}

impl Watched for FlyweightService {
    fn requests(&self, caches: &Caches) -> Vec<Request> {
        let namespace = self.namespace().unwrap_or_default();
        let pools = caches.pools_in(&namespace).into_iter().map(|pool| Request::Pool(ObjectRef::from_obj(&*pool)));
        let mut requests = vec![Request::Service(ObjectRef::from_obj(self))];
        requests.extend(pools);
        requests.extend(tiers_in(caches, &namespace));
        requests
    }
}

impl Watched for FlyweightPool {
    fn requests(&self, caches: &Caches) -> Vec<Request> {
        let namespace = self.namespace().unwrap_or_default();
        let name = self.name_any();
        let mut requests = vec![Request::Pool(ObjectRef::from_obj(self))];
        requests.extend(tiers_in(caches, &namespace));
        requests.extend(services_where(caches, &namespace, |spec| spec.pool_refs.iter().any(|one| one.name == name)));
        requests
    }
}

impl Watched for CacheTier {
    fn requests(&self, caches: &Caches) -> Vec<Request> {
        let mut requests = vec![Request::Tier(ObjectRef::from_obj(self))];
        requests.extend(services_where(caches, &self.namespace().unwrap_or_default(), |_| true));
        requests
    }
}

impl Watched for PartialObjectMeta<Secret> {
    fn requests(&self, caches: &Caches) -> Vec<Request> {
        let name = self.name_any();
        services_where(caches, &self.namespace().unwrap_or_default(), |spec| names_secret(spec, &name)).collect()
    }
}

impl Watched for Pod {
    fn requests(&self, _: &Caches) -> Vec<Request> {
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
    fn requests(&self, _: &Caches) -> Vec<Request> {
        let namespace = self.namespace();
        let owners = self.owner_references().iter();
        owners
            .filter_map(|owner| ObjectRef::from_owner_ref(namespace.as_deref(), owner, ()))
            .map(Request::Service)
            .collect()
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

/// Whether the service may use the Secret. The Secret that the operator makes itself is found by its ending.
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
    let security = [&spec.security.jwt, &spec.security.encryption];
    let payments = spec.pipeline.payments.http.as_ref().and_then(|http| http.secret_ref.as_ref());
    name.ends_with(crate::validate::ENCRYPTION_SUFFIX)
        || spec.backends.iter().any(backend)
        || payments.is_some_and(|secret| secret.name == name)
        || security.into_iter().flatten().any(|secret| secret.secret_ref.name == name)
}
