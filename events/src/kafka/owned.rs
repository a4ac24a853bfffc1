//! Whose a topic is: the mark is the text beside an offset of a group that nobody joins, so it goes when the
//! topic goes.
//!
//! Blocks, for a bounded time. Kafka cannot compare before it writes: who left a mark reads it again before
//! it relies on it.

use std::time::{Duration, Instant};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::config::{self, KafkaOptions, Quiet};
use runtime::owner::{Claim, Standing, Verdict};

/// The longest that one question takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long after leaving a mark it is read again: others who found none have left theirs by then.
const SETTLE: Duration = Duration::from_millis(300);
/// How often a mark is left again: brokers forget the offsets of groups without members, after a week by
/// default.
const REFRESH: Duration = Duration::from_secs(3600);
/// How often a mark that changes under one's hands is looked at again at once.
const RACES_MAX: u32 = 4;

/// When the mark was last written here.
#[derive(Default)]
pub struct Marked(Option<Instant>);

impl Marked {
    /// Looks whose the topic is, marks it where it is nobody's, and tells all who wait. Says whether it may
    /// be used.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn look(&mut self, options: &KafkaOptions, topic: &str) -> KafkaResult<bool> {
        let Some(claim) = &options.claim else { return Ok(true) };
        if claim.owner.borrow().name().is_none() {
            return Ok(false);
        }
        let standing = match self.verdict(options, topic, claim) {
            Err(error) if is_forbidden(&error) => {
                // what worked before there were marks goes on
                tracing::warn!(topic, %error, "the topic cannot be marked as the service's own: allow its account the group {topic}.owner");
                Standing::Own
            }
            standing => standing?,
        };
        let own = standing == Standing::Own;
        if standing != Standing::Unknown {
            claim.settle(topic, standing);
        }
        Ok(own)
    }

    fn verdict(&mut self, options: &KafkaOptions, topic: &str, claim: &Claim) -> KafkaResult<Standing> {
        let mut config = config::client(options);
        config.set("group.id", format!("{topic}.owner")).set("enable.auto.commit", "false");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        for _ in 0..RACES_MAX {
            let found = read(&consumer, topic)?;
            let verdict = claim.owner.borrow().judge(found.as_deref());
            match verdict {
                Verdict::Wait => return Ok(Standing::Unknown),
                Verdict::Refuse(owner) => return Ok(Standing::Another(owner)),
                Verdict::Keep => {
                    if self.0.is_none_or(|at| at.elapsed() > REFRESH) {
                        write(&consumer, topic, &found.unwrap_or_default())?;
                        self.0 = Some(Instant::now());
                    }
                    return Ok(Standing::Own);
                }
                Verdict::Leave { mark, anew: _ } => {
                    write(&consumer, topic, &mark)?;
                    self.0 = Some(Instant::now());
                    std::thread::sleep(SETTLE);
                }
            }
        }
        Ok(Standing::Unknown)
    }
}

fn read(consumer: &BaseConsumer<Quiet>, topic: &str) -> KafkaResult<Option<String>> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, 0);
    let committed = consumer.committed_offsets(wanted, TIMEOUT)?;
    let Some(found) = committed.find_partition(topic, 0) else { return Ok(None) };
    found.error()?;
    Ok(Some(found.metadata().to_owned()).filter(|mark| !mark.is_empty()))
}

fn write(consumer: &BaseConsumer<Quiet>, topic: &str, mark: &str) -> KafkaResult<()> {
    let mut offsets = TopicPartitionList::new();
    let mut place = offsets.add_partition(topic, 0);
    place.set_offset(Offset::Offset(0))?;
    place.set_metadata(mark);
    consumer.commit(&offsets, CommitMode::Sync)
}

fn is_forbidden(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed)
    )
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{
        EventBus,
        intake::{Intake, kafka::KafkaIntake, testing},
        kafka::KafkaBus,
        testing::event,
    };
    use runtime::owner::{self, Owner};

    const WAIT: Duration = Duration::from_secs(60);

    struct Service {
        bus: KafkaBus,
        intake: KafkaIntake,
    }

    impl Service {
        fn start(brokers: &str, prefix: &str, owner: watch::Receiver<Owner>) -> Self {
            let options = KafkaOptions {
                check_interval: Duration::from_millis(300),
                claim: Some(Claim::new(owner)),
                ..KafkaOptions::new(brokers, prefix)
            };
            let intake = KafkaIntake::start(&options).unwrap();
            Self { bus: KafkaBus::start(options).unwrap(), intake }
        }

        async fn publishes(&self, key: &str) {
            let deadline = tokio::time::Instant::now() + WAIT;
            while let Err(error) = self.bus.publish(&[event(key, 1)]).await {
                assert!(tokio::time::Instant::now() < deadline, "{error}");
            }
        }

        async fn is_refused_by(&self, owner: &str) {
            let deadline = tokio::time::Instant::now() + WAIT;
            while self.bus.owned_by().as_deref() != Some(owner) {
                assert!(tokio::time::Instant::now() < deadline, "{:?}", self.bus.owned_by());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // of a key that the owner publishes next: it would come before that
            let refused = self.bus.publish(&[event("replica", 9)]).await.unwrap_err().to_string();
            assert!(refused.contains(owner), "{refused}");
            assert!(self.bus.ping().await.unwrap_err().to_string().contains(owner));
            assert!(self.bus.consume("orders", "order").await.is_err());
            assert!(self.intake.append(testing::events(1)).await.unwrap_err().to_string().contains(owner));
            assert!(self.intake.reader().await.is_err());
            assert!(self.intake.waiting().await.is_err());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_prefix_is_one_owners_until_another_says_that_it_takes_it_over() {
        let Some(brokers) = std::env::var("KAFKA_BROKERS").ok().filter(|brokers| !brokers.is_empty()) else {
            assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "KAFKA_BROKERS is not set");
            println!("skipped: KAFKA_BROKERS is not set");
            return;
        };
        let prefix = format!("o{:08x}.", rand::random::<u32>());
        // what has no mark is adopted, with what is in it
        let before = KafkaBus::start(KafkaOptions::new(&brokers, &prefix)).unwrap();
        let deadline = tokio::time::Instant::now() + WAIT;
        while let Err(error) = before.publish(&[event("before", 1)]).await {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
        }
        let first = Service::start(&brokers, &prefix, owner::testing::of("a", "d1"));
        let mut live = first.bus.live();
        first.publishes("mine").await;

        let second = Service::start(&brokers, &prefix, owner::testing::of("b", "d2"));
        second.is_refused_by("a/shop").await;
        assert!(second.bus.head().await.is_err(), "it follows nothing");
        let apart = Service::start(&brokers, &format!("{prefix}b."), owner::testing::of("b", "d2"));
        apart.publishes("elsewhere").await;
        let replica = Service::start(&brokers, &prefix, owner::testing::of("a", "d1"));
        replica.publishes("replica").await;
        // its own event is among them, unless it began to follow just after that
        let own = [("mine".to_owned(), 1), ("replica".to_owned(), 1)];
        let mut seen = own[0].clone();
        while seen != own[1] {
            let event = tokio::time::timeout(WAIT, live.recv()).await.unwrap().unwrap();
            seen = (event.key.clone(), event.version);
            assert!(own.contains(&seen), "nothing of the other: {seen:?}");
        }

        let mover = Service::start(&brokers, &prefix, owner::testing::after("c", "a/shop"));
        mover.publishes("moved").await;
        first.is_refused_by("c/shop").await;
    }
}
