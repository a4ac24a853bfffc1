//! Single records: versions, guards, tombstones, unique and encrypted fields, and what happens when many
//! write at once.

use std::time::Duration;

use futures::future::join_all;

use super::*;

pub async fn a_record_is_created_read_replaced_and_deleted(target: &Target) {
    let users = &target.users;
    assert_eq!(target.lookup(users, "u1").await, Lookup::Missing);
    let before = Timestamp::now();
    let written = target.one(create(users, "u1", person("ann@example.com", Some("ann")))).await.unwrap();
    assert!(written.created);
    assert_eq!((written.version, written.key.as_str()), (Version(1), "u1"));
    let record = written.record.clone().unwrap();
    assert_eq!(record.values, person("ann@example.com", Some("ann")));
    assert!(record.created_at >= before && record.updated_at == record.created_at);
    assert_eq!(found(target.lookup(users, "u1").await), record);

    let written = target.one(replace(users, "u1", exactly(1), person("b@example.com", None))).await.unwrap();
    assert!(!written.created);
    let replaced = found(target.lookup(users, "u1").await);
    assert_eq!(written.record, Some(replaced.clone()));
    assert_eq!((replaced.version, &replaced.values), (Version(2), &person("b@example.com", None)));
    assert_eq!(replaced.created_at, record.created_at);
    assert!(replaced.updated_at >= record.updated_at);

    let written = target.one(delete(users, "u1", exactly(2))).await.unwrap();
    assert_eq!((written.version, written.record, written.created), (Version(3), None, false));
    assert_eq!(target.lookup(users, "u1").await, Lookup::Deleted(Version(3)));
}

pub async fn a_deleted_key_goes_on_counting(target: &Target) {
    for (round, collection) in [&target.users, &target.things].into_iter().enumerate() {
        let row = |name: &str| if round == 0 { person(name, None) } else { titled(name) };
        target.one(create(collection, "k", row("a"))).await.unwrap();
        target.one(delete(collection, "k", Guard::Any)).await.unwrap();
        let again = target.one(create(collection, "k", row("b"))).await.unwrap();
        assert_eq!((again.version, again.created), (Version(3), true), "{}", collection.name);
        assert_eq!(found(target.lookup(collection, "k").await).version, Version(3));
        target.one(delete(collection, "k", Guard::Any)).await.unwrap();
        let again = target.one(upsert(collection, "k", Guard::Any, row("c"))).await.unwrap();
        assert_eq!((again.version, again.created), (Version(5), true));
        target.one(delete(collection, "k", Guard::Any)).await.unwrap();
        assert_eq!(target.lookup(collection, "k").await, Lookup::Deleted(Version(6)));
    }
}

pub async fn guards_are_kept(target: &Target) {
    let users = &target.users;
    let row = || person("a@example.com", None);
    use StoreError::{Exists, NotFound, Stale};
    assert!(matches!(target.one(replace(users, "g", Guard::Any, row())).await, Err(NotFound)));
    assert!(matches!(target.one(replace(users, "g", exactly(1), row())).await, Err(NotFound)));
    assert!(matches!(target.one(delete(users, "g", Guard::Any)).await, Err(NotFound)));
    assert!(matches!(
        target.one(upsert(users, "g", exactly(1), row())).await,
        Err(Stale { current: Version(0) })
    ));
    assert!(target.one(upsert(users, "g", Guard::Any, row())).await.unwrap().created);
    assert!(matches!(target.one(create(users, "g", row())).await, Err(Exists)));
    assert!(matches!(
        target.one(replace(users, "g", exactly(2), row())).await,
        Err(Stale { current: Version(1) })
    ));
    assert!(matches!(
        target.one(upsert(users, "g", exactly(7), row())).await,
        Err(Stale { current: Version(1) })
    ));
    assert!(matches!(target.one(delete(users, "g", exactly(2))).await, Err(Stale { current: Version(1) })));
    assert_eq!(target.one(upsert(users, "g", exactly(1), row())).await.unwrap().version, Version(2));
    assert_eq!(target.one(replace(users, "g", Guard::Any, row())).await.unwrap().version, Version(3));
    assert_eq!(target.one(delete(users, "g", exactly(3))).await.unwrap().version, Version(4));
    assert!(matches!(target.one(delete(users, "g", Guard::Any)).await, Err(NotFound)));
    assert!(matches!(
        target.one(upsert(users, "g", exactly(4), row())).await,
        Err(Stale { current: Version(4) })
    ));
    // a created key that the caller made just now
    let fresh =
        |email| change(users, "fresh", Action::Create { values: person(email, None), fresh_key: true });
    assert_eq!(target.one(fresh("f@example.com")).await.unwrap().version, Version(1));
    let again = target.one(fresh("g@example.com")).await;
    assert!(matches!(again, Err(Exists)), "said to be fresh, but is not: {again:?}");
}

pub async fn every_kind_of_value_comes_back_as_it_was(target: &Target) {
    let things = &target.things;
    let texts = ["", " ", "a ", "Ä", "ä", "日本", "😀", "\u{1}\t\n\"'\\", "a\u{301}", "%_", "0", "null"];
    let ints = [i64::MIN, -1, 0, 1, i64::MAX];
    let decimals = [
        ("19.90", "19.9"),
        ("0.00", "0"),
        ("-0.0001", "-0.0001"),
        ("100", "100"),
        ("999999.9999", "999999.9999"),
    ];
    let times = [
        "1970-01-01T00:00:00.000Z",
        "1969-12-31T23:59:59.999Z",
        "2026-02-28T12:34:56.789Z",
        "9999-12-31T23:59:59.999Z",
    ];
    let trees = [
        r#"{}"#,
        r#"[]"#,
        r#""""#,
        r#"null"#,
        r#"true"#,
        r#"0"#,
        r#"-1"#,
        r#"9007199254740993"#,
        r#"18446744073709551615"#,
        r#"1.5"#,
        r#"1e300"#,
        r#"0.1"#,
        r#"-0.0"#,
        r#"{"a":{"b":[1,"x",null,{"c":1.0}]}}"#,
        r#"{"a.b":1,"$set":2,"":3}"#,
        r#"{"z":1,"a":[{"$x":{"y.z":[]}}]}"#,
        r#"{"_id":1,"é":"é"}"#,
        r#"[[],[[]],{}]"#,
        r#"9223372036854775807"#,
        r#"{"$numberLong":"1"}"#,
        r#"{"json":"{}"}"#,
    ];
    let count = trees.len().max(texts.len());
    for index in 0..count {
        let (given, kept) = decimals[index % decimals.len()];
        let row = Row(vec![
            text(texts[index % texts.len()]),
            Value::Int(ints[index % ints.len()]),
            decimal(given),
            Value::Bool(index % 2 == 0),
            time(times[index % times.len()]),
            json(trees[index % trees.len()]),
            text(texts[(index + 1) % texts.len()]),
        ]);
        let key = format!("v{index}");
        let written = target.one(create(things, &key, row.clone())).await.unwrap();
        let read = found(target.lookup(things, &key).await);
        assert_eq!(written.record.as_ref(), Some(&read));
        assert_eq!(read.values, row, "{key}");
        let shown = read.to_json(&things.schema);
        assert_eq!(shown, written.record.unwrap().to_json(&things.schema));
        assert!(
            shown.contains(&format!("\"price\":{kept},")),
            "decimals are without trailing zeros: {shown}"
        );
        assert!(
            shown.contains(&format!(
                "\"tags\":{},",
                Json::parse(trees[index % trees.len()]).unwrap().as_str()
            )),
            "{shown}"
        );
    }
    let nothing = Row(vec![Value::Null; 7]);
    target.one(create(things, "nothing", nothing.clone())).await.unwrap();
    assert_eq!(found(target.lookup(things, "nothing").await).values, nothing);
    target.one(replace(things, "v0", Guard::Any, nothing.clone())).await.unwrap();
    assert_eq!(found(target.lookup(things, "v0").await).values, nothing);
}

pub async fn unique_values_are_unique_but_for_nulls(target: &Target) {
    let users = &target.users;
    target.one(create(users, "a", person("a@example.com", None))).await.unwrap();
    target.one(create(users, "b", person("b@example.com", None))).await.unwrap();
    let taken = |result: Result<Written, StoreError>, expected: &str| match result {
        Err(StoreError::Duplicate { field }) => assert_eq!(field, expected),
        other => panic!("not refused: {other:?}"),
    };
    taken(target.one(create(users, "c", person("a@example.com", None))).await, "email");
    assert_eq!(target.lookup(users, "c").await, Lookup::Missing);
    taken(target.one(replace(users, "b", Guard::Any, person("a@example.com", None))).await, "email");
    taken(target.one(upsert(users, "c", Guard::Any, person("a@example.com", None))).await, "email");
    target.one(replace(users, "a", Guard::Any, person("a@example.com", Some("ann")))).await.unwrap();
    taken(
        target.one(replace(users, "b", Guard::Any, person("b@example.com", Some("ann")))).await,
        "username",
    );
    // case and trailing spaces count
    target.one(create(users, "d", person("A@example.com", Some("ann ")))).await.unwrap();
    // what a record gives up is free
    target.one(replace(users, "a", Guard::Any, person("z@example.com", None))).await.unwrap();
    target.one(create(users, "e", person("a@example.com", Some("ann")))).await.unwrap();
    target.one(delete(users, "e", Guard::Any)).await.unwrap();
    target.one(create(users, "f", person("a@example.com", Some("ann")))).await.unwrap();
    assert_eq!(
        found(target.lookup(users, "b").await).version,
        Version(1),
        "what was refused changed nothing"
    );
}

pub async fn encrypted_fields_are_not_readable_at_rest(target: &Target) {
    let things = &target.things;
    let mut row = titled("plain-title-4711");
    row.0[field::SECRET] = text("top-secret-4711");
    target.one(create(things, "s", row.clone())).await.unwrap();
    assert_eq!(found(target.lookup(things, "s").await).values, row);
    let bytes = target.at_rest().await;
    let holds = |wanted: &str| bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes());
    assert!(holds("plain-title-4711"), "this test looks in the right place");
    assert!(holds("sealed:things/s/secret:"));
    assert!(!holds("top-secret-4711"), "in the table or in an event");
    let events = target.store.outbox().claim("o", Duration::from_secs(10), 10).await.unwrap().events;
    assert!(events[0].data.as_ref().unwrap().get().contains(r#""secret":"***""#));
}

pub async fn many_keys_are_read_at_once(target: &Target) {
    let things = &target.things;
    for index in 0..5 {
        target.one(create(things, &format!("m{index}"), titled("x"))).await.unwrap();
    }
    target.one(delete(things, "m1", Guard::Any)).await.unwrap();
    let mut keys: Vec<Key> =
        ["m3", "none", "m1", "m0", "m3"].iter().map(|key| key.parse().unwrap()).collect();
    let lookups = target.store.read(things, &keys).await.unwrap();
    assert_eq!(found(lookups[0].clone()).key, keys[0]);
    assert_eq!(lookups[1], Lookup::Missing);
    assert_eq!(lookups[2], Lookup::Deleted(Version(2)));
    assert_eq!(found(lookups[3].clone()).key, keys[3]);
    assert_eq!(lookups[4], lookups[0]);
    assert_eq!(target.store.read(things, &[]).await.unwrap(), []);
    keys.extend((0..2500).map(|index| format!("x{index}").parse().unwrap()));
    let lookups = target.store.read(things, &keys).await.unwrap();
    assert_eq!(lookups.len(), 2505);
    assert_eq!(lookups.iter().filter(|lookup| matches!(lookup, Lookup::Found(_))).count(), 3);
}

pub async fn one_of_many_writers_wins_each_version(target: &Target) {
    const WRITERS: usize = 32;
    let things = &target.things;
    target.one(create(things, "hot", titled("0"))).await.unwrap();
    for version in 1..=5 {
        let tries = (0..WRITERS).map(|writer| {
            let row = titled(&format!("{version}-{writer}"));
            target.one(replace(things, "hot", exactly(version), row))
        });
        let results = join_all(tries).await;
        let won: Vec<&Written> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "version {version}: {results:?}");
        for result in &results {
            match result {
                Ok(_) => (),
                Err(StoreError::Stale { current }) => assert_eq!(*current, Version(version + 1)),
                Err(other) => panic!("{other}"),
            }
        }
        let record = found(target.lookup(things, "hot").await);
        assert_eq!((record.version, Some(&record)), (Version(version + 1), won[0].record.as_ref()));
    }
}

pub async fn of_many_creators_one_wins(target: &Target) {
    let things = &target.things;
    for round in 0..5 {
        let key = format!("new{}", round / 2);
        let base = target.lookup(things, &key).await;
        let creators = join_all((0..16).map(|_| target.one(create(things, &key, titled("x"))))).await;
        assert_eq!(creators.iter().filter(|result| result.is_ok()).count(), 1, "{base:?}: {creators:?}");
        assert!(
            creators.iter().all(|result| matches!(result, Ok(_) | Err(StoreError::Exists))),
            "{creators:?}"
        );
        let upserts =
            join_all((0..16).map(|_| target.one(upsert(things, &key, Guard::Any, titled("y"))))).await;
        assert!(upserts.iter().all(Result::is_ok), "{upserts:?}");
        let mut versions: Vec<u64> =
            upserts.iter().map(|written| written.as_ref().unwrap().version.0).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 16, "each change has a version of its own");
        target.one(delete(things, &key, Guard::Any)).await.unwrap();
    }
}

pub async fn a_row_of_another_width_is_refused(target: &Target) {
    let result = target.one(create(&target.things, "w", Row(vec![Value::Null]))).await;
    assert!(matches!(result, Err(StoreError::Unsupported(_))), "{result:?}");
    assert_eq!(target.lookup(&target.things, "w").await, Lookup::Missing);
}

pub async fn a_unit_whose_time_is_over_is_not_begun(target: &Target) {
    let (users, over) = (&target.users, Origin::of("late").within(Duration::ZERO));
    let person = || person("late@example.com", None);
    let fresh = change(users, "fresh", Action::Create { values: person(), fresh_key: true });
    for late in [fresh, create(users, "named", person()), upsert(users, "any", Guard::Any, person())] {
        let key = late.key.clone();
        let refused = target.store.commit(UnitOfWork::new(vec![late], &over)).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{key}: {refused:?}");
        assert_eq!(target.lookup(users, key.as_str()).await, Lookup::Missing);
    }
    let in_time = Origin::of("early").within(Duration::from_secs(5));
    target.store.commit(UnitOfWork::new(vec![create(users, "named", person())], &in_time)).await.unwrap();
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 1);
}

/// What versions before and other programs wrote is filled in at a start. Of those that differ by case alone
/// one is, and all stay.
pub async fn texts_in_small_letters_are_filled_in(target: &Target) {
    let users = &target.users;
    for (key, email) in [("a", "Bob@example.com"), ("b", "BOB@example.com"), ("c", "Ünal@example.com")] {
        target.one(create(users, key, person(email, None))).await.unwrap();
    }
    // a process that starts looks for what is missing
    target.again().await;
    let mut folded = Vec::new();
    for key in ["a", "b", "c"] {
        let record = found(target.lookup(users, key).await);
        assert_eq!(record.version, Version(1), "{key}");
        folded.push(record.values.0[5].clone());
    }
    let (twins, last) = folded.split_at(2);
    assert!(twins.contains(&text("bob@example.com")) && twins.contains(&Value::Null), "{folded:?}");
    assert_eq!(last, [text("ünal@example.com")]);
    let mut third = person("boB@example.com", None);
    third.0[5] = text("bob@example.com");
    let taken = target.one(create(users, "d", third)).await;
    assert!(matches!(&taken, Err(StoreError::Duplicate { field }) if field == "email_folded"), "{taken:?}");
}
