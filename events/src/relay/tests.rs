//! The relay against an outbox and a bus that fail on purpose.

use tokio::task::JoinHandle;

use super::*;
use crate::testing::{FakeBus, FakeOutbox, assert_in_order, events, without_repeats};
use ::testing::until;

struct Running {
    meter: Arc<RelayMeter>,
    poke: Arc<Notify>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn quick() -> RelayOptions {
    RelayOptions {
        name: String::new(),
        batch: 10,
        lease: Duration::from_millis(200),
        publish: Duration::from_millis(50),
        poll: Duration::from_millis(20),
        pace: Duration::ZERO,
        linger: Duration::from_millis(5),
        blocked_min: Duration::from_millis(2),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
        measure: Duration::from_millis(5),
        drain: Duration::from_secs(60),
        owner: None,
    }
}

fn start(outbox: &Arc<FakeOutbox>, bus: &Arc<FakeBus>, options: RelayOptions) -> Running {
    let poke = Arc::new(Notify::new());
    let relay = Relay::new(outbox.clone(), bus.clone(), poke.clone(), options);
    let (meter, shutdown) = (relay.meter(), CancellationToken::new());
    let task = tokio::spawn(relay.run(shutdown.clone()));
    Running { meter, poke, shutdown, task }
}

/// What the relay says that waits.
fn waiting(relay: &Running) -> Option<u64> {
    relay.meter.figures().backlog.map(|backlog| backlog.events)
}

#[tokio::test]
async fn a_poke_is_enough_and_the_order_is_kept() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let relay = start(&outbox, &bus, RelayOptions { poll: Duration::from_secs(3_600), ..quick() });
    for committed in events(7, 30).chunks(35) {
        outbox.commit(committed);
        relay.poke.notify_one();
        until("the outbox is empty", async || outbox.is_empty()).await;
    }
    let log = bus.log();
    assert_eq!(log.len(), 210);
    assert_in_order(&log);
    assert_eq!(relay.meter.figures().published, 210);
    assert_eq!(relay.meter.figures().failures, 0);
}

#[tokio::test]
async fn events_are_found_without_a_poke() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let _relay = start(&outbox, &bus, quick());
    outbox.commit(&events(3, 5));
    until("the outbox is empty", async || outbox.is_empty()).await;
    assert_eq!(bus.log().len(), 15);
}

#[tokio::test]
async fn a_crash_between_publish_and_confirm_repeats_and_loses_nothing() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    outbox.stuck_at_confirm.store(true, Ordering::SeqCst);
    outbox.commit(&events(4, 25));
    let crashed = start(&outbox, &bus, quick());
    outbox.stuck.notified().await;
    crashed.task.abort();
    let first = bus.log().len();
    assert!([10, 20].contains(&first), "{first}: one batch, and perhaps the next, was published");

    outbox.stuck_at_confirm.store(false, Ordering::SeqCst);
    let _relay = start(&outbox, &bus, quick());
    until("the outbox is empty", async || outbox.is_empty()).await;
    let log = bus.log();
    assert_eq!(log.len(), first + 100, "what was not confirmed was published again");
    let once = without_repeats(&log);
    assert_eq!(once.len(), 100);
    assert_in_order(once);
}

#[tokio::test]
async fn a_bus_that_is_down_delays_events_only() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    bus.down.store(true, Ordering::SeqCst);
    let relay = start(&outbox, &bus, quick());
    let all = events(5, 40);
    outbox.commit(&all);
    until("the backlog is seen", async || waiting(&relay) == Some(200)).await;
    until("it tried again", async || relay.meter.figures().failures > 3).await;
    bus.down.store(false, Ordering::SeqCst);
    until("the outbox is empty", async || outbox.is_empty()).await;
    until("the backlog is gone", async || waiting(&relay) == Some(0)).await;
    let log = bus.log();
    let once = without_repeats(&log);
    assert_eq!(once.len(), 200);
    assert_in_order(once);
}

#[tokio::test]
async fn several_relays_share_an_outbox() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    // leases that do not end by themselves here: each event is then published once
    let options = RelayOptions { lease: Duration::from_secs(60), ..quick() };
    let _relays = [(); 3].map(|()| start(&outbox, &bus, options.clone()));
    for committed in events(20, 50).chunks(100) {
        outbox.commit(committed);
        tokio::task::yield_now().await;
    }
    until("the outbox is empty", async || outbox.is_empty()).await;
    let log = bus.log();
    assert_eq!(log.len(), 1_000);
    assert_in_order(&log);
}

#[tokio::test]
async fn shutdown_gives_up_claims() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let relay = start(&outbox, &bus, RelayOptions { lease: Duration::from_secs(3_600), ..quick() });
    outbox.commit(&events(2, 100));
    relay.shutdown.cancel();
    relay.task.await.unwrap();
    assert_eq!(outbox.claimed(), 0);
    assert!(outbox.is_empty(), "what waited was published first");
}

#[tokio::test]
async fn events_that_come_fast_go_together() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let options = RelayOptions { pace: Duration::from_millis(100), batch: 1_000, ..quick() };
    let relay = start(&outbox, &bus, options);
    let begun = Instant::now();
    for committed in events(10, 50).chunks(2) {
        outbox.commit(committed);
        relay.poke.notify_one();
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    until("the outbox is empty", async || outbox.is_empty()).await;
    assert_eq!(bus.log().len(), 500);
    let most = begun.elapsed().as_millis() as usize / 100 + 2;
    assert!(bus.publishes() <= most, "{} steps instead of {most} at most", bus.publishes());
}

/// A process that stood still past the end of its claim: another relay may have published these events and
/// later ones of the same keys.
#[tokio::test]
async fn a_claim_that_ends_before_a_publish_may_is_not_used() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let options = RelayOptions {
        lease: Duration::from_secs(15),
        publish: Duration::from_secs(6),
        batch: 100,
        ..quick()
    };
    for (left, is_late) in [(0, true), (5, true), (8, false), (15, false)] {
        *outbox.left.lock() = Some(Duration::from_secs(left));
        outbox.commit(&events(3, 2));
        let before = bus.publishes();
        let relay = Relay::new(outbox.clone(), bus.clone(), Arc::default(), options.clone());
        let step = relay.step(&mut None).await;
        assert_eq!(matches!(step, Err(StepError::Late)), is_late, "{left} s before it ends");
        assert_eq!(bus.publishes() > before, !is_late, "{left} s before it ends");
        outbox.release(&relay.owner).await.unwrap();
    }
    assert!(outbox.is_empty(), "what was late is published by the next claim");
}

/// The events of one replica must not wait for the other's next look, nor for its lease to end.
#[tokio::test]
async fn a_relay_without_work_gives_its_keys_to_the_other_at_once() {
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    let hour = Duration::from_secs(3_600);
    let slow = RelayOptions { lease: hour, poll: hour, ..quick() };
    let (one, two) = (start(&outbox, &bus, slow.clone()), start(&outbox, &bus, slow));
    for (round, relay) in [&one, &two, &one, &two].into_iter().enumerate() {
        outbox.commit(&events(5, 1));
        relay.poke.notify_one();
        until("the outbox is empty", async || outbox.is_empty()).await;
        assert_eq!(bus.log().len(), (round + 1) * 5);
    }
}

#[tokio::test]
async fn a_backlog_that_takes_long_to_count_is_counted_seldom() {
    const EACH: Duration = Duration::from_millis(20);
    let (outbox, bus) = (Arc::new(FakeOutbox::default()), Arc::new(FakeBus::new()));
    *outbox.counting.lock() = EACH;
    let began = Instant::now();
    let relay = start(&outbox, &bus, quick());
    assert_eq!(waiting(&relay), None, "nobody knows yet");
    until("it was counted twice", async || outbox.counted.load(Ordering::SeqCst) > 2).await;
    assert!(began.elapsed() >= 2 * 11 * EACH, "the third time after {:?}", began.elapsed());
}
