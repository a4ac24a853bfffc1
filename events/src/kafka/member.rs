//! A member of a consumer group that leaves on a thread of its own: to leave is to wait for the broker, for
//! as long as it is away.

use std::ops::Deref;

use rdkafka::{
    ClientConfig,
    consumer::{ConsumerContext, StreamConsumer},
    error::KafkaResult,
};
use tokio::runtime::Handle;

/// A member of a group. It leaves when it is dropped, which holds up nobody but the end of the process, for a
/// bounded time.
pub struct Member<C: ConsumerContext + 'static>(Option<StreamConsumer<C>>);

impl<C: ConsumerContext + 'static> Member<C> {
    /// A member of the group that the configuration names.
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn new(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        config.create_with_context(context).map(|consumer| Self(Some(consumer)))
    }
}

impl<C: ConsumerContext + 'static> Deref for Member<C> {
    type Target = StreamConsumer<C>;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Some(consumer) => consumer,
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for Member<C> {
    fn drop(&mut self) {
        let consumer = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(consumer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::{consumer::Consumer, mocking::MockCluster};

    use super::*;
    use crate::kafka::config::{self, KafkaOptions, Quiet};

    /// One thread does all: it must not wait for a broker that is away.
    #[tokio::test]
    async fn a_member_whose_broker_is_away_leaves_without_holding_anyone_up() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("changes", 1, 1).unwrap();
        let mut options = config::consumer(&KafkaOptions::new(cluster.bootstrap_servers(), ""));
        options.set("group.id", "orders").set("enable.auto.commit", "true");
        let member = Member::new(&options, Quiet).unwrap();
        member.subscribe(&["changes"]).unwrap();
        let joined = async {
            while member.assignment().unwrap().count() == 0 {
                _ = tokio::time::timeout(Duration::from_millis(50), member.recv()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), joined).await.expect("it has joined");
        cluster.broker_down(-1).unwrap();
        let begun = Instant::now();
        drop(member);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        // the runtime of this test waits for it
        cluster.broker_up(-1).unwrap();
    }
}
