//! The embedded bus: order, restarts, repeats, retention.

use std::collections::HashSet;

use super::*;
use crate::testing::{assert_in_order, event, events};
use ::testing::{Folder, until};

async fn open(folder: &Folder) -> LocalBus {
    LocalBus::open(folder.path(), LocalOptions::default()).await.unwrap()
}

async fn take(bus: &LocalBus, since: &str, count: usize) -> Vec<Arc<Envelope>> {
    let stream = bus.replay(since).await.unwrap().take(count).map(Result::unwrap);
    tokio::time::timeout(Duration::from_secs(60), stream.collect()).await.expect("enough events")
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Envelope>) -> Vec<uuid::Uuid> {
    events.into_iter().map(|event| event.id).collect()
}

#[tokio::test]
async fn live_and_replay_show_the_same_events() {
    let folder = Folder::new();
    let bus = open(&folder).await;
    let (start, mut live) = (bus.head().await.unwrap(), bus.live());
    let published = events(3, 300);
    bus.publish(&published).await.unwrap();
    let replayed = take(&bus, &start, 900).await;
    assert_eq!(ids(replayed.iter().map(Arc::as_ref)), ids(&published));
    for expected in &replayed {
        let received = live.recv().await.unwrap();
        assert_eq!((received.id, &received.cursor), (expected.id, &expected.cursor));
        assert_eq!(received.data.as_ref().unwrap().get(), expected.data.as_ref().unwrap().get());
    }
    let middle = replayed[449].cursor.clone().unwrap();
    assert_eq!(ids(take(&bus, &middle, 450).await.iter().map(Arc::as_ref)), ids(&published[450..]));
    assert_eq!(bus.head().await.unwrap(), replayed[899].cursor.clone().unwrap());
    bus.ping().await.unwrap();
}

#[tokio::test]
async fn a_restart_keeps_events_and_repeats_are_left_out() {
    let folder = Folder::new();
    let published = events(4, 10);
    let start = {
        let bus = open(&folder).await;
        let start = bus.head().await.unwrap();
        let twice = [&published[..20], &published[10..20]].concat();
        bus.publish(&twice).await.unwrap();
        start
    };
    let bus = open(&folder).await;
    let mut live = bus.live();
    bus.publish(&published).await.unwrap();
    bus.publish(&published[..5]).await.unwrap();
    let replayed = take(&bus, &start, 40).await;
    assert_eq!(ids(replayed.iter().map(Arc::as_ref)), ids(&published));
    assert_eq!(bus.head().await.unwrap(), replayed[39].cursor.clone().unwrap());
    for expected in &published[20..] {
        assert_eq!(live.try_recv().unwrap().id, expected.id);
    }
    assert!(live.try_recv().is_err(), "what was there before was sent again");
}

#[tokio::test]
async fn an_event_that_was_committed_but_not_sent_goes_first() {
    let folder = Folder::new();
    let bus = open(&folder).await;
    let mut live = bus.live();
    let (lost, next) = (event("a", 1), event("a", 2));
    bus.feed.log.append(vec![lost.clone()], Timestamp::now()).await.unwrap();
    *bus.feed.unsent.lock().await = true;
    bus.publish(&[lost.clone(), next.clone()]).await.unwrap();
    assert_eq!(live.try_recv().unwrap().id, lost.id);
    assert_eq!(live.try_recv().unwrap().id, next.id);
    assert!(live.try_recv().is_err());
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said_so() {
    let folder = Folder::new();
    let options = LocalOptions { events_max: 10, ..LocalOptions::default() };
    let bus = LocalBus::open(folder.path(), options).await.unwrap();
    let start = bus.head().await.unwrap();
    bus.publish(&events(1, 30)).await.unwrap();
    let all = take(&bus, &start, 30).await;
    let mut reader = bus.replay(&start).await.unwrap();
    bus.feed.prune().await.unwrap();
    assert!(matches!(reader.next().await, Some(Err(BusError::Expired))), "a reader that fell behind");
    let cursor = |index: usize| all[index].cursor.clone().unwrap();
    assert!(matches!(bus.replay(&cursor(18)).await, Err(BusError::Expired)));
    assert_eq!(take(&bus, &cursor(19), 10).await.len(), 10);
    assert!(matches!(bus.replay("nonsense").await, Err(BusError::BadCursor)));

    // the same after a restart, also when nothing at all is left
    drop(bus);
    let options = LocalOptions { age_max: Duration::ZERO, ..LocalOptions::default() };
    let bus = LocalBus::open(folder.path(), options).await.unwrap();
    assert!(matches!(bus.replay(&cursor(18)).await, Err(BusError::Expired)));
    let later = || async { bus.feed.log.page(0, 1).await.unwrap().is_empty() };
    while !later().await {
        bus.feed.prune().await.unwrap();
    }
    assert!(matches!(bus.replay(&cursor(28)).await, Err(BusError::Expired)));
    // the event is gone, its place is not
    let is_last = |head: &str| {
        crate::has_reached(head, &cursor(29)).unwrap() && crate::has_reached(&cursor(29), head).unwrap()
    };
    assert!(is_last(&bus.head().await.unwrap()));
    let reopened = open(&folder).await;
    assert!(reopened.replay(&cursor(29)).await.is_ok());
    assert!(is_last(&reopened.head().await.unwrap()));

    let other = Folder::new();
    assert!(
        matches!(open(&other).await.replay(&cursor(29)).await, Err(BusError::Expired)),
        "another feed's cursor"
    );
}

/// What was published when this process's clock had not gone astray yet is not old now.
#[tokio::test]
async fn a_clock_that_is_days_ahead_drops_nothing() {
    let folder = Folder::new();
    let start = {
        let bus = open(&folder).await;
        let start = bus.head().await.unwrap();
        let before = Timestamp(Timestamp::now().0 - 8 * 24 * 3_600_000);
        bus.feed.log.append(events(1, 5), before).await.unwrap();
        start
    };
    let bus = open(&folder).await;
    bus.feed.prune().await.unwrap();
    assert_eq!(take(&bus, &start, 5).await.len(), 5);
}

/// The folder of a machine that was set back to a copy: what comes then has the numbers of what was lost.
#[tokio::test]
async fn a_log_that_was_restored_is_another_one_after_the_copy() {
    let (folder, copy) = (Folder::new(), Folder::new());
    let over = |from: &Folder, to: &Folder| {
        for file in std::fs::read_dir(from.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
        }
    };
    let bus = open(&folder).await;
    let start = bus.head().await.unwrap();
    bus.publish(&events(1, 10)).await.unwrap();
    drop(bus);
    over(&folder, &copy);
    let bus = open(&folder).await;
    bus.publish(&events(1, 10)).await.unwrap();
    let all = take(&bus, &start, 20).await;
    let cursor = |index: usize| all[index].cursor.clone().unwrap();
    let later = open(&copy).await;
    assert!(matches!(later.replay(&cursor(15)).await, Err(BusError::Expired)), "it is not there yet");
    later.publish(&events(1, 20)).await.unwrap();
    assert!(matches!(later.replay(&cursor(15)).await, Err(BusError::Expired)), "another event is there");
    assert_eq!(take(&later, &cursor(9), 20).await.len(), 20, "of before the copy");
    let Cursor::Local { feed, number, .. } = Cursor::decode(&cursor(15)).unwrap() else { unreachable!() };
    let unmarked = Cursor::Local { feed, number, mark: None }.encode();
    assert!(later.replay(&unmarked).await.is_ok(), "as earlier versions gave it, nobody can tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_join_while_events_are_published_miss_and_repeat_nothing() {
    let folder = Folder::new();
    let bus = Arc::new(open(&folder).await);
    let start = bus.head().await.unwrap();
    const WRITERS: usize = 4;
    const VERSIONS: u64 = 150;
    let total = WRITERS * 5 * VERSIONS as usize;
    let writers = (0..WRITERS).map(|writer| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for version in 1..=VERSIONS {
                let batch: Vec<_> = (0..5).map(|key| event(&format!("w{writer}-{key}"), version)).collect();
                bus.publish(&batch).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut readers = Vec::new();
    for reader in 0..8 {
        until("there is more", async || *bus.feed.head.borrow() >= reader * 200).await;
        let (bus, since) = (bus.clone(), bus.head().await.unwrap());
        readers.push(tokio::spawn(async move {
            let Cursor::Local { number, .. } = Cursor::decode(&since).unwrap() else { unreachable!() };
            (number as usize, take(&bus, &since, total - number as usize).await)
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let all = take(&bus, &start, total).await;
    assert_in_order(all.iter().map(Arc::as_ref));
    assert_eq!(all.iter().map(|event| event.id).collect::<HashSet<_>>().len(), total);
    for reader in readers {
        let (skipped, seen) = reader.await.unwrap();
        assert_eq!(ids(seen.iter().map(Arc::as_ref)), ids(all[skipped..].iter().map(Arc::as_ref)));
    }
}

#[tokio::test]
async fn a_published_event_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let bus = LocalBus::open(folder.path(), LocalOptions::default()).await.unwrap();
    let settings = bus.settings().await.unwrap();
    let told: Vec<_> = settings.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
    assert_eq!(told, [("synchronous", "FULL"), ("journal_mode", "wal")]);
}
