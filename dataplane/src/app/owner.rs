//! Who this service is to others that share a Redis or a Kafka with it, and what the names are made of that
//! its author left out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crds::settings::{Settings, names::Names};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::backends::Place;
use runtime::{owner::Owner, supervisor};
use store::{RecordStore, StoreError, identity::Identity};

/// The wait before a database is asked again who it is.
const RETRY: Duration = Duration::from_millis(500);
/// How often it is said that a database is waited for, in waits.
const SAY_EVERY: u32 = 20;

/// Stores by the names of their backends.
type Stores = BTreeMap<String, Arc<dyn RecordStore>>;

/// Whose this process is: manifests say so, or the pod's own environment.
pub fn of(settings: &Settings) -> watch::Sender<Owner> {
    let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let origin = settings.origin.clone();
    watch::Sender::new(Owner {
        namespace: origin.namespace.or_else(|| told("POD_NAMESPACE")),
        service: settings.service.clone(),
        databases: Default::default(),
        take_over_from: origin.take_over_from.or_else(|| told("TAKE_OVER_FROM")),
    })
}

/// The settings with the prefixes that were left out. Where only the database tells them, this waits for it.
pub async fn named(settings: &Settings, place: &Place, owner: &Owner, stores: &Stores) -> Settings {
    let settings = settings.clone();
    let Place::Backends(_) = place else { return settings.named(&Names::Bare) };
    let Some((name, store)) = stores.first_key_value().filter(|_| settings.is_unnamed()) else {
        return settings;
    };
    let identity = identity_of(name, &**store).await;
    let service = owner.service.clone();
    let names = match (identity.bare, owner.namespace.clone()) {
        (true, _) => Names::Bare,
        (false, Some(namespace)) => Names::Of { namespace, service },
        (false, None) => Names::In { service, database: identity.id },
    };
    info!(keys = names.key_prefix(), topics = names.topic_prefix(), "prefixes that were left out");
    settings.named(&names)
}

/// Learns from each database who it is, in the background.
pub fn follow(stores: &Stores, owner: &watch::Sender<Owner>) {
    for (name, store) in stores {
        let (name, store, owner) = (name.clone(), store.clone(), owner.clone());
        supervisor::IDENTITY.spawn(move || {
            let (name, store, owner) = (name.clone(), store.clone(), owner.clone());
            async move {
                let identity = identity_of(&name, &*store).await;
                owner.send_if_modified(|owner| owner.databases.insert(identity.id));
            }
        });
    }
}

async fn identity_of(name: &str, store: &dyn RecordStore) -> Identity {
    for turn in 0_u32.. {
        match store.identity().await {
            Ok(identity) => return identity,
            Err(error) if turn.is_multiple_of(SAY_EVERY) => {
                let lasting = matches!(error, StoreError::Unsupported(_));
                warn!(store = name, lasting, %error, "the database does not say who it is yet");
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
    Identity::new(false)
}
