//! What only MongoDB is asked: how documents look to people, collections of other programs, units over
//! several records.

use bson::{Bson, Document, doc, oid::ObjectId};
use futures::TryStreamExt;
use mongodb::{Client, Database};

use super::*;
use crate::mongo::tests::watched;
use model::{
    budget::Allowance,
    change::Idempotency,
    query::{Direction, Filter, Query, Start},
    schema::FieldRef,
};

pub async fn database(options: &MongoOptions) -> Database {
    Client::with_uri_str(&options.url).await.unwrap().database(&options.database)
}

/// Every document of the declared collection as text.
pub async fn dump(options: &MongoOptions) -> Vec<u8> {
    let things = database(options).await.collection::<Document>("things");
    let documents: Vec<Document> = things.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    format!("{documents:?}").into_bytes()
}

fn options(target: &Target) -> &MongoOptions {
    match &target.place {
        Place::Mongo { options } => options,
        _ => panic!("not MongoDB"),
    }
}

#[tokio::test]
async fn documents_are_queryable_by_people() {
    let Some(target) = Target::mongo().await else { return };
    let row = Row(vec![
        text("lamp"),
        Value::Int(7),
        decimal("19.90"),
        Value::Bool(true),
        time("2026-01-31T12:00:00.000Z"),
        json(r#"{"colour":"red","sizes":[1,2]}"#),
        Value::Null,
    ]);
    target.one(create(&target.things, "t", row)).await.unwrap();
    let things = database(options(&target)).await.collection::<Document>("things");
    let wanted = doc! { "tags.colour": "red", "tags.sizes": 2, "price": { "$gt": 19 }, "revision": 1 };
    let found = things.find_one(wanted).await.unwrap().unwrap();
    assert_eq!(found.get_str("_id").unwrap(), "t");
    assert!(matches!(found.get("price"), Some(Bson::Decimal128(_))));
    assert!(matches!(found.get("seen"), Some(Bson::DateTime(_))));
    assert!(!found.contains_key("secret"), "nothing is stored for nothing");
    // published events leave nothing behind
    let outbox = target.store.outbox();
    let events = outbox.claim("o", std::time::Duration::from_secs(10), 10).await.unwrap().events;
    outbox.confirm("o", &[events[0].id]).await.unwrap();
    let found = things.find_one(doc! { "_id": "t" }).await.unwrap().unwrap();
    assert!(found.keys().all(|name| !name.starts_with('_') || name == "_id"), "{found:?}");
    target.remove().await;
}

/// Each goes at its age and no sooner: 7 days for tombstones, 24 hours for answers, by the clock of the
/// server.
#[tokio::test]
async fn what_is_old_goes_at_its_age() {
    let Some(target) = Target::mongo().await else { return };
    let place = database(options(&target)).await;
    let ago = |hours: i64| bson::DateTime::from_millis(Timestamp::now().0 - hours * 3_600_000);
    for (key, hours) in [("young", 7 * 24 - 1), ("old", 7 * 24 + 1)] {
        target.one(create(&target.things, key, titled("x"))).await.unwrap();
        target.one(delete(&target.things, key, Guard::Any)).await.unwrap();
        let things = place.collection::<Document>("things");
        // one whose delete was not published stays, however old
        let aged = doc! { "$set": { "_deleted_at": ago(hours) } };
        things.update_one(doc! { "_id": key }, aged).await.unwrap();
    }
    assert_eq!(target.store.prune().await.unwrap(), 0);
    let outbox = target.store.outbox();
    let events = outbox.claim("o", std::time::Duration::from_secs(10), 10).await.unwrap().events;
    outbox.confirm("o", &events.iter().map(|event| event.id).collect::<Vec<_>>()).await.unwrap();
    let keys = place.collection::<Document>("flyweight_idempotency");
    for (key, hours) in [("young", 23), ("old", 25)] {
        let request = doc! { "_id": key, "request": "r", "record": "k", "at": ago(hours) };
        keys.insert_one(request).await.unwrap();
    }
    assert_eq!(target.store.prune().await.unwrap(), 2);
    assert_eq!(target.lookup(&target.things, "old").await, Lookup::Missing);
    assert_eq!(target.lookup(&target.things, "young").await, Lookup::Deleted(Version(2)));
    assert_eq!(keys.find_one(doc! {}).await.unwrap().unwrap().get_str("_id").unwrap(), "young");
    let apart = target.store.now().await.unwrap().0.abs_diff(Timestamp::now().0);
    assert!(apart < 60_000, "the server's time is {apart} ms apart");
    target.remove().await;
}

#[tokio::test]
async fn marks_that_a_crash_left_keep_no_later_event_back() {
    let Some(target) = Target::mongo().await else { return };
    let (outbox, lease) = (target.store.outbox(), std::time::Duration::from_secs(10));
    let things = database(options(&target)).await.collection::<Document>("things");
    for key in ["a", "b", "c"] {
        target.one(create(&target.things, key, titled("x"))).await.unwrap();
    }
    // as a relay leaves it that dies after it took the events out: as many documents as it looks at at once,
    // each older than what comes now
    let taken = doc! { "$set": { "_pending": [], "_pending_at": bson::DateTime::from_millis(1) } };
    let taken = things.update_many(doc! { "_pending": { "$exists": true } }, taken).await.unwrap();
    assert_eq!(taken.modified_count, 3);
    target.one(create(&target.things, "later", titled("y"))).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(outbox.claim("o", lease, 2).await.unwrap().events);
    }
    assert_eq!(seen.first().map(|event| event.key.as_str()), Some("later"));
    outbox.confirm("o", &[seen[0].id]).await.unwrap();
    assert_eq!(outbox.backlog().await.unwrap(), model::event::Backlog::default());
    let left = things.count_documents(doc! { "_pending_at": { "$exists": true } }).await.unwrap();
    assert_eq!(left, 0);
    target.remove().await;
}

#[tokio::test]
async fn events_of_a_collection_that_another_group_serves_go_from_here_too() {
    let Some(target) = Target::mongo().await else { return };
    let others =
        Collection { pool: "others".to_owned(), name: "others".to_owned(), ..(*target.things).clone() };
    target.one(create(&Arc::new(others), "a", titled("x"))).await.unwrap();
    let claimed = target.store.outbox().claim("o", std::time::Duration::from_secs(10), 10).await.unwrap();
    assert_eq!(claimed.events.iter().map(|event| event.key.as_str()).collect::<Vec<_>>(), ["a"]);
    target.remove().await;
}

#[tokio::test]
async fn documents_of_other_programs_are_served() {
    let Some(target) = Target::mongo().await else { return };
    let things = database(options(&target)).await.collection::<Document>("things");
    let id = ObjectId::new();
    let seen = bson::DateTime::from_millis(5);
    things
        .insert_one(doc! { "_id": id, "title": "x", "size": 3_i32, "tags": { "at": seen, "of": id } })
        .await
        .unwrap();
    let target = Target::prepared(target.store, target.place).await;
    let key = id.to_hex();
    let record = found(target.lookup(&target.things, &key).await);
    assert_eq!(
        (record.version, record.created_at, &record.values.0[field::SIZE]),
        (Version(1), Timestamp(0), &Value::Int(3))
    );
    assert_eq!(
        record.values.0[field::TAGS],
        json(&format!(r#"{{"at":"1970-01-01T00:00:00.005Z","of":"{key}"}}"#))
    );
    let written = target.one(replace(&target.things, &key, exactly(1), titled("y"))).await.unwrap();
    assert_eq!(written.version, Version(2));
    let order = vec![(FieldRef::CreatedAt, Direction::Ascending)];
    for _ in 0..4 {
        things.insert_one(doc! { "_id": ObjectId::new(), "title": "z" }).await.unwrap();
    }
    let mut query = Query {
        filter: Filter::All,
        order,
        start: Start::Offset(0),
        limit: 2,
        count: true,
        allowance: Allowance::default(),
    };
    let mut seen = 0;
    loop {
        let page = target.store.find(&target.things, &query).await.unwrap();
        seen += page.records.len();
        match page.next {
            Some(next) => query.start = Start::After(next),
            None => break,
        }
        assert!(seen < 100);
    }
    assert_eq!(seen, 5);
    let wrong =
        things.insert_one(doc! { "_id": ObjectId::new(), "price": f64::NAN }).await.unwrap().inserted_id;
    let key: Key = wrong.as_object_id().unwrap().to_hex().parse().unwrap();
    let Lookup::Unreadable(odd) = target.lookup(&target.things, key.as_str()).await else { panic!("{key}") };
    assert_eq!(
        (odd.first().field.as_str(), odd.first().kind.as_str(), odd.first().length),
        ("price", "Double", 8)
    );
    // one whose _id is of another type than the others': told of, and deleted, but no other _id is made of it
    things.insert_one(doc! { "_id": "mixed in" }).await.unwrap();
    let Lookup::Unreadable(odd) = target.lookup(&target.things, "mixed in").await else { panic!() };
    assert_eq!(odd.first().field, "code");
    let result = target.one(replace(&target.things, "mixed in", Guard::Any, titled("x"))).await;
    assert!(matches!(result, Err(StoreError::Unsupported(_))), "{result:?}");
    target.one(delete(&target.things, "mixed in", Guard::Any)).await.unwrap();
    let result = target.one(create(&target.things, "not-an-object-id", titled("x"))).await;
    assert!(matches!(result, Err(StoreError::Unsupported(_))), "{result:?}");
    target.remove().await;
}

#[tokio::test]
async fn a_unit_is_of_one_record_unless_the_server_has_transactions() {
    let Some(target) = Target::mongo().await else { return };
    let things = &target.things;
    let several = vec![create(things, "k", titled("x")), create(things, "l", titled("y"))];
    match target.commit(several).await {
        Err(StoreError::Unsupported(_)) => assert_eq!(target.lookup(things, "k").await, Lookup::Missing),
        Err(error) => panic!("{error}"),
        // a replica set or mongos, handed in as MONGODB_URI
        Ok(written) => {
            assert_eq!(written.len(), 2);
            let Some(fresh) = Target::mongo().await else { return };
            sql::unique_values_go_by_the_order_of_the_changes(&fresh).await;
            fresh.remove().await;
        }
    }
    let before = target.store.outbox().backlog().await.unwrap().events;
    let one = vec![
        create(things, "a", titled("x")),
        replace(things, "a", exactly(1), titled("y")),
        delete(things, "a", Guard::Any),
    ];
    let written = target.commit(one).await.unwrap();
    assert_eq!(written.iter().map(|written| written.version.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(target.lookup(things, "a").await, Lookup::Deleted(Version(3)));
    assert_eq!(target.store.outbox().backlog().await.unwrap().events - before, 3);
    target.remove().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_in_time() {
    let options = MongoOptions::new("mongodb://127.0.0.1:9", "shop");
    let store = MongoStore::connect(options, sealer()).await.unwrap();
    let started = std::time::Instant::now();
    let result = store.ping().await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_password_for_another_host_is_refused_before_anything_is_sent() {
    let of = async |url: &str, plaintext| {
        let options =
            MongoOptions { passage: Passage::new("main", plaintext), ..MongoOptions::new(url, "shop") };
        MongoStore::connect(options, sealer()).await.err().map(|error| error.to_string())
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let away = format!("mongodb://ann:hunter2@localhost:1,db:2/?authMechanism={mechanism}");
        let told = of(&away, Plaintext::Refused).await.unwrap();
        assert!(told.contains("backend main") && !told.contains("hunter2"), "{told}");
        assert_eq!(of(&away, Plaintext::ProofOnly).await.is_some(), mechanism == "PLAIN");
        assert_eq!(of(&away, Plaintext::Warned).await, None);
        assert_eq!(of(&format!("{away}&tls=true"), Plaintext::Refused).await, None);
    }
    for safe in
        ["mongodb://ann:hunter2@localhost:1", "mongodb://db:1", "mongodb://ann:hunter2@%2Frun%2Fdb.sock"]
    {
        assert_eq!(of(safe, Plaintext::Refused).await, None, "{safe}");
    }
}

/// Every write waits for the journal of most members, and every read is of what most have: looked at as it is
/// sent.
#[tokio::test]
async fn writes_are_acknowledged_by_the_majority_and_reads_are_of_it() {
    let Some(target) = Target::mongo().await else { return };
    let Place::Mongo { options } = &target.place else { panic!("not MongoDB") };
    let (store, sent) = watched(options, sealer()).await;
    store.prepare(&[target.users.clone(), target.things.clone()]).await.unwrap();
    sent.lock().clear();
    let commit = async |change: Change, key: &str| {
        let idempotency = Idempotency { key: key.to_owned(), request: "r".to_owned() };
        let work = UnitOfWork::new(vec![change], &Origin::of("tester"));
        store.commit(UnitOfWork { idempotency: Some(idempotency), ..work }).await.unwrap();
    };
    commit(create(&target.things, "a", titled("x")), "1").await;
    commit(upsert(&target.things, "a", Guard::Any, titled("y")), "2").await;
    commit(delete(&target.things, "a", Guard::Any), "3").await;
    store.read(&target.things, &["a".parse().unwrap()]).await.unwrap();
    let query = Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 2,
        count: true,
        allowance: Allowance::default(),
    };
    store.find(&target.things, &query).await.unwrap();
    let outbox = store.outbox();
    let claimed = outbox.claim("o", std::time::Duration::from_secs(30), 10).await.unwrap().events;
    let ids: Vec<Uuid> = claimed.iter().map(|event| event.id).collect();
    outbox.confirm("o", &ids).await.unwrap();
    let (mut writes, mut reads) = (0, 0);
    for command in sent.lock().iter() {
        let name = command.keys().next().unwrap().as_str();
        match name {
            "insert" | "update" | "delete" | "findAndModify" | "findandmodify" => {
                let concern =
                    command.get_document("writeConcern").unwrap_or_else(|_| panic!("{name} without one"));
                assert_eq!(
                    (concern.get_str("w").ok(), concern.get_bool("j").ok()),
                    (Some("majority"), Some(true)),
                    "{command}"
                );
                writes += 1;
            }
            "find" | "aggregate" | "count" | "distinct" => {
                let concern =
                    command.get_document("readConcern").unwrap_or_else(|_| panic!("{name} without one"));
                assert_eq!(concern.get_str("level").ok(), Some("majority"), "{command}");
                reads += 1;
            }
            _ => (),
        }
    }
    assert!(writes >= 3 && reads >= 2, "{writes} writes and {reads} reads were seen");
    let settings = store.settings().await.unwrap();
    assert!(settings.iter().all(|setting| setting.risk.is_none()), "{settings:?}");
    target.remove().await;
}
