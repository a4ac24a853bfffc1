//! Questions to Kafka about the topic: its partitions, its bounds, its creation. They block, for a bounded
//! time.

use std::time::Duration;

use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    topic_partition_list::Offset,
};

use super::config::Quiet;
use model::durability::Topic;

/// Partitions of a topic that is created here.
const PARTITIONS: i32 = 6;
/// The longest that one question takes.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The offsets that a partition holds: from the first up to, and without, the last.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The offset of the oldest record.
    pub low: i64,
    /// The offset that the next record will have.
    pub high: i64,
}

/// How many partitions the topic has; none where there is no such topic.
pub fn partitions(consumer: &BaseConsumer<Quiet>, topic: &str) -> KafkaResult<Option<usize>> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let Some(topic) = metadata.topics().first() else { return Ok(None) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => Ok(Some(topic.partitions().len()).filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(error) => Err(KafkaError::MetadataFetch(error)),
    }
}

/// Creates the topic, with as many replicas as the broker has as its default. Another may do so at the same
/// time.
pub fn create(config: &ClientConfig, topic: &str) -> KafkaResult<()> {
    let admin: AdminClient<Quiet> = config.create_with_context(Quiet)?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    for result in futures::executor::block_on(admin.create_topics([&new], &options))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, error)) => return Err(KafkaError::AdminOp(error)),
        }
    }
    Ok(())
}

/// How the topic is kept. A broker that does not show its settings to the account leaves those out.
pub fn kept(config: &ClientConfig, consumer: &BaseConsumer<Quiet>, name: &str) -> KafkaResult<Topic> {
    let metadata = consumer.fetch_metadata(Some(name), TIMEOUT)?;
    let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
    let replicas = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    let admin: AdminClient<Quiet> = config.create_with_context(Quiet)?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let topic = ResourceSpecifier::Topic(name);
    let asked = admin.describe_configs([&topic], &options);
    let told = futures::executor::block_on(asked)?.into_iter().next().and_then(Result::ok);
    let value = |name: &str| told.as_ref()?.entry_map().get(name)?.value.clone();
    Ok(Topic {
        replicas,
        brokers: metadata.brokers().len(),
        min_in_sync: value("min.insync.replicas").and_then(|value| value.parse().ok()),
        unclean: value("unclean.leader.election.enable").and_then(|value| value.parse().ok()),
    })
}

/// The bounds of each partition.
pub fn bounds(consumer: &BaseConsumer<Quiet>, topic: &str, partitions: usize) -> KafkaResult<Vec<Bounds>> {
    (0..partitions as i32)
        .map(|partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
            Ok(Bounds { low, high })
        })
        .collect()
}

/// The assignment of partitions, each from its offset on.
pub fn assignment(
    topic: &str,
    offsets: impl IntoIterator<Item = (usize, i64)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition as i32, Offset::Offset(offset))?;
    }
    Ok(list)
}
