//! What all services last said about their pools and tiers. Each service's reconcile leaves its update here;
//! the status of a pool or tier is made of what all of them left.

use std::{collections::BTreeMap, sync::Arc};

use crds::service::FlyweightService;
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::model::update::StatusUpdate;

/// The last update of each service, by namespace and name.
#[derive(Default)]
pub struct StatusUpdates(Mutex<BTreeMap<(String, String), Arc<StatusUpdate>>>);

impl StatusUpdates {
    /// Takes a service's update in the place of the former one. Says whether they differ.
    pub fn put(&self, namespace: &str, service: &str, update: StatusUpdate) -> bool {
        let mut updates = self.0.lock();
        let key = (namespace.to_owned(), service.to_owned());
        if updates.get(&key).is_some_and(|former| **former == update) {
            return false;
        }
        updates.insert(key, Arc::new(update));
        true
    }

    /// The update of a service, once it has been reconciled.
    pub fn of(&self, service: &FlyweightService) -> Option<Arc<StatusUpdate>> {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        self.0.lock().get(&key).cloned()
    }

    /// Forgets services that are gone.
    pub fn retain(&self, living: impl Fn(&str, &str) -> bool) {
        self.0.lock().retain(|(namespace, name), _| living(namespace, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::update;

    #[test]
    fn an_update_is_new_only_when_it_differs() {
        let updates = StatusUpdates::default();
        assert!(updates.put("web", "shop", update(true)));
        assert!(!updates.put("web", "shop", update(true)));
        assert!(updates.put("web", "shop", update(false)));
        updates.retain(|_, _| false);
        assert!(updates.put("web", "shop", update(false)));
    }
}
