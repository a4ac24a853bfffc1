//! What the operator knows of the cluster: one cache per kind, filled by `watches`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicBool},
};

use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Resource, ResourceExt,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store, store::Writer},
};
use parking_lot::Mutex;

use crate::model::child::{ChildKind, Live, is_child_of, orphan_of};

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
    children: Vec<(ChildKind, ApiResource, Store<DynamicObject>)>,
    names: Mutex<Names>,
}

/// The names of the children by whom they belong to: every reconcile asks for those of one service, and to
/// look at those of a thousand took a sixth of all time. There may be names of children that are gone.
type Names = HashMap<Belonging, BTreeSet<String>>;

/// Whom a child belongs to.
#[derive(PartialEq, Eq, Hash)]
enum Belonging {
    /// The owner with this uid.
    Owner(String),
    /// As an orphan, the service of this namespace and name.
    Orphan(String, String),
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
            children: feeds
                .children
                .iter()
                .map(|(kind, feed)| (*kind, kind.resource(), feed.as_reader()))
                .collect(),
            names: Mutex::default(),
        };
        (caches, feeds)
    }

    /// Returns when every cache has been filled once. Until then an object that is not there may only be
    /// late. Says whether it came to that: not when the watches ended before.
    pub async fn filled(&self) -> bool {
        let children = join_all(self.children.iter().map(|(.., store)| store.wait_until_ready())).await;
        children.iter().all(Result::is_ok)
            && self.services.wait_until_ready().await.is_ok()
            && self.pools.wait_until_ready().await.is_ok()
            && self.tiers.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.secrets.wait_until_ready().await.is_ok()
    }

    /// The children of one service.
    pub fn children_of(&self, namespace: &str, uid: &str, name: &str) -> Vec<Live> {
        let belongings =
            [Belonging::Owner(uid.to_owned()), Belonging::Orphan(namespace.to_owned(), name.to_owned())];
        let names: BTreeSet<String> = {
            let known = self.names.lock();
            belongings.iter().filter_map(|one| known.get(one)).flatten().cloned().collect()
        };
        let find = |(kind, resource, store): &(ChildKind, ApiResource, Store<DynamicObject>), child: &str| {
            let object = store.get(&ObjectRef::new_with(child, resource.clone()).within(namespace))?;
            is_child_of(&*object, uid, name).then(|| Live::new(*kind, object))
        };
        self.children.iter().flat_map(|kind| names.iter().filter_map(|child| find(kind, child))).collect()
    }

    /// Takes down whom a child belongs to, once it is in its cache.
    pub fn note_child(&self, child: &DynamicObject) {
        note(&mut self.names.lock(), child);
    }

    /// Forgets the names of children that are gone.
    pub fn forget_children(&self) {
        let mut names = self.names.lock();
        names.clear();
        for (.., store) in &self.children {
            store.state().iter().for_each(|child| note(&mut names, child));
        }
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

fn note(names: &mut Names, child: &DynamicObject) {
    let owners = child.owner_references().iter().map(|owner| Belonging::Owner(owner.uid.clone()));
    let orphan = || Some(Belonging::Orphan(child.namespace()?, orphan_of(child)?.to_owned()));
    for belonging in owners.chain(orphan()) {
        names.entry(belonging).or_default().insert(child.name_any());
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

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::child::{MANAGER, annotation, label};

    fn child(namespace: &str, name: &str, owners: &Value) -> DynamicObject {
        let labels = json!({ label::MANAGED_BY: MANAGER, label::INSTANCE: "shop" });
        let annotations = json!({ annotation::APPLIED: "h" });
        let metadata = json!({ "namespace": namespace, "name": name, "labels": labels, "annotations": annotations,
            "ownerReferences": owners });
        serde_json::from_value(json!({ "metadata": metadata, "spec": {} })).unwrap()
    }

    fn owner(uid: &str) -> Value {
        json!([{ "apiVersion": "v", "kind": "K", "name": "n", "uid": uid, "controller": true }])
    }

    #[test]
    fn children_are_found_by_whom_they_belong_to() {
        let (caches, mut feeds) = Caches::new();
        let mut feed = |kind, event: Event<DynamicObject>| {
            let (_, writer) = feeds.children.iter_mut().find(|(one, _)| *one == kind).unwrap();
            writer.apply_watcher_event(&event);
            if let Event::Apply(child) = event {
                caches.note_child(&child);
            }
        };
        let found = |uid: &str| {
            let found = caches.children_of("web", uid, "shop");
            found
                .into_iter()
                .map(|one| format!("{:?} {}", one.reference.kind, one.reference.name))
                .collect::<Vec<_>>()
        };
        feed(ChildKind::Service, Event::Apply(child("web", "shop", &owner("a"))));
        feed(ChildKind::ConfigMap, Event::Apply(child("web", "shop", &owner("a"))));
        feed(ChildKind::Service, Event::Apply(child("web", "shop-main", &json!([]))));
        feed(ChildKind::Service, Event::Apply(child("other", "shop-other", &owner("a"))));
        assert_eq!(found("a"), ["ConfigMap shop", "Service shop", "Service shop-main"]);
        assert_eq!(found("b"), ["Service shop-main"], "whose owner is gone is the next one's of that name");
        // It has its owner back; then another is gone.
        feed(ChildKind::Service, Event::Apply(child("web", "shop-main", &owner("b"))));
        feed(ChildKind::Service, Event::Delete(child("web", "shop", &owner("a"))));
        for _ in 0..2 {
            assert_eq!(found("a"), ["ConfigMap shop"]);
            assert_eq!(found("b"), ["Service shop-main"]);
            caches.forget_children();
        }
        let known: usize = caches.names.lock().values().map(BTreeSet::len).sum();
        assert_eq!(known, 3, "one of each owner, and the one of the other namespace");
    }
}
