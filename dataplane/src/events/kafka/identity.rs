//! Which topic it is: the id that the brokers gave it when it was made. A topic that is made anew under the same name has another one, so offsets of
//! the former say nothing of it.
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
    // SAFETY: the client outlives the call; what is made here is destroyed here, after its last use, and nothing of an answer is kept
    let id = unsafe {
        let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = c::rd_kafka_AdminOptions_new(client, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
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
        Ok([0, 0]) | Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => Ok(0),
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
    // SAFETY: the pointers belong to the event, which lives until this returns; each is looked at only where it is not null
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
