//! What only SQL stores are asked: units over several records, migrations, tombstones, lost connections.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row as _, SqliteConnection};

use super::*;
use crate::sql::tests::create_statements;
use model::change::Idempotency;

/// A new database in a server: its address and its name.
pub async fn new_database(server: &str) -> (String, String) {
    let database = format!("shop_{}", Uuid::now_v7().simple());
    run(server, &format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await;
    let (base, _) = server.rsplit_once('/').unwrap();
    (format!("{base}/{database}"), database)
}

pub async fn drop_database(server: &str, database: &str) {
    run(server, &format!("DROP DATABASE {database}")).await;
}

/// Makes the declared table, as its owner does.
pub async fn create_things(url: &str, things: &Collection) {
    for statement in create_statements(things, is_mariadb(url).await) {
        run(url, &statement).await;
    }
}

/// Every table as text.
pub async fn dump(url: &str) -> Vec<u8> {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let mut bytes = Vec::new();
    for (table, column) in [("things", "title"), ("things", "secret"), ("flyweight_outbox", "envelope")] {
        let sql = format!("SELECT {column} FROM {table}");
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap() {
            bytes.extend(row.get_unchecked::<Option<String>, _>(0).unwrap_or_default().into_bytes());
            bytes.push(b'\n');
        }
    }
    bytes
}

pub async fn run(url: &str, statement: &str) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    // a server may be set otherwise
    connection.execute("SET autocommit = 1").await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

pub async fn is_mariadb(url: &str) -> bool {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let row = sqlx::query("SELECT VERSION()").fetch_one(&mut connection).await.unwrap();
    row.get_unchecked::<String, _>(0).contains("MariaDB")
}

/// Runs a statement in the place of a store.
pub async fn by_hand(target: &Target, statement: &str) {
    match &target.place {
        Place::File(path) => {
            let mut connection =
                SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            connection.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        Place::Mysql { url, .. } => run(url, statement).await,
        Place::Mongo { .. } => panic!("not SQL"),
    }
}

/// The store as what it is.
fn plain(target: &Target) -> SqlStore {
    match &target.place {
        Place::File(path) => SqlStore::sqlite(path, sealer()).unwrap(),
        Place::Mysql { url, .. } => SqlStore::mysql(MysqlOptions::new(url), sealer()).unwrap(),
        Place::Mongo { .. } => panic!("not SQL"),
    }
}

/// The store with no more than one connection that reads, where that can be said.
pub fn of_one_connection(target: &Target) -> SqlStore {
    match &target.place {
        Place::Mysql { url, .. } => {
            let options = MysqlOptions { max_connections: 1, ..MysqlOptions::new(url) };
            SqlStore::mysql(options, sealer()).unwrap()
        }
        _ => plain(target),
    }
}

pub async fn a_unit_is_all_or_nothing(target: &Target) {
    let (users, things) = (&target.users, &target.things);
    let changes = vec![
        create(users, "a", person("a@example.com", None)),
        create(things, "b", titled("b")),
        replace(things, "none", Guard::Any, titled("c")),
    ];
    let result = target.commit(changes).await;
    assert!(
        matches!(&result, Err(StoreError::At { index: 2, error }) if matches!(**error, StoreError::NotFound)),
        "{result:?}"
    );
    let changes = vec![
        create(things, "b", titled("b")),
        create(users, "a", person("a@example.com", None)),
        create(users, "c", person("a@example.com", None)),
    ];
    let result = target.commit(changes).await;
    let Err(StoreError::At { index: 2, error }) = &result else { panic!("{result:?}") };
    assert!(matches!(&**error, StoreError::Duplicate { field } if field == "email"), "{result:?}");
    assert_eq!(target.lookup(users, "a").await, Lookup::Missing);
    assert_eq!(target.lookup(things, "b").await, Lookup::Missing);
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 0);
    let changes = vec![create(users, "a", person("a@example.com", None)), create(things, "b", titled("b"))];
    assert_eq!(target.commit(changes).await.unwrap().len(), 2);
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 2);
}

pub async fn changes_of_a_unit_see_each_other(target: &Target) {
    let things = &target.things;
    let changes = vec![
        create(things, "a", titled("1")),
        create(things, "b", titled("1")),
        replace(things, "a", exactly(1), titled("2")),
        delete(things, "a", exactly(2)),
        upsert(things, "a", Guard::Any, titled("4")),
        delete(things, "b", exactly(1)),
    ];
    let written = target.commit(changes).await.unwrap();
    assert_eq!(written.iter().map(|written| written.version.0).collect::<Vec<_>>(), [1, 1, 2, 3, 4, 2]);
    assert_eq!(
        written.iter().map(|written| written.created).collect::<Vec<_>>(),
        [true, true, false, false, true, false]
    );
    assert_eq!(found(target.lookup(things, "a").await), written[4].record.clone().unwrap());
    assert_eq!(target.lookup(things, "b").await, Lookup::Deleted(Version(2)));
    let events = target.store.outbox().claim("o", Duration::from_secs(10), 10).await.unwrap().events;
    let of_a: Vec<u64> = events.iter().filter(|event| event.key == "a").map(|event| event.version).collect();
    assert_eq!((of_a, events.len()), (vec![1, 2, 3, 4], 6));
    // the tombstone goes when the record comes back, and comes again with it
    let changes = vec![
        create(things, "b", titled("3")),
        delete(things, "b", Guard::Any),
        create(things, "b", titled("5")),
    ];
    assert_eq!(target.commit(changes).await.unwrap()[2].version, Version(5));
    assert_eq!(found(target.lookup(things, "b").await).version, Version(5));
    let stale = vec![delete(things, "a", Guard::Any), replace(things, "b", exactly(4), titled("x"))];
    let result = target.commit(stale).await;
    let Err(StoreError::At { index: 1, error }) = &result else { panic!("{result:?}") };
    assert!(matches!(**error, StoreError::Stale { current: Version(5) }), "{result:?}");
    assert_eq!(found(target.lookup(things, "a").await).version, Version(4));
}

pub async fn a_value_given_up_is_free_in_the_same_unit(target: &Target) {
    let users = &target.users;
    target.one(create(users, "a", person("x@example.com", None))).await.unwrap();
    let moved = || vec![delete(users, "a", Guard::Any), create(users, "b", person("x@example.com", None))];
    // not before it is given up
    let early = target.commit(moved().into_iter().rev().collect()).await;
    let Err(StoreError::At { index: 0, error }) = &early else { panic!("{early:?}") };
    assert!(matches!(&**error, StoreError::Duplicate { field } if field == "email"), "{early:?}");
    target.commit(moved()).await.unwrap();
    let passed_on = vec![
        replace(users, "b", Guard::Any, person("y@example.com", None)),
        create(users, "a", person("x@example.com", None)),
    ];
    target.commit(passed_on).await.unwrap();
    let (a, b) = (target.lookup(users, "a").await, target.lookup(users, "b").await);
    assert_eq!((found(a).version, found(b).version), (Version(3), Version(2)));

    // of two replaced records too, in the order of the changes
    let email = |key: &'static str, email: &str| replace(users, key, Guard::Any, person(email, None));
    target.commit(vec![email("b", "z@example.com"), email("a", "y@example.com")]).await.unwrap();
    target.one(create(users, "c", person("c@example.com", None))).await.unwrap();
    let taken = target.commit(vec![email("b", "w@example.com"), email("a", "c@example.com")]).await;
    let Err(StoreError::At { index: 1, error }) = &taken else { panic!("{taken:?}") };
    assert!(matches!(&**error, StoreError::Duplicate { field } if field == "email"), "{taken:?}");
    let (a, b) = (found(target.lookup(users, "a").await), found(target.lookup(users, "b").await));
    assert_eq!((a.version, b.version), (Version(4), Version(3)));
    assert_eq!((a.values, b.values), (person("y@example.com", None), person("z@example.com", None)));
}

pub async fn a_unit_of_a_thousand(target: &Target) {
    let things = &target.things;
    let keys: Vec<String> = (0..1000).map(|index| format!("k{index}")).collect();
    let written =
        target.commit(keys.iter().map(|key| create(things, key, titled(key))).collect()).await.unwrap();
    assert!(written.iter().zip(&keys).all(|(written, key)| written.key.as_str() == key && written.created));
    let changes = keys.iter().map(|key| replace(things, key, exactly(1), titled("new"))).collect();
    assert!(target.commit(changes).await.unwrap().iter().all(|written| written.version == Version(2)));
    let last = found(target.lookup(things, "k999").await);
    assert_eq!((last.version, last.values), (Version(2), titled("new")));
    target.commit(keys.iter().map(|key| delete(things, key, exactly(2))).collect()).await.unwrap();
    assert_eq!(target.lookup(things, "k999").await, Lookup::Deleted(Version(3)));
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 3000);
}

/// A server takes no more than `max_allowed_packet` at once, which is 1 MiB where it is set so.
pub async fn large_records_go_in_several_statements(target: &Target) {
    let things = &target.things;
    let large = |letter: &str| {
        let mut row = titled(letter);
        row.0[field::TAGS] = json(&format!("\"{}\"", letter.repeat(200_000)));
        row
    };
    let keys: Vec<String> = (0..9).map(|index| format!("k{index}")).collect();
    target.commit(keys.iter().map(|key| create(things, key, large("a"))).collect()).await.unwrap();
    target
        .commit(keys.iter().map(|key| replace(things, key, exactly(1), large("b"))).collect())
        .await
        .unwrap();
    for key in &keys {
        assert_eq!(found(target.lookup(things, key).await).values, large("b"));
    }
    let mut huge = titled("x");
    huge.0[field::TAGS] = json(&format!("\"{}\"", "x".repeat(1_200_000)));
    match target.one(create(things, "huge", huge)).await {
        Ok(_) => assert_eq!(found(target.lookup(things, "huge").await).version, Version(1)),
        Err(StoreError::Unsupported(why)) => {
            assert!(why.contains("max_allowed_packet"), "{why}");
            assert_eq!(target.lookup(things, "huge").await, Lookup::Missing);
        }
        Err(other) => panic!("{other}"),
    }
}

pub async fn units_that_cross_each_other_all_succeed(target: &Target) {
    let things = &target.things;
    let unit = |order: [&str; 2]| order.map(|key| upsert(things, key, Guard::Any, titled("x"))).to_vec();
    let units =
        (0..24).map(|index| target.commit(unit(if index % 2 == 0 { ["a", "b"] } else { ["b", "a"] })));
    for result in join_all(units).await {
        result.unwrap();
    }
    assert_eq!(found(target.lookup(things, "a").await).version, Version(24));
    assert_eq!(found(target.lookup(things, "b").await).version, Version(24));
}

pub async fn old_tombstones_are_pruned(target: &Target) {
    let store = plain(target);
    for key in ["old", "new"] {
        target.one(create(&target.things, key, titled("x"))).await.unwrap();
        target.one(delete(&target.things, key, Guard::Any)).await.unwrap();
    }
    assert_eq!(store.prune().await.unwrap(), 0);
    by_hand(target, "UPDATE flyweight_tombstones SET deleted_at = '2020-01-01 00:00:00' WHERE id = 'old'")
        .await;
    assert_eq!(store.prune().await.unwrap(), 1);
    assert_eq!(target.lookup(&target.things, "old").await, Lookup::Missing);
    assert_eq!(target.lookup(&target.things, "new").await, Lookup::Deleted(Version(2)));
}

/// How a database commits, as it says itself. An embedded one is ours: a commit that was answered is on the
/// disk.
pub async fn the_settings_of_commits_are_told(target: &Target) {
    target.one(create(&target.things, "k", titled("x"))).await.unwrap();
    let settings = target.store.settings().await.unwrap();
    let value = |name: &str| {
        settings.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
    };
    match &target.place {
        Place::File(_) => {
            assert_eq!((value("synchronous"), value("journal_mode")), (Some("FULL"), Some("wal")));
            assert!(settings.iter().all(|setting| setting.risk.is_none()), "{settings:?}");
        }
        Place::Mysql { .. } => {
            let flush = value("innodb_flush_log_at_trx_commit").unwrap();
            assert!(["0", "1", "2", "3"].contains(&flush), "{settings:?}");
            assert_eq!(value("sync_binlog").is_some(), value("log_bin") == Some("ON"), "{settings:?}");
        }
        Place::Mongo { .. } => panic!("not SQL"),
    }
}

/// Each goes at its age and no sooner: 7 days for tombstones, 24 hours for answers, by the clock that stamped
/// them.
pub async fn what_is_old_goes_at_its_age(target: &Target) {
    let ago = |hours: u32| match &target.place {
        Place::File(_) => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{hours} hours')"),
        _ => format!("UTC_TIMESTAMP(3) - INTERVAL {hours} HOUR"),
    };
    for (key, hours) in [("young", 7 * 24 - 1), ("old", 7 * 24 + 1)] {
        target.one(create(&target.things, key, titled("x"))).await.unwrap();
        target.one(delete(&target.things, key, Guard::Any)).await.unwrap();
        let at = ago(hours);
        by_hand(target, &format!("UPDATE flyweight_tombstones SET deleted_at = {at} WHERE id = '{key}'"))
            .await;
    }
    let mut answers = Vec::new();
    for (key, hours) in [("young", 23), ("old", 25)] {
        let idempotency = Idempotency { key: key.to_owned(), request: "r".to_owned() };
        let origin = Origin { idempotency: Some(idempotency.clone()), ..Origin::of("ann") };
        let work = UnitOfWork::new(vec![create(&target.things, &format!("a-{key}"), titled("x"))], &origin);
        target.store.commit(work).await.unwrap();
        let at = ago(hours);
        by_hand(target, &format!("UPDATE flyweight_idempotency SET at = {at} WHERE id = '{key}'")).await;
        answers.push(idempotency);
    }
    assert_eq!(target.store.prune().await.unwrap(), 2);
    assert_eq!(target.lookup(&target.things, "old").await, Lookup::Missing);
    assert_eq!(target.lookup(&target.things, "young").await, Lookup::Deleted(Version(2)));
    let known = async |key: &Idempotency| target.store.recall(&target.things, key).await.unwrap().is_some();
    assert!(known(&answers[0]).await && !known(&answers[1]).await);
    // what is stamped now is stamped by the server
    let apart = target.store.now().await.unwrap().0.abs_diff(Timestamp::now().0);
    assert!(apart < 60_000, "the server's time is {apart} ms apart");
}

/// A file that a process with a right clock wrote, then one whose clock is days ahead: what is young stays.
#[tokio::test]
async fn a_clock_that_is_ahead_prunes_no_file() {
    let target = Target::sqlite().await.unwrap();
    target.one(create(&target.things, "k", titled("x"))).await.unwrap();
    target.one(delete(&target.things, "k", Guard::Any)).await.unwrap();
    // as if this process's clock were 8 days ahead of the one that wrote
    for (table, column) in [("flyweight_tombstones", "deleted_at"), ("flyweight_audit", "at")] {
        by_hand(
            &target,
            &format!("UPDATE {table} SET {column} = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-8 days')"),
        )
        .await;
    }
    let next = target.again().await;
    assert_eq!(next.store.prune().await.unwrap(), 0);
    assert_eq!(next.lookup(&target.things, "k").await, Lookup::Deleted(Version(2)));
    target.remove().await;
}

pub async fn many_processes_prepare_at_once(target: &Target) {
    let payments = Arc::new(Collection {
        pool: "payments".to_owned(),
        schema: Arc::new(model::entities::payment::schema()),
        name: "my_payments".to_owned(),
        ..(*target.users).clone()
    });
    let stores: Vec<SqlStore> = (0..4).map(|_| plain(target)).collect();
    let collections = [target.users.clone(), payments.clone(), target.things.clone()];
    for result in join_all(stores.iter().map(|store| store.prepare(&collections))).await {
        result.unwrap();
    }
    assert_eq!(target.store.read(&payments, &["x".parse().unwrap()]).await.unwrap(), [Lookup::Missing]);
}

pub async fn a_field_that_cannot_be_encrypted_is_refused(target: &Target) {
    for name in ["email", "username"] {
        let mut schema = (*target.users.schema).clone();
        schema.fields.iter_mut().filter(|field| field.name == name).for_each(|field| field.encrypted = true);
        let users = Collection { schema: Arc::new(schema), ..(*target.users).clone() };
        let result = target.store.prepare(&[Arc::new(users)]).await;
        assert!(
            matches!(&result, Err(StoreError::Unprepared(why)) if why.message.contains(name)),
            "{result:?}"
        );
    }
}

/// What a restart of the server does to connections; SQLite has none to lose.
pub async fn lost_connections_are_made_again(target: &Target) {
    let Place::Mysql { server, database, .. } = &target.place else { return };
    let things = &target.things;
    target.one(create(things, "k", titled("x"))).await.unwrap();
    for round in 1..4 {
        join_all((0..8).map(|_| target.lookup(things, "k"))).await;
        let mut connection = MySqlConnection::connect(server).await.unwrap();
        let select = format!("SELECT id FROM information_schema.processlist WHERE db = '{database}'");
        for row in sqlx::query(AssertSqlSafe(select)).fetch_all(&mut connection).await.unwrap() {
            let id: u64 = row.get_unchecked(0);
            _ = connection.execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
        let written = target.one(upsert(things, "k", Guard::Any, titled("y"))).await.unwrap();
        assert_eq!(written.version, Version(round + 1));
        assert_eq!(found(target.lookup(things, "k").await).version, Version(round + 1));
    }
}

/// Between the look at the tombstones and the insertion the record comes and goes: the create waits there for
/// a lock that is held by hand.
pub async fn a_create_that_raced_with_a_deletion_goes_on_counting(target: &Target) {
    let Place::Mysql { url, database, .. } = &target.place else { return };
    let things = &target.things;
    let mut hand = MySqlConnection::connect(url).await.unwrap();
    hand.execute("START TRANSACTION").await.unwrap();
    let held =
        "INSERT INTO flyweight_idempotency (id, request, at, answer) VALUES ('race', 'r', NOW(), '[]')";
    hand.execute(held).await.unwrap();
    let idempotency = Some(Idempotency { key: "race".to_owned(), request: "r".to_owned() });
    let origin = Origin { idempotency, ..Origin::of("tester") };
    let late = UnitOfWork::new(vec![create(things, "k", titled("late"))], &origin);
    let meanwhile = async {
        let waits = format!(
            "SELECT 1 FROM information_schema.processlist WHERE db = '{database}' AND command = 'Execute' \
             AND info LIKE 'INSERT INTO `flyweight_idempotency`%'"
        );
        let mut connection = MySqlConnection::connect(url).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while sqlx::query(AssertSqlSafe(waits.clone())).fetch_all(&mut connection).await.unwrap().is_empty() {
            assert!(Instant::now() < deadline, "the create does not wait");
        }
        target.one(create(things, "k", titled("early"))).await.unwrap();
        target.one(delete(things, "k", Guard::Any)).await.unwrap();
        hand.execute("ROLLBACK").await.unwrap();
    };
    let (written, ()) = tokio::join!(target.store.commit(late), meanwhile);
    assert_eq!(written.unwrap()[0].version, Version(3));
    assert_eq!(found(target.lookup(things, "k").await).version, Version(3));
}

/// A new account has to prove its password in full: encrypted with the server's key, where there is no TLS.
#[tokio::test]
async fn sign_in_by_caching_sha2_password_without_tls() {
    let Some(server) = server("MYSQL_URL") else { return };
    let root = server.replace("shop:shop-secret@", "root:root-secret@");
    let account = format!("fw_{}", &Uuid::now_v7().simple().to_string()[16..]);
    run(&root, &format!("CREATE USER {account} IDENTIFIED WITH caching_sha2_password BY 'p w@d/%1'")).await;
    let url = server.replace("shop:shop-secret@", &format!("{account}:p%20w%40d%2F%251@"));
    let url = format!("{}/?ssl-mode=DISABLED", url.rsplit_once('/').unwrap().0);
    let store = SqlStore::mysql(MysqlOptions::new(url), sealer()).unwrap();
    store.ping().await.unwrap();
    run(&root, &format!("DROP USER {account}")).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_in_time() {
    let store = SqlStore::mysql(MysqlOptions::new("mysql://a:b@127.0.0.1:9/shop"), sealer()).unwrap();
    let started = Instant::now();
    let result = store.ping().await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_told() {
    let result = SqlStore::sqlite(std::path::Path::new("/nowhere/at/all/x.db"), sealer());
    assert!(matches!(result, Err(StoreError::Unavailable(_))));
}

/// A unique value is taken by the first change that takes it, and free from the one that gives it up: not
/// before, and not only in the end.
pub async fn unique_values_go_by_the_order_of_the_changes(target: &Target) {
    let users = &target.users;
    let as_ = |email: &str| person(&format!("{email}@example.com"), None);
    target.commit(vec![create(users, "a", as_("x")), create(users, "b", as_("y"))]).await.unwrap();
    // taken before it is given up
    for (index, changes) in [
        (0, vec![create(users, "c", as_("x")), delete(users, "a", Guard::Any)]),
        (
            1,
            vec![
                replace(users, "b", Guard::Any, as_("z")),
                replace(users, "b", Guard::Any, as_("x")),
                delete(users, "a", Guard::Any),
            ],
        ),
        (2, vec![create(users, "c", as_("1")), create(users, "d", as_("2")), create(users, "e", as_("1"))]),
    ] {
        let result = target.commit(changes).await;
        let Err(StoreError::At { index: at, error }) = &result else { panic!("{index}: {result:?}") };
        assert!(matches!(&**error, StoreError::Duplicate { field } if field == "email"), "{result:?}");
        assert_eq!(*at, index, "{result:?}");
    }
    assert_eq!(found(target.lookup(users, "a").await).values, as_("x"));
    assert_eq!(found(target.lookup(users, "b").await).values, as_("y"));
    assert_eq!(target.lookup(users, "c").await, Lookup::Missing);
    // two records change places, by a third value
    let turned = vec![
        replace(users, "a", exactly(1), as_("free")),
        replace(users, "b", exactly(1), as_("x")),
        replace(users, "a", exactly(2), as_("y")),
        delete(users, "b", exactly(2)),
        create(users, "c", as_("x")),
    ];
    let versions: Vec<u64> = target.commit(turned).await.unwrap().iter().map(|one| one.version.0).collect();
    assert_eq!(versions, [2, 2, 3, 3, 1]);
    assert_eq!(found(target.lookup(users, "a").await).values, as_("y"));
    assert_eq!(target.lookup(users, "b").await, Lookup::Deleted(Version(3)));
    let events = target.store.outbox().claim("o", Duration::from_secs(10), 20).await.unwrap().events;
    assert_eq!(events.len(), 7, "one for each change");
}

/// What stands in for MongoDB on a laptop refuses what a server of its own refuses, in the same words.
#[tokio::test]
async fn the_stand_in_refuses_units_of_several_records() {
    let target = Target::sqlite().await.unwrap();
    let Place::File(path) = &target.place else { panic!("no file") };
    let store = SqlStore::sqlite(path, sealer()).unwrap().of_documents();
    store.prepare(&[target.users.clone(), target.things.clone()]).await.unwrap();
    let things = &target.things;
    let unit = |changes| UnitOfWork::new(changes, &Origin::of("tester"));
    let several = vec![create(things, "a", titled("x")), create(things, "b", titled("y"))];
    let result = store.commit(unit(several)).await;
    assert!(matches!(&result, Err(StoreError::Unsupported(why)) if why.contains("MongoDB")), "{result:?}");
    let other =
        vec![create(things, "a", titled("x")), create(&target.users, "a", person("a@example.com", None))];
    assert!(matches!(store.commit(unit(other)).await, Err(StoreError::Unsupported(_))));
    let one = vec![create(things, "a", titled("x")), replace(things, "a", exactly(1), titled("y"))];
    assert_eq!(store.commit(unit(one)).await.unwrap().len(), 2);
    target.remove().await;
}
