//! A group of consumers, as Kafka sees it, or as its claims in a store tell.

use std::time::Duration;

use harness::{server::Server, wait};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sqlx::{Connection, MySqlConnection};

/// How long a group may take to notice who is gone or back: longer than a session.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many members share the parts of a log, once all parts are somebody's.
const CLAIMED: &str = "SELECT COUNT(DISTINCT owner) FROM flyweight_claims WHERE log = 'changes' AND part >= 0 \
     AND until_ms > TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 HAVING COUNT(*) = 16";

/// Waits until so many members have all parts of the feed among them, by their claims in this MySQL.
pub async fn claims_are_of(url: &str, members: usize) {
    wait::until(&format!("{members} members with all claims"), PATIENCE, async || {
        let mut mysql = MySqlConnection::connect(url).await.ok()?;
        let (found,): (i64,) = sqlx::query_as(CLAIMED).fetch_optional(&mut mysql).await.ok()??;
        (found == members as i64).then_some(())
    })
    .await
}

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
