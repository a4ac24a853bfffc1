//! A group of consumers, as Kafka sees it.

use std::time::Duration;

use harness::{server::Server, wait};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

/// How long a group may take to notice who is gone or back: longer than a session.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at a group of the feed's consumers.
pub struct Group {
    kafka: BaseConsumer,
    name: String,
}

impl Group {
    /// A group of the sample shop.
    pub fn of(kafka: &Server, name: &str) -> Self {
        let kafka = ClientConfig::new().set("bootstrap.servers", kafka.url()).create().unwrap();
        Self { kafka, name: format!("shop.changes.{name}") }
    }

    /// Waits until so many members have all partitions among them.
    pub async fn has(&self, members: usize) {
        wait::until(&format!("{} members of {}", members, self.name), PATIENCE, async || {
            tokio::task::block_in_place(|| {
                let groups = self.kafka.fetch_group_list(Some(&self.name), Duration::from_secs(5)).ok()?;
                let group = groups.groups().first()?;
                (group.state() == "Stable" && group.members().len() == members).then_some(())
            })
        })
        .await;
    }
}
