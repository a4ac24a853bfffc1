//! Places without a broker; groups on a real one, where `KAFKA_BROKERS` names it.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::producer::{FutureProducer, FutureRecord};

use super::*;
use crate::{EventBus, kafka::KafkaBus};
use model::{event::Happening, key::Version, value::Timestamp};

/// How long the group may take to be shared out, and an event to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_place_is_given_up_when_all_before_it_are_seen_to() {
    let mut open = Open::default();
    let first = open.take(0, 5);
    for offset in [6, 9] {
        assert_eq!(open.take(0, offset), first);
    }
    assert_eq!(open.done(0, first, 6), Some(5), "5 is still open");
    assert_eq!(open.done(0, first, 5), Some(9));
    assert_eq!(open.done(0, first, 9), Some(10));
    assert_eq!(open.done(0, first, 9), Some(10));
    // the partition goes to another and comes back
    open.take(0, 10);
    open.partitions.clear();
    let second = open.take(0, 10);
    assert_ne!(second, first);
    assert_eq!(open.done(0, first, 10), None, "from before");
    assert_eq!(open.done(0, second, 10), Some(11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_seen_to_comes_again_and_what_is_no_event_is_told() {
    let Some(brokers) = std::env::var("KAFKA_BROKERS").ok().filter(|brokers| !brokers.is_empty()) else {
        assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "KAFKA_BROKERS is not set");
        println!("skipped: KAFKA_BROKERS is not set");
        return;
    };
    let options = KafkaOptions::new(brokers, format!("t{:08x}.", rand::random::<u32>()));
    let bus = KafkaBus::start(options.clone()).unwrap();
    let order = |key: &str| {
        let data = Some(format!(r#"{{"id":"{key}","status":"pending"}}"#));
        Envelope::of_change(
            "order",
            Happening::Created,
            &key.parse().unwrap(),
            Version(1),
            Timestamp::now(),
            data,
        )
    };
    let product = crate::testing::event("lamp", 1);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = bus.publish(&[order("o1"), product.clone(), order("o2"), order("o3")]).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
    }
    let producer: FutureProducer = config::producer(&options).create().unwrap();
    let topic = options.topic();
    let poison = FutureRecord::to(&topic).key("order/o4").payload("no event").partition(0);
    producer.send(poison, PATIENCE).await.unwrap();

    let fixed = watch::channel(Arc::new(options.clone())).1;
    let mut first = GroupConsumer::join(fixed.clone(), "test", "order").unwrap();
    let mut held = Vec::new();
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let Delivery { content, ticket } = next(&mut first).await;
        let name = name_of(&content);
        seen.insert(name.clone());
        // two are never seen to
        match name == "o2" || name == "poison" {
            true => held.push(ticket),
            false => ticket.seen_to(),
        }
    }
    assert_eq!(seen, ["o1", "o2", "o3", "poison"].map(str::to_owned).into());
    // it leaves with two in hand; what was seen to is committed then
    drop((held, first));
    let mut second = GroupConsumer::join(fixed.clone(), "test", "order").unwrap();
    let mut again = BTreeSet::new();
    while !(again.contains("o2") && again.contains("poison")) {
        again.insert(name_of(&next(&mut second).await.content));
    }
    bus.close().await;
}

async fn next(consumer: &mut GroupConsumer) -> Delivery {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, consumer.next()).await.unwrap() {
            Ok(delivery) => return delivery,
            // the topic is not known yet
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn name_of(content: &Content) -> String {
    match content {
        Content::Event(event) => event.key.clone(),
        Content::Poison { text, error, .. } => {
            assert!(text == "no event" && !error.is_empty());
            "poison".to_owned()
        }
    }
}
