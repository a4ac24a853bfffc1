//! Declared tables as they are found: incomplete, without versions, with keys that are numbers, in collations
//! of their own.

use std::time::Duration;

use sql::by_hand;
use tokio::time::timeout;

use super::*;
use crate::confined::{ConfinedStore, PoolFault, PoolReason};
use model::{
    budget::Allowance,
    query::{Comparison, Direction, Filter, Query, Start},
    schema::FieldRef,
};

const LONG: Duration = Duration::from_secs(10);

pub fn is_server(target: &Target) -> bool {
    matches!(target.place, Place::Mysql { .. })
}

pub fn shelves(version: Option<&str>, fields: Vec<Field>) -> Arc<Collection> {
    Arc::new(Collection {
        pool: "shelves".to_owned(),
        schema: Arc::new(Schema { key: "no".to_owned(), ..Schema::new("shelf", "shelves", fields) }),
        name: "shelves".to_owned(),
        key_column: "no".to_owned(),
        version_column: version.map(str::to_owned),
        declared: true,
    })
}

pub async fn missing_columns_and_wrong_types_are_told(target: &Target) {
    let label = Field::new("label", Kind::text(100));
    let price = Field::new("price", Kind::money(0));
    let shelves = shelves(Some("version"), vec![label, price]);
    if !is_server(target) {
        // an embedded database has nobody else who would make it, or add what is declared later
        by_hand(target, "CREATE TABLE shelves (no TEXT PRIMARY KEY, version INTEGER NOT NULL)").await;
        target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
        let row = Row(vec![text("x"), decimal("2.5")]);
        target.one(create(&shelves, "a", row.clone())).await.unwrap();
        assert_eq!(found(target.lookup(&shelves, "a").await).values, row);
        return;
    }
    let told = async |words: &[&str]| {
        let result = target.store.prepare(std::slice::from_ref(&shelves)).await;
        let Err(StoreError::Unprepared(fault)) = &result else { panic!("{result:?}") };
        assert!(words.iter().all(|word| fault.message.contains(word)), "{fault:?}");
    };
    told(&["no table shelves"]).await;
    by_hand(target, "CREATE TABLE shelves (no VARCHAR(20), price DOUBLE, version VARCHAR(9))").await;
    told(&["no has no unique index", "no column label", "price is double", "version is varchar"]).await;
    by_hand(target, "DROP TABLE shelves").await;
    by_hand(
        target,
        "CREATE TABLE shelves (no VARCHAR(20) PRIMARY KEY, label TEXT, price DECIMAL(10,2), version INT)",
    )
    .await;
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let row = Row(vec![text("x"), decimal("2.5")]);
    target.one(create(&shelves, "a", row.clone())).await.unwrap();
    let record = found(target.lookup(&shelves, "a").await);
    assert_eq!((record.values, record.created_at), (row, Timestamp(0)));
    let too_large = target.one(create(&shelves, "b", Row(vec![text("x"), decimal("99999999999")]))).await;
    assert!(
        matches!(&too_large, Err(StoreError::Invalid(faults)) if faults[0].field == "price"),
        "{too_large:?}"
    );
}

/// A pool whose table is missing, or lacks a column, or goes while it is in use, takes nothing else away and
/// comes back as soon as it is mended.
pub async fn one_that_cannot_be_used_takes_only_itself_away(target: &Target) {
    let shelves = shelves(
        Some("version"),
        vec![Field::new("label", Kind::text(100)), Field::new("price", Kind::money(0))],
    );
    let all = [target.users.clone(), shelves.clone(), target.things.clone()];
    let store = ConfinedStore::new(target.store.clone());
    let away = async || {
        let faults = store.prepare_each(&all).await.unwrap();
        assert_eq!(faults, store.away().all());
        assert!(faults.keys().all(|pool| pool == "shelves"), "{faults:?}");
        faults.get("shelves").map(|fault| fault.reason)
    };
    let wrong = "CREATE TABLE shelves (no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label TEXT, price DOUBLE)";
    let right = "CREATE TABLE shelves (no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label TEXT, price DECIMAL(10, 2))";
    // what SQLite holds in a column is not bound to its type: numbers are text there
    let right = if is_server(target) { right.to_owned() } else { right.replace("DECIMAL(10, 2)", "TEXT") };
    if is_server(target) {
        assert_eq!(away().await, Some(PoolReason::TableMissing));
    }
    by_hand(target, wrong).await;
    assert_eq!(away().await, Some(PoolReason::ColumnUnfit));
    let unit = |change: Change| store.commit(UnitOfWork::new(vec![change], &Origin::of("tester")));
    let lost = |fault: &PoolFault, answer: Result<Vec<Lookup>, StoreError>| match answer {
        Err(StoreError::Unprepared(told)) => assert_eq!(told, *fault),
        other => panic!("{other:?}"),
    };
    let (fault, key) = (store.away().of("shelves").unwrap(), "a".parse::<Key>().unwrap());
    lost(&fault, store.read(&shelves, std::slice::from_ref(&key)).await);
    unit(create(&target.users, "u", person("u@example.com", None))).await.unwrap();
    unit(create(&target.things, "t", titled("x"))).await.unwrap();
    let both = vec![
        create(&target.things, "both", titled("x")),
        create(&shelves, "both", Row(vec![Value::Null; 2])),
    ];
    let refused = store.commit(UnitOfWork::new(both, &Origin::of("tester"))).await;
    assert!(matches!(refused, Err(StoreError::Unprepared(_))), "{refused:?}");
    assert_eq!(target.lookup(&target.things, "both").await, Lookup::Missing, "a unit is all or nothing");

    by_hand(target, "DROP TABLE shelves").await;
    by_hand(target, &right).await;
    assert_eq!(away().await, None);
    let row = Row(vec![text("x"), decimal("2.5")]);
    unit(create(&shelves, "a", row)).await.unwrap();

    if is_server(target) {
        by_hand(target, "ALTER TABLE shelves RENAME COLUMN label TO name").await;
        let answer = store.read(&shelves, std::slice::from_ref(&key)).await;
        let Err(StoreError::Unprepared(fault)) = answer else { panic!("{answer:?}") };
        let told = (fault.reason, fault.message.as_str());
        assert_eq!(told, (PoolReason::ColumnMissing, "shelves: there is no column label"));
        timeout(LONG, store.away().suspected()).await.expect("it is to be looked at again");
        assert_eq!(away().await, Some(PoolReason::ColumnMissing));
    }
    by_hand(target, "DROP TABLE shelves").await;
    if is_server(target) {
        assert_eq!(away().await, Some(PoolReason::TableMissing));
    } else {
        assert_eq!(away().await, None, "an embedded database makes what is missing");
    }
}

/// A table of the store's own that is lost takes its own pool away only.
pub async fn an_own_table_that_is_lost_takes_only_its_pool_away(target: &Target) {
    by_hand(target, "DROP TABLE users").await;
    let faults = target.store.prepare_each(&[target.users.clone(), target.things.clone()]).await.unwrap();
    let told: Vec<_> = faults.iter().map(|(pool, fault)| (pool.as_str(), fault.reason)).collect();
    assert_eq!(told, [("users", PoolReason::TableMissing)]);
    target.one(create(&target.things, "t", titled("x"))).await.unwrap();
    assert!(matches!(
        target.store.read(&target.users, &["u".parse().unwrap()]).await,
        Err(StoreError::Unprepared(_))
    ));
}

/// A table that stands in the way of one of our own, made by somebody else.
pub async fn an_own_table_that_cannot_be_changed_takes_only_its_pool_away(target: &Target) {
    let payments = Arc::new(Collection {
        pool: "payments".to_owned(),
        schema: Arc::new(model::entities::payment::schema()),
        name: "odd".to_owned(),
        ..(*target.users).clone()
    });
    by_hand(target, "CREATE TABLE odd (id VARCHAR(20) PRIMARY KEY, note TEXT)").await;
    let faults =
        target.store.prepare_each(&[target.users.clone(), payments, target.things.clone()]).await.unwrap();
    assert_eq!(faults.keys().collect::<Vec<_>>(), ["payments"]);
    assert!(faults["payments"].message.contains("odd"), "{faults:?}");
    target.one(create(&target.users, "u", person("u@example.com", None))).await.unwrap();
}

pub async fn a_table_without_a_version_is_read_only(target: &Target) {
    let shelves = shelves(None, vec![Field::new("label", Kind::text(100))]);
    let (time, at) = match is_server(target) {
        true => ("DATETIME(6)", "'2026-01-31 12:00:00.123456'"),
        false => ("TEXT", "'2026-01-31T12:00:00.123Z'"),
    };
    by_hand(
        target,
        &format!("CREATE TABLE shelves (no VARCHAR(20) PRIMARY KEY, label TEXT, updated_at {time})"),
    )
    .await;
    by_hand(target, &format!("INSERT INTO shelves VALUES ('a', 'x', {at}), ('b', 'y', NULL)")).await;
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    assert_eq!(found(target.lookup(&shelves, "b").await).version, Version(1), "nobody gave it one");
    by_hand(target, "DELETE FROM shelves WHERE no = 'b'").await;
    let record = found(target.lookup(&shelves, "a").await);
    let micros = if is_server(target) { 456 } else { 0 };
    assert_eq!(record.version, Version(1_769_860_800_123_000 + micros));
    assert_eq!(
        (record.created_at, record.updated_at),
        (Timestamp(1_769_860_800_123), Timestamp(1_769_860_800_123))
    );
    let result = target.one(upsert(&shelves, "a", Guard::Any, Row(vec![text("y")]))).await;
    assert!(matches!(&result, Err(StoreError::ReadOnly(why)) if why.contains("version")), "{result:?}");
    let order = vec![(FieldRef::CreatedAt, Direction::Descending)];
    let query = Query {
        filter: Filter::All,
        order,
        start: Start::Offset(0),
        limit: 10,
        count: true,
        allowance: Allowance::default(),
    };
    assert_eq!(target.store.find(&shelves, &query).await.unwrap().records, [record]);
}

pub async fn keys_may_be_numbers(target: &Target) {
    let shelves = shelves(Some("version"), vec![Field::new("label", Kind::text(100))]);
    by_hand(target, "CREATE TABLE shelves (no INTEGER PRIMARY KEY, version INTEGER NOT NULL, label TEXT)")
        .await;
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    for key in ["10", "9", "100"] {
        target.one(create(&shelves, key, Row(vec![text(key)]))).await.unwrap();
    }
    target.one(delete(&shelves, "100", Guard::Any)).await.unwrap();
    let keys: Vec<Key> = ["9", "09", "x", "100", "11"].iter().map(|key| key.parse().unwrap()).collect();
    let lookups = target.store.read(&shelves, &keys).await.unwrap();
    assert_eq!(found(lookups[0].clone()).values, Row(vec![text("9")]));
    assert_eq!(
        lookups[1..],
        [Lookup::Missing, Lookup::Missing, Lookup::Deleted(Version(2)), Lookup::Missing]
    );
    let result = target.one(create(&shelves, "x", Row(vec![Value::Null]))).await;
    assert!(matches!(&result, Err(StoreError::Invalid(faults)) if faults[0].field == "no"), "{result:?}");
    let query = Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 1,
        count: false,
        allowance: Allowance::default(),
    };
    let page = target.store.find(&shelves, &query).await.unwrap();
    assert_eq!(page.records[0].key.as_str(), "9", "numbers are ordered as numbers");
    let next = Query { start: Start::After(page.next.unwrap()), ..query };
    let page = target.store.find(&shelves, &next).await.unwrap();
    assert_eq!((page.records[0].key.as_str(), page.next), ("10", None));
}

pub async fn text_of_any_collation_compares_by_bytes(target: &Target) {
    let shelves = shelves(Some("version"), vec![Field::new("label", Kind::text(100))]);
    if is_server(target) {
        let columns = "no VARCHAR(20) PRIMARY KEY, version INT UNSIGNED NOT NULL, label VARCHAR(100)";
        by_hand(
            target,
            &format!("CREATE TABLE shelves ({columns}) CHARACTER SET latin1 COLLATE latin1_german1_ci"),
        )
        .await;
    }
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let labels = ["b", "A", "a ", "a", "Ä", "B"];
    for (index, label) in labels.iter().enumerate() {
        target.one(create(&shelves, &format!("k{index}"), Row(vec![text(label)]))).await.unwrap();
    }
    let label = FieldRef::Field(0);
    let find = async |filter: Filter| {
        let order = vec![(label, Direction::Ascending)];
        let query = Query {
            filter,
            order,
            start: Start::Offset(0),
            limit: 10,
            count: true,
            allowance: Allowance::default(),
        };
        let page = target.store.find(&shelves, &query).await.unwrap();
        let labels = page.records.iter().map(|record| record.values.0[0].as_text().unwrap().to_owned());
        labels.collect::<Vec<_>>()
    };
    assert_eq!(find(Filter::All).await, ["A", "B", "a", "a ", "b", "Ä"]);
    assert_eq!(find(Filter::Compare(label, Comparison::Eq, text("a"))).await, ["a"]);
    assert_eq!(find(Filter::Compare(label, Comparison::Gt, text("a"))).await, ["a ", "b", "Ä"]);
    assert_eq!(find(Filter::In(label, vec![text("A"), text("ä")])).await, ["A"]);
    assert_eq!(find(Filter::Like(label, "_".to_owned())).await, ["A", "B", "a", "b", "Ä"]);
    assert_eq!(find(Filter::Compare(FieldRef::Key, Comparison::Gt, text("K9"))).await.len(), 6);
    assert_eq!(target.lookup(&shelves, "K1").await, Lookup::Missing, "keys mind case too");
    target.one(delete(&shelves, "k1", Guard::Any)).await.unwrap();
    assert_eq!(target.lookup(&shelves, "k1").await, Lookup::Deleted(Version(2)));
}
