//! The bus against a real broker, which each test starts for itself, so that it can be killed.

use std::{
    collections::HashSet,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::Consumer as _,
    message::{Headers, Message},
};

use super::{
    config::{KafkaOptions, Quiet},
    *,
};
use crate::testing::{assert_in_order, event, events, without_repeats};
use ::testing::{Folder, until};

const WAIT: Duration = Duration::from_secs(120);

/// A broker of one's own. It can be killed and started again with what it has.
struct Broker {
    folder: Folder,
    port: u16,
    server: Option<Child>,
}

fn tool(name: &str) -> Command {
    Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/tools").join(name))
}

impl Broker {
    /// A running broker; none where the tests of Kafka are not asked for.
    async fn start() -> Option<Self> {
        if std::env::var_os("KAFKA_BROKERS").is_none() {
            assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "KAFKA_BROKERS is not set");
            println!("skipped: KAFKA_BROKERS is not set");
            return None;
        }
        // of those that no system gives to outgoing connections: it is still free after a restart
        let mut random = std::iter::repeat_with(|| rand::random_range(20_000..30_000));
        let port = random.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
        let mut broker = Self { folder: Folder::new(), port, server: None };
        broker.launch();
        broker.answers().await;
        Some(broker)
    }

    fn launch(&mut self) {
        let mut server = tool("serve.sh");
        server.arg("kafka").arg(self.folder.path()).arg(self.port.to_string());
        self.server = Some(server.spawn().unwrap());
    }

    async fn answers(&self) {
        let port = self.port.to_string();
        let waited = move || tool("wait.sh").args(["kafka", "127.0.0.1", &port, "120"]).status().unwrap();
        assert!(tokio::task::spawn_blocking(waited).await.unwrap().success(), "the broker does not answer");
    }

    fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    fn options(&self) -> KafkaOptions {
        let brokers = format!("127.0.0.1:{}", self.port);
        KafkaOptions { check_interval: Duration::from_millis(300), ..KafkaOptions::new(brokers, "shop.") }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}

async fn join(options: KafkaOptions) -> KafkaBus {
    let bus = KafkaBus::start(options).unwrap();
    joined(&bus).await;
    bus
}

async fn joined(bus: &KafkaBus) {
    let mut gaps = bus.gaps();
    tokio::time::timeout(WAIT, gaps.wait_for(|gaps| *gaps > 0)).await.expect("the topic in time").unwrap();
}

async fn take(bus: &KafkaBus, since: &str, count: usize) -> Vec<Envelope> {
    let stream = bus.replay(since).await.unwrap().take(count).map(|event| (*event.unwrap()).clone());
    tokio::time::timeout(WAIT, stream.collect()).await.expect("enough events")
}

async fn receive(live: &mut broadcast::Receiver<Arc<Envelope>>, count: usize) -> Vec<Envelope> {
    let mut all = Vec::new();
    while all.len() < count {
        let event = tokio::time::timeout(WAIT, live.recv())
            .await
            .unwrap_or_else(|_| panic!("only {} of {count}", all.len()));
        all.push((*event.unwrap()).clone());
    }
    all
}

async fn publish(bus: &KafkaBus, events: &[Envelope]) {
    for batch in events.chunks(500) {
        bus.publish(batch).await.unwrap();
    }
}

/// The schema that the first record of a partition names.
fn schema_of_first(options: &KafkaOptions) -> String {
    let consumer: BaseConsumer<Quiet> = config::consumer(options).create_with_context(Quiet).unwrap();
    consumer.assign(&topic::assignment(&options.topic(), [(0, 0)]).unwrap()).unwrap();
    let message = consumer.poll(WAIT).unwrap().unwrap();
    let header = message.headers().unwrap().iter().find(|header| header.key == "schema").unwrap();
    String::from_utf8(header.value.unwrap().to_vec()).unwrap()
}

/// Which topic a cursor is of, and the next record of each partition.
fn offsets(cursor: &str) -> (u64, Vec<i64>) {
    let Cursor::Topic(TopicPlace { topic, last: _, at }) = Cursor::decode(cursor).unwrap() else {
        panic!("{cursor}")
    };
    (topic, at)
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> HashSet<uuid::Uuid> {
    events.into_iter().map(|event| event.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_gets_every_event_in_order_and_cursors_work_on_all() {
    let Some(broker) = Broker::start().await else { return };
    let (one, two) = (join(broker.options()).await, join(broker.options()).await);
    one.ping().await.unwrap();
    let start = one.head().await.unwrap();
    let (mut live_one, mut live_two) = (one.live(), two.live());
    let published = events(50, 40);
    publish(&one, &published).await;
    let (seen_one, seen_two) = (receive(&mut live_one, 2_000).await, receive(&mut live_two, 2_000).await);
    for seen in [&seen_one, &seen_two] {
        assert_in_order(seen);
        assert_eq!(ids(seen), ids(&published));
    }
    // partitions come in any order: the event that was published seventh may be seen at any place
    let seventh = seen_one.iter().find(|event| event.id == published[7].id).unwrap();
    assert_eq!(seventh.data.as_ref().unwrap().get(), published[7].data.as_ref().unwrap().get());

    let options = broker.options();
    assert_eq!(
        tokio::task::spawn_blocking(move || schema_of_first(&options)).await.unwrap(),
        "/schemas/product_created/1"
    );

    // a cursor of one replica, taken to the other, which had the partitions in another order
    let head = two.head().await.unwrap();
    let mut ends = vec![one.head().await.unwrap(), head.clone()];
    for at in [0, 1, 999, 1_998] {
        let cursor = seen_one[at].cursor.clone().unwrap();
        let rest = take(&two, &cursor, 1_999 - at).await;
        assert_in_order(&rest);
        assert_eq!(ids(&rest), ids(&seen_one[at + 1..]), "after {at}");
        // the same place; but each names the event that came last to its own reader
        let end = rest.last().unwrap().cursor.clone().unwrap();
        assert_eq!(offsets(&end), offsets(&head), "after {at}");
        ends.push(end);
    }

    // a third one that was not there reads the topic, and goes on with what comes
    let three = join(KafkaOptions { ring_events: 100, ..broker.options() }).await;
    let late = [event("late", 1)];
    let replay = async { take(&three, &start, 2_001).await };
    let (replayed, ()) = tokio::join!(replay, publish(&one, &late));
    assert_in_order(&replayed);
    assert_eq!(ids(&replayed[..2_000]), ids(&published));
    assert_eq!(replayed[2_000].id, late[0].id);
    for (bus, end) in [&one, &two, &three].into_iter().flat_map(|bus| ends.iter().map(move |end| (bus, end)))
    {
        assert_eq!(
            take(bus, end, 1).await[0].id,
            late[0].id,
            "whoever read the last event, it is the end on all: {end}"
        );
    }
    let middle = replayed[1_000].cursor.clone().unwrap();
    assert_eq!(ids(&take(&three, &middle, 1_000).await), ids(&replayed[1_001..]));

    assert!(matches!(one.replay("nonsense").await, Err(BusError::BadCursor)));
    let of = |at: Vec<i64>| Cursor::Topic(TopicPlace { at, ..TopicPlace::default() });
    for strange in [of(vec![0; 7]), of(vec![1 << 40; 6]), Cursor::Local { feed: 1, number: 1, mark: None }] {
        assert!(matches!(one.replay(&strange.encode()).await, Err(BusError::Expired)), "{strange:?}");
    }
    // what stands before the place is not what its reader saw: the topic was cut short or restored, and grew
    // again
    for (bus, at) in [(&two, 999), (&three, 5)] {
        let Cursor::Topic(mut place) = Cursor::decode(&seen_one[at].cursor.clone().unwrap()).unwrap() else {
            panic!()
        };
        assert!(bus.replay(&Cursor::Topic(place.clone()).encode()).await.is_ok());
        let (partition, mark) = place.last.unwrap();
        place.last = Some((partition, !mark));
        assert!(matches!(bus.replay(&Cursor::Topic(place.clone()).encode()).await, Err(BusError::Expired)));
        place.last = None;
        assert!(bus.replay(&Cursor::Topic(place.clone()).encode()).await.is_ok());
        place.topic += 1;
        assert!(matches!(bus.replay(&Cursor::Topic(place.clone()).encode()).await, Err(BusError::Expired)));
        // a cursor of an earlier version
        place.topic = 0;
        assert!(bus.replay(&Cursor::Topic(place).encode()).await.is_ok());
    }
    one.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing_and_leaves_no_gap() {
    let Some(mut broker) = Broker::start().await else { return };
    let bus = Arc::new(join(broker.options()).await);
    let start = bus.head().await.unwrap();
    let mut live = bus.live();
    let all = events(20, 100);
    let (sender, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let (dead, is_dead) = tokio::sync::oneshot::channel();
    // as the relay does: a batch again and again until it is through
    let writer = tokio::spawn({
        let (bus, all) = (bus.clone(), all.clone());
        async move {
            let mut failures = 0;
            let mut is_dead = Some(is_dead);
            for (at, batch) in all.chunks(20).enumerate() {
                // the rest comes after the fault, however late that is
                if at == 40 {
                    is_dead.take().unwrap().await.unwrap();
                }
                while let Err(error) = bus.publish(batch).await {
                    assert!(matches!(error, BusError::Unavailable(_)), "{error}");
                    failures += 1;
                }
                sender.send(batch.len()).unwrap();
            }
            failures
        }
    });
    for _ in 0..20 {
        acknowledged.recv().await.unwrap();
    }
    broker.kill();
    dead.send(()).unwrap();
    let killed = Instant::now();
    let lone = event("lone", 1);
    assert!(bus.publish(std::slice::from_ref(&lone)).await.is_err(), "nobody acknowledged it");
    assert!(killed.elapsed() < Duration::from_secs(15), "a publish fails in time: {:?}", killed.elapsed());
    assert!(bus.ping().await.is_err());
    assert!(bus.head().await.is_ok(), "the head is known here");
    broker.launch();
    broker.answers().await;
    let failures = writer.await.unwrap();
    assert!(failures > 0, "the outage was seen");

    let expected = ids(&all);
    let mut seen = Vec::new();
    while !expected.is_subset(&ids(&seen)) {
        seen.extend(receive(&mut live, 1).await);
    }
    let of_writer: Vec<Envelope> = seen.into_iter().filter(|event| event.key != "lone").collect();
    assert_in_order(&of_writer);
    assert_eq!(of_writer.len(), 2_000, "repetitions are left out");
    assert_eq!(*bus.gaps().borrow(), 1, "no gap but the joining");
    bus.ping().await.unwrap();

    // the topic itself tells the same to one who comes later
    let later = join(broker.options()).await;
    let mut replayed = Vec::new();
    let mut stream = later.replay(&start).await.unwrap();
    while !expected.is_subset(&ids(&replayed)) {
        replayed.push((*tokio::time::timeout(WAIT, stream.next()).await.unwrap().unwrap().unwrap()).clone());
    }
    replayed.retain(|event| event.key != "lone");
    assert_in_order(without_repeats(&replayed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_starts_without_a_broker() {
    let Some(mut broker) = Broker::start().await else { return };
    broker.kill();
    let bus = KafkaBus::start(broker.options()).unwrap();
    assert!(matches!(bus.head().await, Err(BusError::Unavailable(_))));
    assert!(matches!(bus.publish(&[event("a", 1)]).await, Err(BusError::Unavailable(_))));
    broker.launch();
    joined(&bus).await;
    let mut live = bus.live();
    publish(&bus, &[event("b", 1)]).await;
    while receive(&mut live, 1).await[0].key != "b" {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_a_gap() {
    let Some(broker) = Broker::start().await else { return };
    let bus = join(broker.options()).await;
    let mut live = bus.live();
    publish(&bus, &events(30, 10)).await;
    // a cursor from before they arrived here would be the beginning of any topic
    receive(&mut live, 300).await;
    let old = bus.head().await.unwrap();
    let mut reader = bus.replay(&old).await.unwrap();
    let admin: rdkafka::admin::AdminClient<Quiet> =
        config::client(&broker.options()).create_with_context(Quiet).unwrap();
    admin.delete_topics(&["shop.changes"], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let mut gaps = bus.gaps();
    tokio::time::timeout(WAIT, gaps.wait_for(|gaps| *gaps > 1)).await.expect("the gap in time").unwrap();
    assert!(matches!(tokio::time::timeout(WAIT, reader.next()).await.unwrap(), Some(Err(BusError::Expired))));
    let next = event("after", 1);
    let deadline = Instant::now() + WAIT;
    while bus.publish(std::slice::from_ref(&next)).await.is_err() {
        assert!(Instant::now() < deadline, "the topic was made anew");
    }
    while receive(&mut live, 1).await[0].id != next.id {}
    assert!(matches!(bus.replay(&old).await, Err(BusError::Expired)));
}

/// Nobody was there to see it go, and it has more records than before: only its id tells that it is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_and_grew_past_a_cursor_is_another_one() {
    let Some(broker) = Broker::start().await else { return };
    let bus = join(broker.options()).await;
    let mut live = bus.live();
    publish(&bus, &events(30, 2)).await;
    receive(&mut live, 60).await;
    let old = bus.head().await.unwrap();
    assert!(bus.replay(&old).await.is_ok());
    let admin: rdkafka::admin::AdminClient<Quiet> =
        config::client(&broker.options()).create_with_context(Quiet).unwrap();
    let idle = join(KafkaOptions { check_interval: Duration::from_secs(2), ..broker.options() }).await;
    // it sees nothing of what happens
    let (mut gaps, position) = (idle.gaps(), idle.head().await.unwrap());
    bus.close().await;
    admin.delete_topics(&["shop.changes"], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let next = join(broker.options()).await;
    let all = events(30, 20);
    for batch in all.chunks(100) {
        let deadline = Instant::now() + WAIT;
        while next.publish(batch).await.is_err() {
            assert!(Instant::now() < deadline, "the topic was made anew");
        }
    }
    assert!(
        matches!(next.replay(&old).await, Err(BusError::Expired)),
        "32 events would be missing in silence"
    );
    // a replica that followed the former topic says so, and serves the new one from its beginning
    tokio::time::timeout(WAIT, gaps.wait_for(|gaps| *gaps > 1)).await.expect("the gap in time").unwrap();
    assert!(matches!(idle.replay(&position).await, Err(BusError::Expired)));
    let start = idle.oldest().await.unwrap();
    assert!(ids(&all).is_subset(&ids(&take(&idle, &start, 600).await)));
}

/// What a relay publishes again after a crash stands behind what readers have: it is told to nobody twice,
/// also after a restart, from the ring or the topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_repeats_after_a_crash_is_not_told_again() {
    let Some(broker) = Broker::start().await else { return };
    let (crashed, late) = (events(5, 9), event("late", 1));
    let bus = join(broker.options()).await;
    let mut live = bus.live();
    publish(&bus, &crashed).await;
    let seen = receive(&mut live, 45).await;
    let cursor = seen[44].cursor.clone().unwrap();
    bus.close().await;
    // the process that comes after it publishes again what was not confirmed
    let (next, small) =
        (join(broker.options()).await, join(KafkaOptions { ring_events: 1, ..broker.options() }).await);
    let mut live = next.live();
    publish(&next, &crashed[5..]).await;
    publish(&next, std::slice::from_ref(&late)).await;
    assert_eq!(receive(&mut live, 1).await[0].id, late.id, "a live reader");
    until("the small one has all", async || {
        small.feed.ring.lock().as_ref().unwrap().place().at
            == next.feed.ring.lock().as_ref().unwrap().place().at
    })
    .await;
    for bus in [&next, &small] {
        assert_eq!(take(bus, &cursor, 1).await[0].id, late.id, "a reader who returns");
        // in the middle of what is repeated: the rest once
        let middle = seen[20].cursor.clone().unwrap();
        let rest = take(bus, &middle, 25).await;
        assert_eq!(ids(&rest), ids(seen[21..].iter().chain([&late])));
        assert_in_order(&rest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_partitions_are_read_from_their_beginning() {
    let Some(broker) = Broker::start().await else { return };
    let bus = join(broker.options()).await;
    let (start, mut live) = (bus.head().await.unwrap(), bus.live());
    publish(&bus, &events(30, 2)).await;
    let admin: rdkafka::admin::AdminClient<Quiet> =
        config::client(&broker.options()).create_with_context(Quiet).unwrap();
    let more = rdkafka::admin::NewPartitions::new("shop.changes", 12);
    admin.create_partitions([&more], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    until("the partitions are there", async || bus.feed.ring.lock().as_ref().unwrap().position().len() == 12)
        .await;
    let writer = KafkaBus::start(broker.options()).unwrap();
    publish(&writer, &events(60, 2)).await;
    let seen = receive(&mut live, 180).await;
    assert_eq!(ids(&seen).len(), 180);
    assert_eq!(*bus.gaps().borrow(), 1);
    assert_eq!(ids(&take(&bus, &start, 180).await), ids(&seen), "also by a cursor from before");
}
