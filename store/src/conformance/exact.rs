//! What is acknowledged is what is stored: columns that hold less than the schema, triggers, generated
//! columns, other people's numbers.

use declared::{is_server, shelves};
use sql::by_hand;

use super::*;
use model::{audit::AuditQuery, wide::Wide};

const VERSION: Option<&str> = Some("version");

async fn prepared(target: &Target, fields: Vec<Field>, columns: &str) -> Arc<Collection> {
    let shelves = shelves(VERSION, fields);
    by_hand(target, &format!("CREATE TABLE shelves ({columns})")).await;
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    shelves
}

fn int(name: &str) -> Field {
    Field::new(name, Kind::Int { min: i64::MIN, max: i64::MAX })
}

pub async fn numbers_without_a_sign_come_back_of_every_size(target: &Target) {
    if !is_server(target) {
        return;
    }
    let names = ["tiny", "small", "medium", "middle", "large"];
    let mut fields: Vec<Field> = names.iter().map(|name| int(name)).collect();
    fields.push(Field::new("price", Kind::money(0)));
    let columns = "no VARCHAR(20) PRIMARY KEY, version INT UNSIGNED NOT NULL, tiny TINYINT UNSIGNED, small SMALLINT UNSIGNED, \
                   medium MEDIUMINT UNSIGNED, middle INT UNSIGNED, large BIGINT UNSIGNED, price DECIMAL(10,2) UNSIGNED";
    let shelves = prepared(target, fields, columns).await;
    let most = [255, 65_535, 16_777_215, 4_294_967_295, i64::MAX];
    let rows: [[i64; 5]; 4] = [[12; 5], [1; 5], [49; 5], most];
    for (index, row) in rows.iter().enumerate() {
        let [tiny, small, medium, middle, large] = row;
        let values =
            format!("'k{index}', {}, {tiny}, {small}, {medium}, {middle}, {large}, 12.50", index + 1);
        by_hand(target, &format!("INSERT INTO shelves VALUES ({values})")).await;
    }
    target.one(create(&shelves, "gone", Row(vec![Value::Null; 6]))).await.unwrap();
    target.one(delete(&shelves, "gone", Guard::Any)).await.unwrap();
    let keys: Vec<Key> =
        ["k0", "gone", "k1", "k2", "k3", "none"].iter().map(|key| key.parse().unwrap()).collect();
    let lookups = target.store.read(&shelves, &keys).await.unwrap();
    assert_eq!((&lookups[1], &lookups[5]), (&Lookup::Deleted(Version(2)), &Lookup::Missing));
    for (index, place) in [0, 2, 3, 4].into_iter().enumerate() {
        let record = found(lookups[place].clone());
        let mut wanted: Vec<Value> = rows[index].iter().map(|number| Value::Int(*number)).collect();
        wanted.push(decimal("12.5"));
        assert_eq!((record.version, record.values), (Version(index as u64 + 1), Row(wanted)));
    }
    let written =
        target.one(upsert(&shelves, "k3", exactly(4), found(lookups[4].clone()).values)).await.unwrap();
    assert_eq!(found(target.lookup(&shelves, "k3").await), written.record.unwrap());
}

fn whole(text: &str) -> Value {
    Value::Wide(Wide::parse(text).unwrap())
}

/// Of each field what its column holds, and what it would cut, round or fold.
fn narrow(server: bool) -> Vec<(Field, &'static str, Vec<Value>, Vec<Value>)> {
    let label = Field::new("label", Kind::text(1000));
    let long = "x".repeat(256);
    let mut columns = vec![
        (
            label,
            "VARCHAR(5)",
            vec![text("abcde"), text("ab  "), text("漢漢漢漢漢")],
            vec![text("abcdef"), text("abcde ")],
        ),
        (
            Field::new("code", Kind::text(1000)),
            "CHAR(4)",
            vec![text("ab"), text(" a")],
            vec![text("ab "), text("abcde")],
        ),
        (
            int("small"),
            "TINYINT",
            vec![Value::Int(-128), Value::Int(127)],
            vec![Value::Int(128), Value::Int(-129)],
        ),
        (
            int("count"),
            "SMALLINT UNSIGNED",
            vec![Value::Int(65_535)],
            vec![Value::Int(-1), Value::Int(65_536)],
        ),
        (
            int("large"),
            "BIGINT",
            vec![Value::Int(i64::MIN), Value::Int(i64::MAX)],
            vec![whole("9223372036854775808"), whole("-9223372036854775809")],
        ),
        (
            int("counter"),
            "BIGINT UNSIGNED",
            // a file has no more than 63 bits of them, and says so
            if server {
                vec![Value::Int(0), whole("18446744073709551615")]
            } else {
                vec![Value::Int(0), Value::Int(i64::MAX)]
            },
            vec![Value::Int(-1), whole("18446744073709551616")],
        ),
        (int("must"), "INTEGER NOT NULL", vec![Value::Int(1)], vec![Value::Null]),
        (
            Field::new("seen", Kind::Time),
            "DATETIME(0)",
            vec![time("2026-01-31T12:00:00Z")],
            vec![time("2026-01-31T12:00:00.5Z")],
        ),
    ];
    if !server {
        return columns;
    }
    let tags = Kind::Json { max: 100_000, shape: Shape::Any };
    let exact = Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: 20 };
    let instant = |name| Field::new(name, Kind::Time);
    columns.extend([
        (
            Field::new("word", Kind::text(100)),
            "ENUM('Red','blue','it''s')",
            vec![text("Red"), text("it's")],
            vec![text("red"), text("RED"), text("1"), text(""), text("Red ")],
        ),
        (
            Field::new("latin", Kind::text(100)),
            "VARCHAR(20) CHARACTER SET latin1",
            vec![text("Ä€ÿ")],
            vec![text("😀"), text("Ł")],
        ),
        (
            Field::new("basic", Kind::text(100)),
            "VARCHAR(20) CHARACTER SET utf8mb3",
            vec![text("漢Ł")],
            vec![text("😀")],
        ),
        (
            Field::new("greek", Kind::text(100)),
            "VARCHAR(20) CHARACTER SET greek",
            vec![text("αβ")],
            vec![text("é"), text("😀")],
        ),
        (
            Field::new("brief", Kind::text(1000)),
            "TINYTEXT",
            vec![text("é")],
            vec![text(&long), text(&"é".repeat(128))],
        ),
        (Field::new("tags", tags), "TINYTEXT", vec![json("[1]")], vec![json(&format!("\"{long}\""))]),
        (
            Field::new("price", exact.clone()),
            "DECIMAL(6,2)",
            vec![decimal("9999.99"), decimal("-0.5")],
            vec![decimal("10000"), decimal("0.005"), decimal("1.999")],
        ),
        (Field::new("gain", exact), "DECIMAL(6,2) UNSIGNED", vec![decimal("1")], vec![decimal("-1")]),
        (
            instant("fine"),
            "DATETIME(2)",
            vec![time("2026-01-31T12:00:00.12Z"), time("1000-01-01T00:00:00Z")],
            vec![time("2026-01-31T12:00:00.123Z")],
        ),
        (
            instant("stamp"),
            "TIMESTAMP(3) NULL",
            vec![time("2026-07-31T12:00:00.123Z"), time("2038-01-19T03:14:07Z")],
            vec![time("1969-12-31T23:59:59Z"), time("1970-01-01T00:00:00Z"), time("2500-01-01T00:00:00Z")],
        ),
    ]);
    columns
}

pub async fn what_a_column_cannot_hold_is_refused_with_its_field(target: &Target) {
    let columns = narrow(is_server(target));
    let declared: String =
        columns.iter().map(|(field, form, ..)| format!(", {} {form}", field.name)).collect();
    let fields = columns.iter().map(|(field, ..)| field.clone()).collect();
    let declared = format!("no VARCHAR(8) PRIMARY KEY, version INTEGER NOT NULL{declared}");
    let shelves = prepared(target, fields, &declared).await;
    let good = Row(columns.iter().map(|(_, _, good, _)| good[0].clone()).collect());
    let first = target.one(create(&shelves, "a", good.clone())).await.unwrap().record.unwrap();
    assert_eq!(found(target.lookup(&shelves, "a").await), first, "as it was acknowledged");
    for (at, (field, form, good_values, bad_values)) in columns.iter().enumerate() {
        let with = |value: &Value| {
            let mut row = good.clone();
            row.0[at] = value.clone();
            row
        };
        for (index, value) in good_values.iter().enumerate() {
            let written = target.one(upsert(&shelves, "good", Guard::Any, with(value))).await;
            let written = written.unwrap_or_else(|error| panic!("{form} {index}: {error}")).record.unwrap();
            assert_eq!(found(target.lookup(&shelves, "good").await), written, "{form}");
        }
        for value in bad_values {
            let fresh = Action::Create { values: with(value), fresh_key: true };
            let changes = [
                change(&shelves, "new", fresh),
                create(&shelves, "new", with(value)),
                replace(&shelves, "a", Guard::Any, with(value)),
                upsert(&shelves, "a", exactly(1), with(value)),
            ];
            for change in changes {
                let result = target.one(change).await;
                let Err(StoreError::Invalid(faults)) = &result else {
                    panic!("{form} {value:?}: {result:?}")
                };
                assert_eq!(
                    faults.iter().map(|fault| &fault.field).collect::<Vec<_>>(),
                    [&field.name],
                    "{form} {value:?}"
                );
            }
        }
    }
    let long = target.one(create(&shelves, "k12345678", good.clone())).await;
    assert!(matches!(&long, Err(StoreError::Invalid(faults)) if faults[0].field == "no"), "{long:?}");
    assert_eq!(found(target.lookup(&shelves, "a").await), first, "what is refused changes nothing");
    assert_eq!(target.lookup(&shelves, "new").await, Lookup::Missing);
}

pub async fn what_the_database_makes_of_a_record_is_what_is_told(target: &Target) {
    let fields = vec![Field::new("label", Kind::text(100)), int("size"), int("double")];
    let columns = "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label VARCHAR(100), size INTEGER, \
                   `double` INTEGER GENERATED ALWAYS AS (size * 2) STORED";
    let shelves = shelves(VERSION, fields);
    by_hand(target, &format!("CREATE TABLE shelves ({columns})")).await;
    let triggers = match is_server(target) {
        true => ["INSERT", "UPDATE"].map(|on| {
            format!(
                "CREATE TRIGGER up_{on} BEFORE {on} ON shelves FOR EACH ROW SET NEW.label = UPPER(NEW.label)"
            )
        }),
        false => ["INSERT", "UPDATE"].map(|on| {
            format!(
                "CREATE TRIGGER up_{on} AFTER {on} ON shelves BEGIN \
                 UPDATE shelves SET label = upper(label) WHERE no = NEW.no AND label <> upper(label); END"
            )
        }),
    };
    for trigger in &triggers {
        by_hand(target, trigger).await;
    }
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let row = |label: &str, size: i64| Row(vec![text(label), Value::Int(size), Value::Null]);
    let idempotency = Some(Idempotency { key: "once".to_owned(), request: "r".to_owned() });
    let origin = Origin { idempotency, ..Origin::of("tester") };
    let changes = || vec![create(&shelves, "a", row("tea", 2)), create(&shelves, "b", row("pot", 3))];
    let first = target.store.commit(UnitOfWork::new(changes(), &origin)).await.unwrap();
    let again = target.store.commit(UnitOfWork::new(changes(), &origin)).await.unwrap();
    let made = Row(vec![text("TEA"), Value::Int(2), Value::Int(4)]);
    for written in [&first, &again] {
        assert_eq!(written[0].record.as_ref().unwrap().values, made);
        assert_eq!(written[0].record, Some(found(target.lookup(&shelves, "a").await)));
        assert_eq!(written[1].record, Some(found(target.lookup(&shelves, "b").await)));
    }
    let second = target.one(replace(&shelves, "a", exactly(1), row("cup", 5))).await.unwrap().record.unwrap();
    assert_eq!(second, found(target.lookup(&shelves, "a").await));
    assert_eq!(second.values, Row(vec![text("CUP"), Value::Int(5), Value::Int(10)]));
    let fresh = Action::Create { values: row("jug", 1), fresh_key: true };
    let third = target.one(change(&shelves, "c", fresh)).await.unwrap().record.unwrap();
    assert_eq!(third, found(target.lookup(&shelves, "c").await));
    let events =
        target.store.outbox().claim("o", std::time::Duration::from_secs(10), 10).await.unwrap().events;
    let told: Vec<String> =
        events.iter().map(|event| event.data.as_ref().unwrap().get().to_owned()).collect();
    let schema = &shelves.schema;
    let records = [first[0].record.as_ref(), first[1].record.as_ref(), Some(&second), Some(&third)];
    assert_eq!(told, records.map(|record| record.unwrap().to_masked_json(schema)));
    let entries = target
        .store
        .audit(&AuditQuery { entities: vec!["shelf".to_owned()], limit: 10, ..AuditQuery::default() })
        .await
        .unwrap()
        .entries;
    let after = entries.iter().filter_map(|entry| Some(entry.after.as_ref()?.get().to_owned()));
    assert_eq!(after.collect::<Vec<_>>(), told);
}

/// An account that may not make triggers does not see them either.
pub async fn triggers_that_are_not_seen_are_minded(target: &Target) {
    let Place::Mysql { server, url, database } = &target.place else { return };
    if sql::is_mariadb(url).await {
        // its account of all rights has another password
        return;
    }
    let shelves = shelves(VERSION, vec![Field::new("label", Kind::text(100))]);
    let columns = "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label VARCHAR(100)";
    by_hand(target, &format!("CREATE TABLE shelves ({columns})")).await;
    by_hand(
        target,
        "CREATE TRIGGER up BEFORE INSERT ON shelves FOR EACH ROW SET NEW.label = UPPER(NEW.label)",
    )
    .await;
    let root = server.replace("shop:shop-secret@", "root:root-secret@");
    let account = format!("fw_{}", &Uuid::now_v7().simple().to_string()[16..]);
    sql::run(&root, &format!("CREATE USER {account} IDENTIFIED BY 'least'")).await;
    sql::run(&root, &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {account}")).await;
    let url = url.replace("shop:shop-secret@", &format!("{account}:least@"));
    let store = SqlStore::mysql(MysqlOptions::new(url), sealer()).unwrap();
    store.prepare(&[target.users.clone(), shelves.clone()]).await.unwrap();
    let work = UnitOfWork::new(vec![create(&shelves, "a", Row(vec![text("tea")]))], &Origin::of("tester"));
    let written = store.commit(work).await.unwrap().remove(0);
    assert_eq!(written.record, Some(found(target.lookup(&shelves, "a").await)));
    assert_eq!(written.record.unwrap().values, Row(vec![text("TEA")]));
    sql::run(&root, &format!("DROP USER {account}")).await;
}

/// A number that the database counts up is told as it is in the row; 0 is a number like any other.
pub async fn numbers_that_are_counted_up_are_told(target: &Target) {
    if !is_server(target) {
        return;
    }
    let fields = vec![int("place")];
    let columns =
        "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, place INTEGER NOT NULL AUTO_INCREMENT UNIQUE";
    let shelves = prepared(target, fields, columns).await;
    for (key, sent, kept) in [("a", Value::Int(41), 41), ("b", Value::Null, 42), ("c", Value::Int(0), 0)] {
        let written = target.one(create(&shelves, key, Row(vec![sent]))).await.unwrap().record.unwrap();
        assert_eq!(written.values, Row(vec![Value::Int(kept)]));
        assert_eq!(found(target.lookup(&shelves, key).await), written);
    }
}

pub async fn times_are_told_as_they_are_kept(target: &Target) {
    let key = "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label VARCHAR(100)";
    let forms = match is_server(target) {
        true => vec![
            ", created_at DATETIME, updated_at TIMESTAMP(1) NULL",
            ", created_at TIMESTAMP(6) NULL, updated_at DATETIME(6)",
            ", updated_at DATETIME",
            ", created_at DATETIME(3)",
            "",
        ],
        false => {
            vec![", created_at DATETIME(0), updated_at DATETIME(1)", ", created_at TEXT, updated_at TEXT"]
        }
    };
    for form in forms {
        let shelves =
            prepared(target, vec![Field::new("label", Kind::text(100))], &format!("{key}{form}")).await;
        for change in [
            create(&shelves, "a", Row(vec![text("1")])),
            replace(&shelves, "a", exactly(1), Row(vec![text("2")])),
            upsert(&shelves, "a", exactly(2), Row(vec![text("3")])),
            change(&shelves, "b", Action::Create { values: Row(vec![text("1")]), fresh_key: true }),
        ] {
            let written = target.one(change).await.unwrap();
            assert_eq!(
                written.record,
                Some(found(target.lookup(&shelves, written.key.as_str()).await)),
                "{form}"
            );
        }
        by_hand(target, "DROP TABLE shelves").await;
        by_hand(target, "DELETE FROM flyweight_tombstones").await;
    }
}

pub async fn refusals_of_the_database_are_in_our_own_words(target: &Target) {
    let server = is_server(target);
    let fields =
        vec![Field::new("label", Kind::text(100)), int("size"), Field::new("parent", Kind::text(20))];
    let columns = "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label VARCHAR(100), size INTEGER, parent VARCHAR(20), \
                   CHECK (size < 1000), FOREIGN KEY (parent) REFERENCES shelves (no)";
    let shelves = shelves(VERSION, fields);
    by_hand(target, &format!("CREATE TABLE shelves ({columns})")).await;
    let trigger = match server {
        true => {
            "CREATE TRIGGER guard BEFORE INSERT ON shelves FOR EACH ROW IF NEW.label = 'no' THEN \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'secret of the trigger'; END IF"
        }
        false => {
            "CREATE TRIGGER guard BEFORE INSERT ON shelves WHEN NEW.label = 'no' \
             BEGIN SELECT RAISE(ABORT, 'secret of the trigger'); END"
        }
    };
    by_hand(target, trigger).await;
    target.store.prepare(std::slice::from_ref(&shelves)).await.unwrap();
    let row = |label: &str, size: i64, parent: Option<&str>| {
        Row(vec![text(label), Value::Int(size), parent.map_or(Value::Null, text)])
    };
    target.one(create(&shelves, "a", row("yes", 1, None))).await.unwrap();
    target.one(create(&shelves, "b", row("yes", 1, Some("a")))).await.unwrap();
    let refused = [
        create(&shelves, "c", row("no", 1, None)),
        create(&shelves, "c", row("yes", 1000, None)),
        replace(&shelves, "a", Guard::Any, row("yes", 1000, None)),
        delete(&shelves, "a", Guard::Any),
    ];
    for change in refused {
        let result = target.one(change).await;
        let Err(StoreError::Unsupported(why)) = &result else { panic!("{result:?}") };
        assert!(!why.contains("secret") && !why.contains("guard") && !why.contains("constraint"), "{why}");
    }
    let orphan = target.one(create(&shelves, "c", row("yes", 1, Some("none")))).await;
    let is_told = match &orphan {
        Err(StoreError::Invalid(faults)) => server && faults[0].field == "parent",
        Err(StoreError::Unsupported(_)) => !server,
        _ => false,
    };
    assert!(is_told, "{orphan:?}");
    assert_eq!(target.lookup(&shelves, "c").await, Lookup::Missing);
}

pub async fn what_is_gone_while_running_is_not_said_to_pass(target: &Target) {
    let fields = vec![Field::new("label", Kind::text(100))];
    let shelves =
        prepared(target, fields, "no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label TEXT").await;
    target.one(create(&shelves, "a", Row(vec![text("x")]))).await.unwrap();
    let told = async |what: &str| {
        let read = target.store.read(&shelves, &["a".parse().unwrap()]).await;
        let write = target.one(upsert(&shelves, "a", Guard::Any, Row(vec![text("y")]))).await;
        for error in [read.err(), write.err()] {
            assert!(matches!(&error, Some(StoreError::Unprepared(_))), "{what}: {error:?}");
        }
    };
    // SQLite reads a name that it does not know as text; nobody else alters an embedded database while it is
    // served
    if is_server(target) {
        by_hand(target, "ALTER TABLE shelves RENAME COLUMN label TO other").await;
        told("renamed").await;
    }
    by_hand(target, "DROP TABLE shelves").await;
    told("dropped").await;
    // an embedded database added the times that the table did not have
    let times = if is_server(target) { "" } else { ", created_at TEXT, updated_at TEXT" };
    let columns = format!("no VARCHAR(20) PRIMARY KEY, version INTEGER NOT NULL, label TEXT{times}");
    by_hand(target, &format!("CREATE TABLE shelves ({columns})")).await;
    assert_eq!(target.lookup(&shelves, "a").await, Lookup::Missing);
    target.one(create(&shelves, "a", Row(vec![text("x")]))).await.unwrap();
}
