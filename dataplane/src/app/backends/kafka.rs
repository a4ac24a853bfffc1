//! The bus, the log of events and that of write-behind in Kafka.

use std::sync::Arc;

use events::{
    EventBus,
    intake::kafka::KafkaIntake,
    kafka::{
        KafkaBus,
        config::{KafkaOptions, KafkaSecurity},
    },
};
use runtime::owner::{Claim, Owner};
use tokio::sync::watch;

use super::{Logs, files::Files};
use crate::app::rotation::{Folder, Mounted};

/// What one Kafka serves as. It follows its Secret.
///
/// # Errors
/// An address or file that cannot be read.
pub fn kafka(
    name: &str,
    files: Files,
    folder: Folder,
    topic_prefix: &str,
    wants_log: bool,
    owner: &watch::Sender<Owner>,
) -> anyhow::Result<(Logs, Mounted)> {
    // the bus looks whose its topic is: the log of events has the same prefix, the write-behind log is a bus
    // of its own
    let (claim, log_claim) = (Claim::new(owner.subscribe()), Claim::new(owner.subscribe()));
    let (prefix, log_prefix) = (topic_prefix.to_owned(), format!("{topic_prefix}write-behind."));
    let own_options = move |files: &Files| options(files, &prefix, claim.clone());
    let log_options = move |files: &Files| options(files, &log_prefix, log_claim.clone());
    let now = own_options(&files)?;
    let intake = Arc::new(KafkaIntake::start(&now)?);
    let log = if wants_log { Some(Arc::new(KafkaBus::start(log_options(&files)?)?)) } else { None };
    let bus = Arc::new(KafkaBus::start(now)?);
    let files = Arc::new(files);
    let (own_intake, own_bus, own_log) = (intake.clone(), bus.clone(), log.clone());
    let mounted = folder.taken_by(move || {
        let options = own_options(&files).and_then(|options| Ok((options, log_options(&files)?)));
        let (intake, bus, log) = (own_intake.clone(), own_bus.clone(), own_log.clone());
        async move {
            let (options, log_options) = options.map_err(|error| format!("{error:#}"))?;
            bus.rotate(options.clone()).await.map_err(|error| error.to_string())?;
            if let Some(log) = log {
                log.rotate(log_options).await.map_err(|error| error.to_string())?;
            }
            // waits for the threads of the library
            let rotated = tokio::task::spawn_blocking(move || intake.rotate(&options)).await;
            rotated.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }
    });
    let write_log = log.map(|log| log as Arc<dyn EventBus>);
    Ok((Logs { bus: (name.to_owned(), bus), intake, write_log }, mounted))
}

fn options(files: &Files, topic_prefix: &str, claim: Claim) -> anyhow::Result<KafkaOptions> {
    let mut options = KafkaOptions::new(files.url()?, topic_prefix);
    options.claim = Some(claim);
    options.security = KafkaSecurity::from_folder(&files.dir)?;
    options.by(&files.passage).map_err(anyhow::Error::msg)
}
