//! What the operator knows of the cluster: one cache per kind, filled by `watches`.

use std::sync::{Arc, atomic::AtomicBool};

use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Resource,
    api::{DynamicObject, PartialObjectMeta},
    runtime::reflector::{Store, store::Writer},
};

use crate::child::{ChildKind, Live, is_child_of};

/// The resources of one namespace, or of all.
pub struct Caches {
    /// All services.
    pub services: Store<FlyweightService>,
    /// All pools.
    pub pools: Store<FlyweightPool>,
    /// All tiers.
    pub tiers: Store<CacheTier>,
    /// Pods of the data plane and of gateways, without their specs.
    pub pods: Store<Pod>,
    /// All Secrets, by their metadata only.
    pub secrets: Store<PartialObjectMeta<Secret>>,
    /// Whether cert-manager's Certificates can be asked for.
    pub cert_manager: AtomicBool,
    children: Vec<(ChildKind, Store<DynamicObject>)>,
}

/// The ends of the caches that watches write to.
pub struct Feeds {
    /// Of all services.
    pub services: Writer<FlyweightService>,
    /// Of all pools.
    pub pools: Writer<FlyweightPool>,
    /// Of all tiers.
    pub tiers: Writer<CacheTier>,
    /// Of the pods.
    pub pods: Writer<Pod>,
    /// Of the Secrets' metadata.
    pub secrets: Writer<PartialObjectMeta<Secret>>,
    /// Of the children.
    pub children: Vec<(ChildKind, Writer<DynamicObject>)>,
}

impl Caches {
    /// Empty caches, and what fills them.
    pub fn new() -> (Self, Feeds) {
        let feeds = Feeds {
            services: Writer::default(),
            pools: Writer::default(),
            tiers: Writer::default(),
            pods: Writer::default(),
            secrets: Writer::default(),
            children: ChildKind::ALL.into_iter().map(|kind| (kind, Writer::new(kind.resource()))).collect(),
        };
        let caches = Self {
            services: feeds.services.as_reader(),
            pools: feeds.pools.as_reader(),
            tiers: feeds.tiers.as_reader(),
            pods: feeds.pods.as_reader(),
            secrets: feeds.secrets.as_reader(),
            cert_manager: AtomicBool::new(false),
            children: feeds.children.iter().map(|(kind, writer)| (*kind, writer.as_reader())).collect(),
        };
        (caches, feeds)
    }

    /// Returns when every cache has been filled once. Until then an object that is not there may only be late.
    /// Says whether it came to that: not when the watches ended before.
    pub async fn filled(&self) -> bool {
        let children = join_all(self.children.iter().map(|(_, store)| store.wait_until_ready())).await;
        children.iter().all(Result::is_ok)
            && self.services.wait_until_ready().await.is_ok()
            && self.pools.wait_until_ready().await.is_ok()
            && self.tiers.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.secrets.wait_until_ready().await.is_ok()
    }

    /// The children of one service.
    pub fn children_of(&self, namespace: &str, uid: &str, name: &str) -> Vec<Live> {
        let ours = |object: &DynamicObject| {
            object.metadata.namespace.as_deref() == Some(namespace) && is_child_of(object, uid, name)
        };
        self.children
            .iter()
            .flat_map(|(kind, store)| store.state_filter(ours).into_iter().map(|object| Live::new(*kind, object)))
            .collect()
    }

    /// The services of a namespace.
    pub fn services_in(&self, namespace: &str) -> Vec<Arc<FlyweightService>> {
        in_namespace(&self.services, namespace)
    }

    /// The pools of a namespace, by name.
    pub fn pools_in(&self, namespace: &str) -> Vec<Arc<FlyweightPool>> {
        in_namespace(&self.pools, namespace)
    }

    /// The tiers of a namespace, by name.
    pub fn tiers_in(&self, namespace: &str) -> Vec<Arc<CacheTier>> {
        in_namespace(&self.tiers, namespace)
    }
}

fn in_namespace<K>(store: &Store<K>, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut found = store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace));
    found.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
    found
}
