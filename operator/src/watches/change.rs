//! Changes: which objects came, changed or went by an event of a watch, as far as that was not known.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use kube::{
    Resource,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};

/// What of an object has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came, it goes, or its author changed it.
    Spec,
    /// Only its status or its metadata changed.
    Other,
}

/// A cache of one kind, with what fills it.
pub struct Cache<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    reader: Store<K>,
    writer: Writer<K>,
    kind: K::DynamicType,
}

impl<K> Cache<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    /// The cache that `writer` fills with objects of this kind.
    pub fn new(writer: Writer<K>, kind: K::DynamicType) -> Self {
        Self { reader: writer.as_reader(), writer, kind }
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.reader.len()
    }

    /// Takes an event in, and says which objects it makes differ from before, and in what. A list that is
    /// read anew is compared with what was known when it is complete: objects that are gone since are among
    /// the changes, and those that are the same are not.
    pub fn take(&mut self, event: &Event<K>) -> Vec<(Arc<K>, Change)> {
        match event {
            Event::Init | Event::InitApply(_) => {
                self.writer.apply_watcher_event(event);
                Vec::new()
            }
            Event::InitDone => {
                let before = self.reader.state();
                self.writer.apply_watcher_event(event);
                differences(before, self.reader.state())
            }
            Event::Apply(object) => {
                let place = ObjectRef::from_obj_with(object, self.kind.clone());
                let before = self.reader.get(&place);
                self.writer.apply_watcher_event(event);
                let change = change(before.as_deref(), object);
                self.reader.get(&place).zip(change).into_iter().collect()
            }
            Event::Delete(object) => {
                self.writer.apply_watcher_event(event);
                vec![(Arc::new(object.clone()), Change::Spec)]
            }
        }
    }
}

fn differences<K: Resource>(before: Vec<Arc<K>>, after: Vec<Arc<K>>) -> Vec<(Arc<K>, Change)> {
    let place = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
    let mut gone: HashMap<_, _> = before.into_iter().map(|object| (place(&object), object)).collect();
    let mut found = Vec::new();
    for object in after {
        let former = gone.remove(&place(&object));
        found.extend(change(former.as_deref(), &*object).map(|change| (object, change)));
    }
    found.extend(gone.into_values().map(|object| (object, Change::Spec)));
    found
}

fn change<K: Resource>(before: Option<&K>, after: &K) -> Option<Change> {
    let Some(before) = before else { return Some(Change::Spec) };
    let (before, after) = (before.meta(), after.meta());
    if before.uid == after.uid && before.resource_version == after.resource_version {
        None
    } else if before.uid == after.uid && before.generation == after.generation {
        Some(Change::Other)
    } else {
        Some(Change::Spec)
    }
}

#[cfg(test)]
mod tests {
    use crds::tier::CacheTier;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    fn tier(name: &str, uid: &str, generation: i64, version: &str) -> CacheTier {
        serde_json::from_value(json!({
            "apiVersion": "flyweight.dev/v1alpha1",
            "kind": "CacheTier",
            "metadata": { "name": name, "namespace": "web", "uid": uid, "generation": generation, "resourceVersion": version },
            "spec": { "memory": {} },
        }))
        .unwrap()
    }

    fn told(found: Vec<(Arc<CacheTier>, Change)>) -> Vec<(String, Change)> {
        let mut told: Vec<_> =
            found.into_iter().map(|(object, change)| (object.name_any(), change)).collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }

    fn listed(cache: &mut Cache<CacheTier>, tiers: Vec<CacheTier>) -> Vec<(String, Change)> {
        assert!(cache.take(&Event::Init).is_empty());
        for tier in tiers {
            assert!(cache.take(&Event::InitApply(tier)).is_empty());
        }
        told(cache.take(&Event::InitDone))
    }

    #[test]
    fn a_status_is_told_apart_from_a_change_by_its_author() {
        let mut cache = Cache::new(Writer::default(), ());
        let mut apply = |tier| told(cache.take(&Event::Apply(tier)));
        assert_eq!(apply(tier("hot", "a", 1, "1")), [("hot".to_owned(), Change::Spec)]);
        assert_eq!(apply(tier("hot", "a", 1, "2")), [("hot".to_owned(), Change::Other)]);
        assert!(apply(tier("hot", "a", 1, "2")).is_empty());
        assert_eq!(apply(tier("hot", "a", 2, "3")), [("hot".to_owned(), Change::Spec)]);
        assert_eq!(apply(tier("hot", "b", 2, "4")), [("hot".to_owned(), Change::Spec)]);
        let deleted = cache.take(&Event::Delete(tier("hot", "b", 2, "5")));
        assert_eq!(told(deleted), [("hot".to_owned(), Change::Spec)]);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_list_read_anew_tells_what_was_missed() {
        let mut cache = Cache::new(Writer::default(), ());
        let first = vec![tier("gone", "a", 1, "1"), tier("same", "b", 1, "2"), tier("other", "c", 1, "3")];
        assert_eq!(listed(&mut cache, first).len(), 3);
        let second = vec![tier("same", "b", 1, "2"), tier("other", "c", 1, "7"), tier("new", "d", 1, "8")];
        let expected = [("gone", Change::Spec), ("new", Change::Spec), ("other", Change::Other)];
        assert_eq!(listed(&mut cache, second), expected.map(|(name, news)| (name.to_owned(), news)));
    }
}
