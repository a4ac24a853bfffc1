//! The bus in a store: two replicas over one log, what they share and what they take over.

use std::{collections::HashSet, sync::atomic::Ordering};

use super::{testing::FakeLog, *};
use crate::{
    consumer::{Content, Delivery},
    testing::{assert_in_order, event, events, without_repeats},
};
use ::testing::until;

const LEASE_SHORT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> StoredOptions {
    StoredOptions { lease: LEASE_SHORT, ..StoredOptions::new("changes", "shop.") }
}

/// A bus that has found its log.
async fn bus(log: &FakeLog) -> StoreBus {
    let bus = StoreBus::start(Arc::new(log.clone()), options());
    until("the log is found", async || bus.head().await.is_ok()).await;
    bus
}

async fn take(bus: &StoreBus, since: &str, count: usize) -> Vec<Arc<Envelope>> {
    let stream = bus.replay(since).await.unwrap().take(count).map(Result::unwrap);
    timeout(PATIENCE, stream.collect()).await.expect("enough events")
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> Vec<uuid::Uuid> {
    events.into_iter().map(|event| event.id).collect()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(PATIENCE, consumer.next()).await.expect("a delivery").unwrap()
}

fn event_in(delivery: &Delivery) -> Envelope {
    match &delivery.content {
        Content::Event(event) => Envelope::clone(event),
        Content::Poison { error, .. } => panic!("{error}"),
    }
}

#[tokio::test]
async fn replicas_see_the_same_events_with_the_same_cursors() {
    let log = FakeLog::default();
    let (one, two) = (bus(&log).await, bus(&log.again()).await);
    let start = one.head().await.unwrap();
    let (mut live_one, mut live_two) = (one.live(), two.live());
    let published = events(3, 300);
    one.publish(&published[..450]).await.unwrap();
    two.publish(&published[450..]).await.unwrap();
    // what is there already is left out
    two.publish(&published[..500]).await.unwrap();
    let replayed = take(&two, &start, 900).await;
    assert_eq!(ids(replayed.iter().map(Arc::as_ref)), ids(&published));
    for expected in &replayed {
        for live in [&mut live_one, &mut live_two] {
            let received = timeout(PATIENCE, live.recv()).await.unwrap().unwrap();
            assert_eq!((received.id, &received.cursor), (expected.id, &expected.cursor));
        }
    }
    let middle = replayed[449].cursor.clone().unwrap();
    assert_eq!(ids(take(&one, &middle, 450).await.iter().map(Arc::as_ref)), ids(&published[450..]));
    assert_eq!(one.head().await.unwrap(), two.head().await.unwrap());
    assert!(crate::has_reached(&one.head().await.unwrap(), &middle).unwrap());
}

#[tokio::test]
async fn what_another_publishes_comes_within_the_interval() {
    let log = FakeLog::default();
    let (one, two) = (bus(&log).await, bus(&log.again()).await);
    let mut live = two.live();
    let mut longest = Duration::ZERO;
    for version in 1..=10 {
        let begun = Instant::now();
        one.publish(&[event("lamp", version)]).await.unwrap();
        timeout(PATIENCE, live.recv()).await.unwrap().unwrap();
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < 4 * POLL, "{longest:?}");
}

#[tokio::test]
async fn a_large_record_is_left_out_of_its_event() {
    let bus = bus(&FakeLog::default()).await;
    let start = bus.head().await.unwrap();
    let mut large = event("lamp", 1);
    let text = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
    large.data = Some(serde_json::value::RawValue::from_string(text).unwrap());
    bus.publish(&[large.clone()]).await.unwrap();
    let seen = take(&bus, &start, 1).await;
    assert_eq!((seen[0].id, seen[0].data.is_none()), (large.id, true));
}

#[tokio::test]
async fn a_cursor_goes_on_until_what_follows_it_is_gone() {
    let log = FakeLog::default();
    let bus = bus(&log).await;
    let start = bus.head().await.unwrap();
    bus.publish(&events(1, 10)).await.unwrap();
    let all = take(&bus, &start, 10).await;
    let cursor = |at: usize| all[at].cursor.clone().unwrap();
    log.prune("changes", 5, Timestamp(0)).await.unwrap();
    assert_eq!(take(&bus, &bus.oldest().await.unwrap(), 5).await.len(), 5);
    assert_eq!(take(&bus, &cursor(4), 5).await.len(), 5, "its own event is gone, none after it is");
    for gone in [&start, &cursor(3)] {
        assert!(matches!(bus.replay(gone).await.err(), Some(BusError::Expired)), "{gone}");
    }
    let ahead = Cursor::decode(&cursor(9)).unwrap();
    let Cursor::Local { feed, number, .. } = ahead else { panic!("{ahead:?}") };
    for other in [
        Cursor::Local { feed, number: number + 1, mark: None },
        Cursor::Local { feed, number, mark: Some(0) },
        Cursor::Local { feed: feed ^ 1, number, mark: None },
    ] {
        assert!(matches!(bus.replay(&other.encode()).await.err(), Some(BusError::Expired)), "{other:?}");
    }
    assert!(matches!(bus.replay("?").await.err(), Some(BusError::BadCursor)));
}

#[tokio::test]
async fn a_log_that_was_made_anew_is_a_gap() {
    let log = FakeLog::default();
    let bus = bus(&log).await;
    let (mut gaps, mut live) = (bus.gaps(), bus.live());
    let start = bus.head().await.unwrap();
    bus.publish(&events(1, 10)).await.unwrap();
    let mut reader = bus.replay(&start).await.unwrap();
    for _ in 0..10 {
        timeout(PATIENCE, live.recv()).await.unwrap().unwrap();
        timeout(PATIENCE, reader.next()).await.unwrap().unwrap().unwrap();
    }
    let before = *gaps.borrow_and_update();
    log.shared.lock().logs.clear();
    bus.publish(&events(2, 10)).await.unwrap();
    timeout(PATIENCE, gaps.wait_for(|gaps| *gaps > before)).await.unwrap().unwrap();
    let told = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
    assert!(matches!(told, Err(BusError::Expired)), "{told:?}");
    until("the feed goes on", async || bus.replay(&bus.head().await.unwrap()).await.is_ok()).await;
}

#[tokio::test]
async fn old_events_go() {
    let log = FakeLog::default();
    let few = StoredOptions { events_max: 20, prune_interval: Duration::from_millis(20), ..options() };
    let bus = StoreBus::start(Arc::new(log.clone()), few);
    bus.publish(&events(5, 10)).await.unwrap();
    until("30 are gone", async || log.oldest("changes").await.unwrap() == 31).await;
}

#[tokio::test]
async fn members_share_and_each_event_comes_once_and_in_order() {
    let log = FakeLog::default();
    let (one, two) = (bus(&log).await, bus(&log.again()).await);
    let published = events(40, 5);
    one.publish(&published).await.unwrap();
    one.publish(&[Envelope { entity: "user".to_owned(), ..event("u", 1) }]).await.unwrap();
    let mut members =
        [one.consume("orders", "product").await.unwrap(), two.consume("orders", "product").await.unwrap()];
    let mut seen: [Vec<Envelope>; 2] = Default::default();
    let both = async {
        while without_repeats(&seen.concat()).len() < published.len() {
            for (member, seen) in members.iter_mut().zip(&mut seen) {
                if let Ok(delivery) = timeout(Duration::from_millis(20), member.next()).await {
                    let delivery = delivery.unwrap();
                    seen.push(event_in(&delivery));
                    delivery.ticket.seen_to();
                }
            }
        }
    };
    timeout(PATIENCE, both).await.expect("all events");
    seen.iter().for_each(|seen| assert_in_order(without_repeats(seen)));
    until("both have parts and have noted that all is seen to", async || {
        for member in &mut members {
            // what moved to another member may come to it once more
            if let Ok(again) = timeout(Duration::from_millis(20), member.next()).await {
                again.unwrap().ticket.seen_to();
            }
        }
        let claims = log.claims(model::log::Group { log: "changes", name: "shop.orders" }).await.unwrap();
        let parts: Vec<_> = claims.iter().filter(|one| one.part >= 0).collect();
        let owners: HashSet<_> = parts.iter().map(|one| &one.owner).collect();
        owners.len() == 2 && parts.iter().all(|one| one.position == 201)
    })
    .await;
}

#[tokio::test]
async fn what_was_not_seen_to_comes_again_after_a_member_left() {
    let log = FakeLog::default();
    let bus = bus(&log).await;
    bus.publish(&events(1, 6)).await.unwrap();
    let mut first = bus.consume("orders", "product").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(next(&mut first).await);
    }
    // the third is not seen to: the group goes on there, whatever came after it
    let third = held.remove(2);
    held.into_iter().for_each(|delivery| delivery.ticket.seen_to());
    let left = Instant::now();
    drop(first);
    let mut second = bus.consume("orders", "product").await.unwrap();
    let again = next(&mut second).await;
    assert_eq!(event_in(&again).version, 3);
    assert!(left.elapsed() < LEASE_SHORT * 3 / 4, "it gave its parts up: {:?}", left.elapsed());
    third.ticket.seen_to();
    again.ticket.seen_to();
    for version in 4..=6 {
        let delivery = next(&mut second).await;
        assert_eq!(event_in(&delivery).version, version);
        delivery.ticket.seen_to();
    }
}

#[tokio::test]
async fn the_parts_of_a_member_that_is_gone_are_taken_over() {
    let log = FakeLog::default();
    let gone = log.again();
    let (one, two) = (bus(&gone).await, bus(&log).await);
    two.publish(&events(1, 3)).await.unwrap();
    let mut first = one.consume("orders", "product").await.unwrap();
    next(&mut first).await.ticket.seen_to();
    let open = next(&mut first).await;
    let group = model::log::Group { log: "changes", name: "shop.orders" };
    until("the first is noted", async || {
        log.claims(group).await.unwrap().iter().any(|claim| claim.part >= 0 && claim.position == 1)
    })
    .await;
    let cut = Instant::now();
    gone.cut.store(true, Ordering::SeqCst);
    let mut second = two.consume("orders", "product").await.unwrap();
    let delivery = next(&mut second).await;
    assert_eq!(event_in(&delivery).version, 2, "from where it was seen to");
    assert!(cut.elapsed() > LEASE_SHORT / 3, "taken over too early: {:?}", cut.elapsed());
    // the third was on its way to the first member, which is told that it has no claim
    let late = timeout(Duration::from_millis(50), first.next()).await;
    assert!(!matches!(late, Ok(Ok(_))), "the claim is over");
    open.ticket.seen_to();
    delivery.ticket.seen_to();
    assert_eq!(event_in(&next(&mut second).await).version, 3);
}

#[tokio::test]
async fn a_group_that_is_behind_what_is_kept_goes_on_with_the_oldest() {
    let log = FakeLog::default();
    let bus = bus(&log).await;
    bus.publish(&events(1, 3)).await.unwrap();
    let mut first = bus.consume("orders", "product").await.unwrap();
    next(&mut first).await.ticket.seen_to();
    drop(first);
    bus.publish(&events(1, 10)).await.unwrap();
    log.prune("changes", 10, Timestamp(0)).await.unwrap();
    let mut second = bus.consume("orders", "product").await.unwrap();
    assert_eq!(event_in(&next(&mut second).await).version, 8);
}

#[tokio::test]
async fn what_is_no_event_is_told_with_its_place() {
    let log = FakeLog::default();
    let bus = bus(&log).await;
    let entry = Entry { id: uuid::Uuid::now_v7(), part: 0, text: "no event".to_owned() };
    log.append("changes", &[entry]).await.unwrap();
    let mut consumer = bus.consume("orders", "product").await.unwrap();
    let Content::Poison { place, text, .. } = next(&mut consumer).await.content else { panic!("an event") };
    assert_eq!((place.as_str(), text.as_str()), ("log/1", "no event"));
}
