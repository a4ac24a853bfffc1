//! The bus, the log of events and that of write-behind in a store: what a service has without a Kafka.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::bail;
use crds::settings::Settings;
use events::{
    EventBus,
    intake::{Intake, stored::StoredIntake},
    stored::{StoreBus, StoredOptions},
};
use runtime::owner::Owner;
use store::RecordStore;
use tracing::info;

use super::Logs;
use crate::service::write_behind::LOG_AGE_MAX;

/// The name of the bus: its backend's own part says whether the store answers.
const NAME: &str = "events";
/// The log of changes: all who write to a database tell each other.
const CHANGES: &str = "changes";

/// Opens the logs in the first store of `spec.backends`. To be called in a tokio runtime. The store need not
/// be up.
///
/// # Errors
/// There is no store.
pub fn stored(
    settings: &Settings,
    stores: &BTreeMap<String, Arc<dyn RecordStore>>,
    owner: &Owner,
    wants_log: bool,
) -> anyhow::Result<Logs> {
    let mut declared = settings.backends.iter().map(|backend| &backend.name);
    let first = declared.find_map(|name| stores.get(name).map(|store| (name, store)));
    let Some((backend, store)) = first else {
        bail!(
            "spec.backends has neither a kafka backend nor a store (mysql, mongodb): replicas tell each other of \
             changes through one of them"
        )
    };
    info!(backend, "there is no kafka backend: replicas tell each other of changes through this store");
    let namespace = owner.namespace.as_ref().map(|namespace| format!("{namespace}."));
    let own = format!("{}{}.", namespace.unwrap_or_default(), owner.service);
    let log = store.event_log();
    let bus: Arc<dyn EventBus> = Arc::new(StoreBus::start(log.clone(), StoredOptions::new(CHANGES, &own)));
    let intake: Arc<dyn Intake> = Arc::new(StoredIntake::start(log.clone(), &format!("{own}intake")));
    let write_log = wants_log.then(|| {
        let options = StoredOptions {
            events_max: u64::MAX >> 1,
            age_max: LOG_AGE_MAX,
            ..StoredOptions::new(&format!("{own}write-behind"), &own)
        };
        Arc::new(StoreBus::start(log, options)) as Arc<dyn EventBus>
    });
    Ok(Logs { bus: (NAME.to_owned(), bus), intake, write_log })
}
