//! Idempotency keys and the audit: each request is done once, and each change is told in the same
//! transaction.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::*;
use model::{
    audit::{AuditEntry, AuditQuery},
    change::Idempotency,
};

fn keyed(key: &str, request: &str) -> Origin {
    let idempotency = Idempotency { key: key.to_owned(), request: request.to_owned() };
    Origin { idempotency: Some(idempotency), ..Origin::of("ann") }
}

/// A user whose key is made by this side, as for a create without an id.
async fn sign_up(target: &Target, email: &str, origin: &Origin) -> Result<Written, StoreError> {
    let action = Action::Create { values: person(email, None), fresh_key: true };
    let change = Change { collection: target.users.clone(), key: Key::generate(), action };
    Ok(target.store.commit(UnitOfWork::new(vec![change], origin)).await?.remove(0))
}

/// Relays everything that waits.
async fn relay(target: &Target) {
    let (outbox, deadline) = (target.store.outbox(), Instant::now() + Duration::from_secs(30));
    while outbox.backlog().await.unwrap().events > 0 {
        let events = outbox.claim("relay", Duration::from_secs(30), 100).await.unwrap().events;
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        outbox.confirm("relay", &ids).await.unwrap();
        assert!(Instant::now() < deadline, "the outbox is never empty");
    }
}

pub async fn a_repeated_request_gets_the_first_answer(target: &Target) {
    let origin = keyed("k1", "r1");
    let first = sign_up(target, "a@example.com", &origin).await.unwrap();
    assert!(first.created && !first.repeated);
    let again = Written { repeated: true, ..first.clone() };
    let key = origin.idempotency.clone().unwrap();
    // at once, after the event was relayed, after the record was changed, after it was deleted
    for round in 0..4 {
        assert_eq!(sign_up(target, "a@example.com", &origin).await.unwrap(), again, "round {round}");
        assert_eq!(
            target.store.recall(&target.users, &key).await.unwrap(),
            Some(vec![again.clone()]),
            "round {round}"
        );
        let reused = sign_up(target, "b@example.com", &keyed("k1", "r2")).await;
        assert!(matches!(reused, Err(StoreError::KeyReused)), "round {round}: {reused:?}");
        match round {
            0 => relay(target).await,
            1 => {
                let change =
                    replace(&target.users, first.key.as_str(), exactly(1), person("c@example.com", None));
                target.one(change).await.unwrap();
            }
            2 => _ = target.one(delete(&target.users, first.key.as_str(), Guard::Any)).await.unwrap(),
            _ => (),
        }
    }
    let unknown = Idempotency { key: "k2".to_owned(), request: "r1".to_owned() };
    assert_eq!(target.store.recall(&target.users, &unknown).await.unwrap(), None);
    let other = sign_up(target, "a@example.com", &keyed("k2", "r1")).await.unwrap();
    assert_ne!(other.key, first.key);
    // a change and a delete are told from their repeats just so
    let patched = replace(&target.users, other.key.as_str(), exactly(1), person("d@example.com", None));
    let unit = || UnitOfWork::new(vec![patched.clone()], &keyed("k3", "r3"));
    let done = target.store.commit(unit()).await.unwrap().remove(0);
    assert_eq!(target.store.commit(unit()).await.unwrap(), [Written { repeated: true, ..done }]);
    let gone =
        UnitOfWork::new(vec![delete(&target.users, other.key.as_str(), exactly(2))], &keyed("k4", "r4"));
    let done = target.store.commit(gone.clone()).await.unwrap().remove(0);
    assert_eq!(target.store.commit(gone).await.unwrap(), [Written { repeated: true, ..done }]);
}

pub async fn of_many_equal_requests_one_is_done(target: &Target) {
    const KEYS: usize = 12;
    const TIMES: usize = 8;
    let other = target.again().await;
    let requests = (0..KEYS * TIMES).map(|index| {
        let (target, number) = (if index % 2 == 0 { target } else { &other }, index % KEYS);
        async move {
            let origin = keyed(&format!("k{number}"), "r");
            sign_up(target, &format!("u{number}@example.com"), &origin).await.unwrap()
        }
    });
    let relaying = async {
        for _ in 0..20 {
            relay(target).await;
            tokio::task::yield_now().await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(requests), relaying);
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.key, answers[index % KEYS].key, "one key, two records");
        assert_eq!((answer.version, answer.created), (Version(1), true));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), KEYS);
    let all = model::query::Query {
        filter: model::query::Filter::All,
        order: Vec::new(),
        start: model::query::Start::Offset(0),
        limit: 100,
        count: true,
        allowance: model::budget::Allowance::default(),
    };
    assert_eq!(target.store.find(&target.users, &all).await.unwrap().records.len(), KEYS);
}

pub async fn a_key_whose_request_failed_can_be_tried_again(target: &Target) {
    target.one(create(&target.users, "taken", person("a@example.com", None))).await.unwrap();
    let origin = keyed("k", "r");
    let refused = sign_up(target, "a@example.com", &origin).await;
    assert!(matches!(refused, Err(StoreError::Duplicate { .. })), "{refused:?}");
    target.one(delete(&target.users, "taken", Guard::Any)).await.unwrap();
    let done = sign_up(target, "a@example.com", &origin).await.unwrap();
    assert!(!done.repeated);
    assert!(sign_up(target, "a@example.com", &origin).await.unwrap().repeated);
}

/// A refusal is no answer: the key is as if it never came, for this request and for others.
pub async fn a_key_whose_request_was_refused_is_free_for_another(target: &Target) {
    target.one(create(&target.users, "taken", person("a@example.com", None))).await.unwrap();
    let key = |request: &str| keyed("k", request);
    for _twice in 0..2 {
        let refused = sign_up(target, "a@example.com", &key("r1")).await;
        assert!(matches!(refused, Err(StoreError::Duplicate { .. })), "{refused:?}");
    }
    let stale = UnitOfWork::new(
        vec![replace(&target.users, "taken", exactly(7), person("x@example.com", None))],
        &key("r2"),
    );
    let refused = target.store.commit(stale).await;
    assert!(matches!(refused, Err(StoreError::Stale { .. })), "{refused:?}");
    assert_eq!(target.store.recall(&target.users, &key("r3").idempotency.unwrap()).await.unwrap(), None);
    let done = sign_up(target, "b@example.com", &key("r3")).await.unwrap();
    assert!(!done.repeated);
    for round in 0..2 {
        assert_eq!(
            sign_up(target, "b@example.com", &key("r3")).await.unwrap(),
            Written { repeated: true, ..done.clone() }
        );
        let reused = sign_up(target, "c@example.com", &key("r1")).await;
        assert!(matches!(reused, Err(StoreError::KeyReused)), "{round}: {reused:?}");
        relay(target).await;
    }
}

async fn audit(target: &Target, query: AuditQuery) -> Vec<AuditEntry> {
    let entities = match query.entities.is_empty() {
        true => vec!["user".to_owned(), "thing".to_owned()],
        false => query.entities,
    };
    let limit = if query.limit == 0 { 100 } else { query.limit };
    target.store.audit(&AuditQuery { entities, limit, ..query }).await.unwrap().entries
}

pub async fn every_change_has_its_audit_entry(target: &Target) {
    let mut row = titled("one");
    row.0[field::SECRET] = text("hidden");
    target.one(create(&target.things, "t", row.clone())).await.unwrap();
    row.0[field::TITLE] = text("two");
    target.one(replace(&target.things, "t", Guard::Any, row.clone())).await.unwrap();
    assert!(target.one(replace(&target.things, "t", exactly(1), row.clone())).await.is_err());
    assert!(target.one(create(&target.things, "t", row.clone())).await.is_err());
    target.one(delete(&target.things, "t", Guard::Any)).await.unwrap();
    // told twice by a relay that crashed between publishing and confirming
    let events = target.store.outbox().claim("crashed", Duration::from_secs(30), 100).await.unwrap().events;
    assert_eq!(events.len(), 3);
    target.store.outbox().release("crashed").await.unwrap();
    let at_once = audit(target, AuditQuery::default()).await;
    relay(target).await;
    let entries = audit(target, AuditQuery::default()).await;
    assert_eq!(
        format!("{at_once:?}"),
        format!("{entries:?}"),
        "an entry is there as soon as its change is committed"
    );
    let told: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.version, entry.id)).collect();
    assert_eq!(
        told,
        [("created", 1, events[0].id), ("updated", 2, events[1].id), ("deleted", 3, events[2].id)],
        "what failed is not told"
    );
    for (entry, event) in entries.iter().zip(&events) {
        assert_eq!(
            (entry.actor.as_str(), entry.entity.as_str(), entry.key.as_str()),
            ("tester", "thing", "t")
        );
        assert_eq!(entry.at, event.at);
        assert_eq!(entry.after.as_ref().map(|json| json.get()), event.data.as_ref().map(|json| json.get()));
    }
    let before: Vec<_> =
        entries.iter().map(|entry| entry.before.as_ref().map(|json| json.get().to_owned())).collect();
    let after: Vec<_> =
        entries.iter().map(|entry| entry.after.as_ref().map(|json| json.get().to_owned())).collect();
    assert_eq!((&before[0], &before[1], &before[2], &after[2]), (&None, &after[0], &after[1], &None));
    for text in before.iter().chain(&after).flatten() {
        assert!(text.contains("\"secret\":\"***\"") && !text.contains("hidden"), "{text}");
    }
    let stored = target.at_rest().await;
    assert!(!stored.windows(6).any(|bytes| bytes == b"hidden"), "an encrypted value is readable at rest");
}

/// Creates that come at the same time may share a transaction: each hears of its own fault only, and is filed
/// under its own name.
pub async fn creates_at_the_same_time_are_none_of_each_others_business(target: &Target) {
    const CREATES: usize = 60;
    let creates = (0..CREATES).map(|index| {
        // one of two in five is taken by another's email
        let email = if index % 5 == 0 {
            format!("{}@example.com", index + 1)
        } else {
            format!("{index}@example.com")
        };
        let action = Action::Create { values: person(&email, None), fresh_key: true };
        let changes = vec![change(&target.users, &format!("u{index}"), action)];
        let work =
            UnitOfWork { changes, actor: format!("actor{}", index % 3), idempotency: None, deadline: None };
        target.store.commit(work)
    });
    let outcomes = join_all(creates).await;
    for pair in outcomes.chunks(5) {
        let done = pair[..2].iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(done, 1, "one of two with the same email: {pair:?}");
        let refused = pair[..2].iter().find_map(|outcome| outcome.as_ref().err());
        assert!(matches!(refused, Some(StoreError::Duplicate { field }) if field == "email"), "{refused:?}");
        assert!(pair[2..].iter().all(Result::is_ok), "{pair:?}");
    }
    let entries = audit(target, AuditQuery::default()).await;
    assert_eq!(entries.len(), outcomes.iter().filter(|outcome| outcome.is_ok()).count());
    for entry in entries {
        let index: usize = entry.key.trim_start_matches('u').parse().unwrap();
        assert_eq!(entry.actor, format!("actor{}", index % 3), "{entry:?}");
        assert!(matches!(target.lookup(&target.users, &format!("u{index}")).await, Lookup::Found(_)));
    }
}

pub async fn audit_entries_come_in_pages_by_filter(target: &Target) {
    for index in 0..7 {
        let user = person(&format!("{index}@example.com"), None);
        target.one(create(&target.users, &format!("u{index}"), user)).await.unwrap();
        if index == 4 {
            // some are relayed, some wait
            relay(target).await;
        }
    }
    let changes = vec![upsert(&target.things, "t", Guard::Any, titled("x"))];
    target.store.commit(UnitOfWork::new(changes, &Origin::of("bob"))).await.unwrap();
    let all = audit(target, AuditQuery::default()).await;
    assert_eq!(all.len(), 8);
    let ids = |entries: &[AuditEntry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = audit(target, AuditQuery { after, limit: 3, ..AuditQuery::default() }).await;
        let Some(last) = page.last() else { break };
        after = Some((last.at.parse().unwrap(), last.id));
        assert!(page.len() <= 3);
        seen.extend(ids(&page));
    }
    assert_eq!(seen, ids(&all));
    let some = |query| async { ids(&audit(target, query).await).len() };
    let of = |entity: &str| AuditQuery { entities: vec![entity.to_owned()], ..AuditQuery::default() };
    assert_eq!((some(of("user")).await, some(of("thing")).await, some(of("none")).await), (7, 1, 0));
    assert_eq!(some(AuditQuery { key: Some("u3".to_owned()), ..AuditQuery::default() }).await, 1);
    assert_eq!(some(AuditQuery { actor: Some("bob".to_owned()), ..AuditQuery::default() }).await, 1);
    let last: Timestamp = all[7].at.parse().unwrap();
    let since = |ms: i64| AuditQuery { since: Some(Timestamp(last.0 + ms)), ..AuditQuery::default() };
    assert!(some(since(0)).await >= 1);
    assert_eq!(some(since(1)).await, 0);
}

pub async fn audit_entries_end_where_their_memory_does(target: &Target) {
    let tags = json(&format!(r#"["{}"]"#, "x".repeat(9_000)));
    for index in 0..5 {
        let mut row = titled("large");
        row.0[field::TAGS] = tags.clone();
        target.one(create(&target.things, &format!("t{index}"), row)).await.unwrap();
    }
    relay(target).await;
    let budget = model::budget::Budget::new(60_000);
    let allowance = || model::budget::Allowance::of(&Arc::new(budget.share()));
    let query = || AuditQuery {
        entities: vec!["thing".to_owned()],
        limit: 5,
        allowance: allowance(),
        ..AuditQuery::default()
    };
    let found = target.store.audit(&query()).await.unwrap();
    assert!(found.more && (1..5).contains(&found.entries.len()), "{} entries", found.entries.len());
    budget.set_capacity(1_000);
    assert!(matches!(target.store.audit(&query()).await, Err(StoreError::Overloaded)));
}

/// By the clock of the store, and only when its author wants it: `prune` leaves them alone.
pub async fn audit_entries_go_at_their_age_and_no_sooner(target: &Target) {
    const KEPT: Duration = Duration::from_secs(48 * 3_600);
    for key in ["old", "young", "new"] {
        target.one(create(&target.things, key, titled("x"))).await.unwrap();
    }
    relay(target).await;
    for (key, hours) in [("old", 49), ("young", 47)] {
        age_entry(target, key, hours).await;
    }
    let keys = async || -> Vec<String> {
        let mut keys: Vec<String> =
            audit(target, AuditQuery::default()).await.into_iter().map(|entry| entry.key).collect();
        keys.sort();
        keys
    };
    target.store.prune().await.unwrap();
    assert_eq!(keys().await, ["new", "old", "young"], "nobody asked for them to go");
    assert_eq!(target.store.prune_audit(KEPT).await.unwrap(), 1);
    assert_eq!(keys().await, ["new", "young"]);
    assert_eq!(target.store.prune_audit(KEPT).await.unwrap(), 0, "what is younger stays");
    assert_eq!(
        found(target.lookup(&target.things, "old").await).version,
        Version(1),
        "the record is not its audit"
    );
}

/// Makes the entry of a record so many hours old, by the clock of the store.
async fn age_entry(target: &Target, key: &str, hours: i64) {
    let at = match &target.place {
        Place::Mongo { options } => {
            let ago = bson::DateTime::from_millis(target.store.now().await.unwrap().0 - hours * 3_600_000);
            let entries = documents::database(options).await.collection::<bson::Document>("flyweight_audit");
            let aged = bson::doc! { "$set": { "at": ago } };
            let done = entries.update_one(bson::doc! { "key": key }, aged).await.unwrap();
            return assert_eq!(done.matched_count, 1, "{key}");
        }
        Place::File(_) => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{hours} hours')"),
        Place::Mysql { .. } => format!("UTC_TIMESTAMP(3) - INTERVAL {hours} HOUR"),
    };
    sql::by_hand(target, &format!("UPDATE flyweight_audit SET at = {at} WHERE record_key = '{key}'")).await;
}
