//! Children of a kind that the cluster may not have: it is looked for from time to time, and watched while it
//! is there.

use std::{sync::atomic::Ordering, time::Duration};

use crds::service::FlyweightService;
use kube::{
    Api,
    api::DynamicObject,
    runtime::{
        reflector::ObjectRef,
        watcher::{Config, Event},
    },
};
use tokio::time::sleep;

use super::{Links, change::Cache};
use crate::{api::ask, model::child::ChildKind, wake::Request};

/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same after no answer.
const RETRY: Duration = Duration::from_secs(1);

impl Links {
    /// Follows the kind while it is defined; while it is not, there are none of it.
    pub(super) async fn follow_where_defined(
        self,
        api: Api<DynamicObject>,
        mut cache: Cache<DynamicObject>,
        config: Config,
        kind: ChildKind,
    ) {
        loop {
            match self.is_defined(kind).await {
                Some(true) => {
                    self.note_defined(true).await;
                    tokio::select! {
                        () = self.read(&api, &mut cache, &config, kind.name()) => return,
                        () = self.until_undefined(kind) => (),
                    }
                }
                Some(false) => {
                    cache.take(&Event::Init);
                    cache.take(&Event::InitDone);
                    self.note_defined(false).await;
                    sleep(LOOK_EVERY).await;
                }
                None => sleep(RETRY).await,
            }
        }
    }

    /// Whether the cluster has the kind; none where nobody says.
    async fn is_defined(&self, kind: ChildKind) -> Option<bool> {
        let resource = kind.resource();
        let request = self.client.list_api_group_resources(&resource.api_version);
        match ask("discover", kind.name(), &resource.api_version, request).await {
            Ok(list) => Some(list.resources.iter().any(|one| one.name == resource.plural)),
            Err(error) if error.is_not_found() => Some(false),
            Err(error) => {
                tracing::warn!(kind = kind.name(), %error, "nobody says whether the cluster has the kind");
                None
            }
        }
    }

    async fn until_undefined(&self, kind: ChildKind) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.is_defined(kind).await == Some(false) {
                return;
            }
        }
    }

    /// Takes down whether certificates can be asked for, and wakes the services that want one when that has
    /// changed.
    async fn note_defined(&self, defined: bool) {
        if self.caches.cert_manager.swap(defined, Ordering::Relaxed) == defined {
            return;
        }
        let wants = |service: &FlyweightService| {
            service.spec.security.tls.as_ref().is_some_and(|tls| tls.issuer_ref.is_some())
        };
        for service in self.caches.services.state_filter(wants) {
            self.wake.send(Request::Service(ObjectRef::from_obj(&*service))).await;
        }
    }
}
