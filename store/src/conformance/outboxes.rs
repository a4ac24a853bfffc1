//! The outbox: every change has its event, in order for each key, claimed by one owner at a time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::Instant;

use super::*;
use model::event::{Backlog, Envelope};

const LONG: Duration = Duration::from_secs(30);

fn ids(events: &[Envelope]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

pub async fn events_are_claimed_in_order_and_confirmed(target: &Target) {
    let (users, outbox) = (&target.users, target.store.outbox());
    assert_eq!(outbox.backlog().await.unwrap(), Backlog::default());
    assert!(outbox.claim("o", LONG, 10).await.unwrap().events.is_empty());
    target.one(create(users, "u", person("u@example.com", None))).await.unwrap();
    target.one(replace(users, "u", Guard::Any, person("v@example.com", None))).await.unwrap();
    assert!(target.one(replace(users, "u", exactly(1), person("w@example.com", None))).await.is_err());
    target.one(delete(users, "u", Guard::Any)).await.unwrap();
    assert_eq!(outbox.backlog().await.unwrap().events, 3, "what was refused has no event");

    let events = outbox.claim("o", LONG, 10).await.unwrap().events;
    let seen: Vec<(&str, &str, u64)> =
        events.iter().map(|event| (event.kind.as_str(), event.key.as_str(), event.version)).collect();
    assert_eq!(seen, [("user_created", "u", 1), ("user_updated", "u", 2), ("user_deleted", "u", 3)]);
    assert!(events[0].data.as_ref().unwrap().get().contains(r#""email":"u@example.com""#));
    assert!(events[2].data.is_none());
    assert!(events.iter().all(|event| event.entity == "user" && event.cursor.is_none()));
    assert!(events.iter().all(|event| event.owner.as_deref() == Some("u")), "also what was deleted");

    assert_eq!(
        ids(&outbox.claim("o", LONG, 2).await.unwrap().events),
        ids(&events[..2]),
        "the same until confirmed"
    );
    outbox.confirm("o", &[events[0].id, Uuid::now_v7()]).await.unwrap();
    assert_eq!(ids(&outbox.claim("o", LONG, 10).await.unwrap().events), ids(&events[1..]));
    outbox.confirm("o", &ids(&events[1..])).await.unwrap();
    outbox.confirm("o", &ids(&events)).await.unwrap();
    assert!(outbox.claim("o", LONG, 10).await.unwrap().events.is_empty());
    assert_eq!(outbox.backlog().await.unwrap(), Backlog::default());
}

pub async fn one_owner_relays_a_key_at_a_time(target: &Target) {
    let other = target.again().await;
    let (mine, theirs) = (target.store.outbox(), other.store.outbox());
    for version in 0..3 {
        target.one(upsert(&target.things, "k", Guard::Any, titled(&version.to_string()))).await.unwrap();
    }
    assert_eq!(mine.claim("a", LONG, 2).await.unwrap().events.len(), 2);
    assert!(theirs.claim("b", LONG, 10).await.unwrap().events.is_empty(), "the key is another owner's");
    assert!(mine.claim("c", LONG, 10).await.unwrap().events.is_empty(), "in the same process too");
    mine.release("a").await.unwrap();
    let events = theirs.claim("b", LONG, 10).await.unwrap().events;
    assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(mine.claim("a", LONG, 10).await.unwrap().events.is_empty());
    theirs.confirm("b", &ids(&events)).await.unwrap();
    assert_eq!(mine.backlog().await.unwrap().events, 0);
    target.one(upsert(&target.things, "k", Guard::Any, titled("later"))).await.unwrap();
    mine.confirm("a", &ids(&events[..2])).await.unwrap();
    assert_eq!(mine.backlog().await.unwrap().events, 1, "a late confirm is not of events that came since");
}

/// All find the lease free before anyone has taken it.
pub async fn of_many_who_claim_a_key_one_gets_it(target: &Target) {
    let others = [target.again().await, target.again().await, target.again().await];
    for round in 0..8 {
        target.one(create(&target.things, &format!("k{round}"), titled("x"))).await.unwrap();
        let owners: Vec<String> = (0..others.len()).map(|owner| format!("{round}-{owner}")).collect();
        let claims = others.iter().zip(&owners).map(|(other, owner)| async move {
            let claimed = other.store.outbox().claim(owner, LONG, 10).await;
            // whoever was in another's way has no event
            claimed.map_or(Vec::new(), |claimed| ids(&claimed.events))
        });
        let claimed = join_all(claims).await;
        let all: Vec<&Uuid> = claimed.iter().flatten().collect();
        assert_eq!(
            HashSet::<&Uuid>::from_iter(all.iter().copied()).len(),
            all.len(),
            "round {round}: {claimed:?}"
        );
        for ((other, owner), events) in others.iter().zip(&owners).zip(&claimed) {
            other.store.outbox().confirm(owner, events).await.unwrap();
            other.store.outbox().release(owner).await.unwrap();
        }
    }
    // none was left to nobody
    let left = target.store.outbox().claim("last", LONG, 10).await.unwrap().events;
    target.store.outbox().confirm("last", &ids(&left)).await.unwrap();
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 0);
}

pub async fn a_lease_that_ran_out_is_taken_over(target: &Target) {
    let other = target.again().await;
    target.one(create(&target.things, "k", titled("x"))).await.unwrap();
    let lease = Duration::from_millis(300);
    let claimed_at = Instant::now();
    let first = target.store.outbox().claim("crashed", lease, 10).await.unwrap().events;
    assert_eq!(first.len(), 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let events = other.store.outbox().claim("next", LONG, 10).await.unwrap().events;
        if !events.is_empty() {
            assert!(claimed_at.elapsed() >= lease - Duration::from_millis(5), "taken over too early");
            assert_eq!(ids(&events), ids(&first));
            break;
        }
        assert!(Instant::now() < deadline, "never taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(target.store.outbox().claim("crashed", lease, 10).await.unwrap().events.is_empty());
}

/// Two replicas relay while many write: each key's versions come once each and in order, as far as the owners
/// do not change.
pub async fn concurrent_writes_keep_the_order_of_each_key(target: &Target) {
    const KEYS: usize = 8;
    const ROUNDS: u64 = 12;
    let write = async {
        let writers = (0..KEYS * 2).map(|writer| async move {
            let key = format!("k{}", writer % KEYS);
            for round in 0..ROUNDS {
                target
                    .one(upsert(&target.things, &key, Guard::Any, titled(&format!("{writer}-{round}"))))
                    .await
                    .unwrap();
            }
        });
        join_all(writers).await;
    };
    let relay = async {
        let outbox = target.store.outbox();
        let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.values().map(Vec::len).sum::<usize>() < KEYS * 2 * ROUNDS as usize {
            assert!(Instant::now() < deadline, "{seen:?}");
            let events = outbox.claim("relay", LONG, 7).await.unwrap().events;
            outbox.confirm("relay", &ids(&events)).await.unwrap();
            for event in events {
                seen.entry(event.key).or_default().push(event.version);
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(write, relay);
    for (key, versions) in seen {
        assert_eq!(versions, (1..=2 * ROUNDS).collect::<Vec<_>>(), "{key}");
    }
}
