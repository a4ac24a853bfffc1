//! Logs: numbers without gaps whoever appends, and claims that one member has at a time.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use tokio::time::Instant;

use super::*;
use model::log::{Entry, EventLog, Group, Newest, Numbered};

const LONG: Duration = Duration::from_secs(30);
const GROUP: Group<'static> = Group { log: "changes", name: "readers" };
/// Nothing is older.
const EVER: Timestamp = Timestamp(0);

fn entry(part: i64, text: &str) -> Entry {
    Entry { id: Uuid::now_v7(), part, text: text.to_owned() }
}

async fn all(log: &dyn EventLog) -> Vec<Numbered> {
    log.page("changes", 1, None, 100_000).await.unwrap().entries
}

fn numbers(entries: &[Numbered]) -> Vec<u64> {
    entries.iter().map(|entry| entry.number).collect()
}

pub async fn entries_are_numbered_from_one_and_once_each(target: &Target) {
    let log = target.store.event_log();
    assert_eq!(log.identity().await.unwrap(), target.store.identity().await.unwrap().id);
    assert_eq!((log.newest("changes").await.unwrap(), log.oldest("changes").await.unwrap()), (None, 0));
    assert!(all(&*log).await.is_empty());
    let (one, two, three) = (entry(0, "one"), entry(1, "two ✓"), entry(2, ""));
    log.append("changes", &[one.clone(), two.clone()]).await.unwrap();
    // what is there stays where it is
    log.append("changes", &[two.clone(), three.clone(), one.clone()]).await.unwrap();
    log.append("others", &[entry(0, "of another log")]).await.unwrap();
    let there = all(&*log).await;
    assert_eq!(numbers(&there), [1, 2, 3]);
    assert_eq!(there.iter().map(|one| one.entry.clone()).collect::<Vec<_>>(), [one, two, three.clone()]);
    let newest = log.newest("changes").await.unwrap().unwrap();
    assert_eq!(newest, Newest { number: 3, id: three.id, at: newest.at });
    assert!((newest.at.0 - target.store.now().await.unwrap().0).abs() < 10_000, "by the store's clock");
    let page = log.page("changes", 2, Some(&[0, 2]), 10).await.unwrap();
    assert_eq!((numbers(&page.entries), page.more), (vec![3], false));
    let page = log.page("changes", 1, None, 2).await.unwrap();
    assert_eq!((numbers(&page.entries), page.more), (vec![1, 2], true));
    assert_eq!(log.count("changes", &[(0, 0), (1, 2), (2, 1)]).await.unwrap(), 2);
}

/// Whoever reads while others append sees each number after all before it, and each writer's own order.
pub async fn numbers_have_no_gaps_whoever_appends(target: &Target) {
    const WRITERS: i64 = 4;
    const ROUNDS: usize = 10;
    let others = [target.again().await, target.again().await];
    let write = async {
        let writers = (0..WRITERS).map(|writer| {
            let log = others[writer as usize % others.len()].store.event_log();
            async move {
                for round in 0..ROUNDS {
                    let entries: Vec<Entry> =
                        (0..3).map(|n| entry(writer, &format!("{round}.{n}"))).collect();
                    // given up where the others are in the way for long: the same again
                    while log.append("changes", &entries).await.is_err() {}
                }
            }
        });
        join_all(writers).await;
    };
    let read = async {
        let (log, mut seen) = (target.store.event_log(), Vec::<Numbered>::new());
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.len() < WRITERS as usize * ROUNDS * 3 {
            assert!(Instant::now() < deadline, "{} came", seen.len());
            let from = seen.len() as u64 + 1;
            seen.extend(log.page("changes", from, None, 7).await.unwrap().entries);
            assert_eq!(numbers(&seen), (1..=seen.len() as u64).collect::<Vec<_>>());
        }
        seen
    };
    let ((), seen) = tokio::join!(write, read);
    for writer in 0..WRITERS {
        let own = seen.iter().filter(|one| one.entry.part == writer).map(|one| one.entry.text.clone());
        let sent = (0..ROUNDS).flat_map(|round| (0..3).map(move |n| format!("{round}.{n}")));
        assert_eq!(own.collect::<Vec<_>>(), sent.collect::<Vec<_>>());
    }
}

pub async fn large_entries_come_in_several_pages(target: &Target) {
    let (log, text) = (target.store.event_log(), "x".repeat(700_000));
    let entries: Vec<Entry> = (0..9).map(|_| entry(0, &text)).collect();
    log.append("changes", &entries).await.unwrap();
    let first = log.page("changes", 1, None, 100).await.unwrap();
    assert!(first.more && first.entries.len() < 9, "{}", first.entries.len());
    let rest = log.page("changes", first.entries.len() as u64 + 1, None, 100).await.unwrap();
    assert_eq!(first.entries.len() + rest.entries.len(), 9);
}

pub async fn the_oldest_go_and_the_newest_stays(target: &Target) {
    let log = target.store.event_log();
    let entries: Vec<Entry> = (0..1_500).map(|n| entry(n % 3, "x")).collect();
    log.append("changes", &entries).await.unwrap();
    log.append("others", &[entry(0, "of another log")]).await.unwrap();
    while log.prune("changes", 10, EVER).await.unwrap() {}
    assert_eq!((log.oldest("changes").await.unwrap(), all(&*log).await.len()), (11, 1_490));
    assert_eq!(log.count("changes", &[(0, 0), (1, 0), (2, 0)]).await.unwrap(), 1_490);
    let later = Timestamp(log.newest("changes").await.unwrap().unwrap().at.0 + 1);
    assert!(log.prune("changes", 0, later).await.unwrap(), "so many do not go at once");
    while log.prune("changes", 0, later).await.unwrap() {}
    assert_eq!(numbers(&all(&*log).await), [1_500], "numbers go on from there");
    log.append("changes", &[entry(0, "next")]).await.unwrap();
    assert_eq!(numbers(&all(&*log).await), [1_500, 1_501]);
    assert_eq!(log.oldest("others").await.unwrap(), 1);
}

pub async fn a_part_is_one_members_at_a_time(target: &Target) {
    let (mine, theirs) = (target.store.event_log(), target.again().await.store.event_log());
    assert_eq!(mine.claim(GROUP, 3, "a", LONG).await.unwrap(), Some(0));
    assert_eq!(theirs.claim(GROUP, 3, "b", LONG).await.unwrap(), None);
    assert_eq!(mine.keep(GROUP, "a", LONG, &[(3, 7)]).await.unwrap(), [3]);
    assert!(theirs.keep(GROUP, "b", LONG, &[(3, 99)]).await.unwrap().is_empty());
    assert_eq!(mine.claim(GROUP, 3, "a", LONG).await.unwrap(), Some(7), "again");
    let other = Group { name: "others", ..GROUP };
    assert_eq!(theirs.claim(other, 3, "b", LONG).await.unwrap(), Some(0), "another group's own");
    let claims = theirs.claims(GROUP).await.unwrap();
    let told: Vec<_> = claims.iter().map(|one| (one.part, &*one.owner, one.lasts, one.position)).collect();
    assert_eq!(told, [(3, "a", true, 7)]);
    mine.claim(GROUP, -5, "a", LONG).await.unwrap();
    mine.release(GROUP, "a", &[(3, 9), (-5, 0)]).await.unwrap();
    assert!(!theirs.claims(GROUP).await.unwrap().iter().any(|one| one.lasts || one.part < 0));
    assert_eq!(theirs.claim(GROUP, 3, "b", LONG).await.unwrap(), Some(9), "it goes on where the other was");
    assert!(mine.keep(GROUP, "a", LONG, &[(3, 1)]).await.unwrap().is_empty(), "too late");
    assert_eq!(theirs.claim(GROUP, 3, "b", LONG).await.unwrap(), Some(9));
}

pub async fn a_claim_that_ran_out_is_taken_over_by_one(target: &Target) {
    let others = [target.again().await, target.again().await, target.again().await];
    let lease = Duration::from_millis(300);
    let begun = Instant::now();
    target.store.event_log().claim(GROUP, 0, "crashed", lease).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let owners = loop {
        let claims = others.iter().enumerate().map(|(n, other)| async move {
            // whoever was in another's way has nothing
            other.store.event_log().claim(GROUP, 0, &format!("o{n}"), LONG).await.ok().flatten()
        });
        let got = join_all(claims).await;
        let owners: BTreeSet<usize> = (0..others.len()).filter(|n| got[*n].is_some()).collect();
        if !owners.is_empty() {
            break owners;
        }
        assert!(Instant::now() < deadline, "never taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(begun.elapsed() >= lease - Duration::from_millis(5), "taken over too early");
    assert_eq!(owners.len(), 1);
}
