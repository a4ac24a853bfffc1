//! Which topic it is: the id that the brokers gave it when it was made. A topic that is made anew under the
//! same name has another one, so offsets of the former say nothing of it.
#![expect(
    unsafe_code,
    reason = "the library tells a topic's id only through its C interface, which rdkafka does not wrap"
)]

use std::{ffi::CString, ptr, time::Duration};

use rdkafka::{
    bindings as c,
    consumer::{BaseConsumer, Consumer},
    error::{IsError, KafkaError, KafkaResult, RDKafkaErrorCode},
};
use xxhash_rust::xxh3::xxh3_64;

use super::config::Quiet;

/// The longest that the question takes.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Ids are kept in so many bits, which fit every number of a cursor.
const BITS: u64 = u64::MAX >> 1;

/// The mark of a topic's id; 0 where brokers give none (before Kafka 2.8). Blocks, for a bounded time.
pub fn of_topic(consumer: &BaseConsumer<Quiet>, topic: &str) -> KafkaResult<u64> {
    let name = CString::new(topic).map_err(|_| KafkaError::AdminOp(RDKafkaErrorCode::InvalidTopic))?;
    let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: for each call, what the library's header asks:
    // - `client` is the handle of `consumer`, which is borrowed until the end of this function: it is not
    //   destroyed meanwhile, and the library lets any thread use it.
    // - `names` is a live array of one pointer to text that ends with 0 and lives until the end of this
    //   function; the collection copies it.
    // - Topics, options, queue and event are each made here, given to nobody who keeps them, and destroyed
    //   once, after their last use. None of the first three is null: they are, where a count is wrong or the
    //   operation is not known, and both are constants here. An event is null where none came in time.
    // - `DescribeTopics` copies topics and options. An answer that comes after the wait finds its queue
    //   without an owner, and the library drops it.
    // - The text for an error is null with a length of 0: nothing is written there.
    // - What `id_of` gives are numbers: no pointer into the event outlives it.
    let id = unsafe {
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options =
            c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        // refused only where it is out of range
        _ = c::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let queue = c::rd_kafka_queue_new(client);
        c::rd_kafka_DescribeTopics(client, topics, options, queue);
        let event = c::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(500));
        let id = id_of(event);
        if !event.is_null() {
            c::rd_kafka_event_destroy(event);
        }
        c::rd_kafka_queue_destroy(queue);
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_TopicCollection_destroy(topics);
        id
    };
    match id {
        Ok([0, 0]) | Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
            Ok(0)
        }
        Ok(halves) => Ok((xxh3_64(&halves.map(i64::to_be_bytes).concat()) & BITS).max(1)),
        Err(error) => Err(KafkaError::AdminOp(error)),
    }
}

/// The two halves of the id in an answer.
///
/// # Safety
/// `event` is null or an event that the library gave.
unsafe fn id_of(event: *mut c::rd_kafka_event_t) -> Result<[i64; 2], RDKafkaErrorCode> {
    if event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: by this function's contract `event` is an event that lives until this returns, and it is not
    // null here. Every pointer below belongs to it or to what it holds, and is looked at only where it is not
    // null. `topics` points to `count` pointers, of which the first is read where there is one; the library
    // fills each. An error of a topic, and its id, are null where there is none.
    unsafe {
        let error = c::rd_kafka_event_error(event);
        if error.is_error() {
            return Err(error.into());
        }
        let result = c::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::Unknown);
        }
        let mut count = 0;
        let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return Err(RDKafkaErrorCode::UnknownTopicOrPartition);
        }
        let topic = *topics;
        let error = c::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && c::rd_kafka_error_code(error).is_error() {
            return Err(c::rd_kafka_error_code(error).into());
        }
        let id = c::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Ok([0, 0]);
        }
        Ok([c::rd_kafka_Uuid_most_significant_bits(id), c::rd_kafka_Uuid_least_significant_bits(id)])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

    use super::*;
    use crate::kafka::config::{self, KafkaOptions};

    fn ask(brokers: String) -> BaseConsumer<Quiet> {
        config::client(&KafkaOptions::new(brokers, "")).create_with_context(Quiet).unwrap()
    }

    /// The ways out of the question that need no broker: `make prove-unsafe` looks that nothing is lost or
    /// used wrongly on any.
    #[test]
    fn a_name_that_is_none_and_brokers_that_are_away_are_refused_in_time() {
        let consumer = ask("127.0.0.1:1".to_owned());
        assert!(of_topic(&consumer, "zero\0inside").is_err());
        let begun = Instant::now();
        assert!(of_topic(&consumer, "changes").is_err());
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        // what is still under way goes with its client
        drop(consumer);
    }

    #[tokio::test]
    async fn a_topic_that_is_made_anew_has_another_id() {
        let Ok(brokers) = std::env::var("KAFKA_BROKERS") else {
            assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "KAFKA_BROKERS is not set");
            println!("skipped: KAFKA_BROKERS is not set");
            return;
        };
        let (consumer, name) = (ask(brokers.clone()), format!("identity-{}", uuid::Uuid::now_v7()));
        let admin: AdminClient<Quiet> =
            config::client(&KafkaOptions::new(brokers, "")).create_with_context(Quiet).unwrap();
        let (mut ids, options) = (Vec::new(), AdminOptions::new());
        for _ in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(60);
            let id = loop {
                admin
                    .create_topics([&NewTopic::new(&name, 1, TopicReplication::Fixed(1))], &options)
                    .await
                    .unwrap();
                match of_topic(&consumer, &name) {
                    Ok(id) => break id,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            };
            for _ in 0..20 {
                assert_eq!(of_topic(&consumer, &name).ok(), Some(id), "the same topic");
            }
            ids.push(id);
            admin.delete_topics(&[&name], &options).await.unwrap();
        }
        assert!(ids[0] != ids[1] && !ids.contains(&0), "{ids:?}");
        assert!(of_topic(&consumer, "no-such-topic").is_err());
    }
}
