//! What a transaction says to a server, recorded by one that only answers: a replica set by what it says of
//! itself.
//!
//! A real one is tried where `MONGODB_URI` names one: by the conformance suite.

use std::{collections::VecDeque, sync::Arc};

use bson::{Bson, Document, doc};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    RecordStore,
    mongo::{MongoStore, options::MongoOptions},
};
use model::{
    change::{Action, Collection, Guard, Idempotency, Origin},
    entities::product,
    seal::{SealError, Sealer},
    value::{Row, Value},
};

/// A server that answers every command, some as it was told to.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Every command but those of the driver's own care for the connection.
    heard: Vec<Document>,
    /// What is answered to the next commands of a name.
    answers: Vec<(&'static str, VecDeque<Document>)>,
    /// What makes it no replica set.
    is_alone: bool,
}

impl Recorder {
    async fn store(&self) -> MongoStore {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (recorder, own) = (self.clone(), address.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(recorder.clone().serve(stream, own.clone()));
            }
        });
        let options = MongoOptions::new(format!("mongodb://{address}/?directConnection=true"), "shop");
        MongoStore::connect(options, Arc::new(Plain)).await.unwrap()
    }

    fn answers(&self, name: &'static str, answers: impl IntoIterator<Item = Document>) {
        self.0.lock().answers.push((name, answers.into_iter().collect()));
    }

    /// The commands with these names, in order.
    fn heard(&self, names: &[&str]) -> Vec<Document> {
        let heard = self.0.lock().heard.clone();
        heard
            .into_iter()
            .filter(|command| names.iter().any(|name| command.keys().next().unwrap() == name))
            .collect()
    }

    async fn serve(self, mut stream: TcpStream, address: String) {
        while let Ok(length) = stream.read_i32_le().await {
            let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
            stream.read_exact(&mut rest).await.unwrap();
            let request = i32::from_le_bytes(rest[..4].try_into().unwrap());
            assert_eq!(i32::from_le_bytes(rest[8..12].try_into().unwrap()), 2013, "OP_MSG");
            let answer = self.answer(command_of(&rest[12..]), &address);
            let body = bson::serialize_to_vec(&answer).unwrap();
            let length = i32::try_from(16 + 5 + body.len()).unwrap();
            let mut reply = Vec::new();
            for number in [length, 1, request, 2013, 0] {
                reply.extend(number.to_le_bytes());
            }
            reply.push(0);
            reply.extend(body);
            stream.write_all(&reply).await.unwrap();
        }
    }

    fn answer(&self, command: Document, address: &str) -> Document {
        let name = command.keys().next().unwrap().clone();
        let mut inner = self.0.lock();
        if name.eq_ignore_ascii_case("hello") || name.eq_ignore_ascii_case("isMaster") {
            let mut hello = doc! {
                "ok": 1, "helloOk": true, "ismaster": true, "isWritablePrimary": true, "maxWireVersion": 21, "minWireVersion": 0,
                "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
                "logicalSessionTimeoutMinutes": 30, "localTime": bson::DateTime::now(),
            };
            if !inner.is_alone {
                hello.extend(
                    doc! { "setName": "rs0", "setVersion": 1, "hosts": [address], "me": address, "primary": address },
                );
            }
            return hello;
        }
        if name == "endSessions" {
            return doc! { "ok": 1 };
        }
        inner.heard.push(command.clone());
        let told = inner
            .answers
            .iter_mut()
            .find(|(told, _)| *told == name)
            .and_then(|(_, answers)| answers.pop_front());
        if let Some(told) = told {
            return told;
        }
        match name.as_str() {
            "find" => doc! { "ok": 1, "cursor": { "id": 0_i64, "ns": "shop.products", "firstBatch": [] } },
            "insert" => doc! { "ok": 1, "n": 1 },
            "update" => doc! { "ok": 1, "n": 1, "nModified": 1 },
            _ => doc! { "ok": 1 },
        }
    }
}

/// The command of a message, with its sequences of documents as lists.
fn command_of(mut body: &[u8]) -> Document {
    let (flags, rest) = body.split_at(4);
    assert_eq!(flags[0] & 1, 0, "no checksum is asked for");
    body = rest;
    let (mut command, mut lists) = (Document::new(), Vec::new());
    let length_of =
        |bytes: &[u8]| usize::try_from(i32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
    while let Some((kind, rest)) = body.split_first() {
        let (section, after) = rest.split_at(length_of(rest));
        body = after;
        if *kind == 0 {
            command = bson::deserialize_from_slice(section).unwrap();
            continue;
        }
        let end = section[4..].iter().position(|byte| *byte == 0).unwrap() + 4;
        let name = String::from_utf8(section[4..end].to_vec()).unwrap();
        let (mut documents, mut items) = (&section[end + 1..], Vec::new());
        while !documents.is_empty() {
            let (one, rest) = documents.split_at(length_of(documents));
            items.push(Bson::Document(bson::deserialize_from_slice(one).unwrap()));
            documents = rest;
        }
        lists.push((name, items));
    }
    lists.into_iter().for_each(|(name, items)| _ = command.insert(name, items));
    command
}

struct Plain;

impl Sealer for Plain {
    fn seal(&self, plain: &[u8], _: &str) -> String {
        String::from_utf8_lossy(plain).into_owned()
    }

    fn open(&self, sealed: &str, _: &str) -> Result<Vec<u8>, SealError> {
        Ok(sealed.as_bytes().to_vec())
    }
}

fn products() -> Arc<Collection> {
    Arc::new(Collection {
        pool: "products".to_owned(),
        schema: Arc::new(product::schema()),
        name: "products".to_owned(),
        key_column: "id".to_owned(),
        version_column: Some("version".to_owned()),
        declared: false,
    })
}

/// Creates two products, changes the first, and deletes it.
fn unit(origin: &Origin) -> UnitOfWork {
    let collection = products();
    let row = |name: &str| -> Row {
        collection
            .schema
            .row_of([("name", Value::Text(name.to_owned())), ("price", Value::Decimal(1.into()))])
    };
    let change =
        |key: &str, action| Change { collection: collection.clone(), key: key.parse().unwrap(), action };
    let guard = |version| Guard::Exactly(Version(version));
    let changes = vec![
        change("a", Action::Create { values: row("a"), fresh_key: false }),
        change("b", Action::Create { values: row("b"), fresh_key: false }),
        change("a", Action::Replace { guard: guard(1), values: row("c") }),
        change("a", Action::Delete { guard: guard(2) }),
    ];
    UnitOfWork::new(changes, origin)
}

const OF_A_TRANSACTION: [&str; 5] = ["find", "insert", "update", "commitTransaction", "abortTransaction"];

fn names(commands: &[Document]) -> Vec<String> {
    commands.iter().map(|command| command.keys().next().unwrap().clone()).collect()
}

fn failed(code: i32, label: &str) -> Document {
    doc! { "ok": 0, "code": code, "codeName": "Told", "errmsg": "told to", "errorLabels": [label] }
}

#[tokio::test]
async fn all_commands_of_a_unit_are_one_transaction_of_most_members() {
    let recorder = Recorder::default();
    let idempotency = Idempotency { key: "k".repeat(64), request: "r".repeat(64) };
    let origin = Origin { idempotency: Some(idempotency), ..Origin::of("ann") };
    let written = recorder.store().await.commit(unit(&origin)).await.unwrap();
    assert_eq!(written.iter().map(|one| one.version.0).collect::<Vec<_>>(), [1, 1, 2, 3]);
    let heard = recorder.heard(&OF_A_TRANSACTION);
    // whether the key is known is asked before
    let (before, heard) = heard.split_at(1);
    assert_eq!(before[0].get_str("find").ok(), Some("flyweight_idempotency"));
    assert!(!before[0].contains_key("autocommit"));
    assert_eq!(names(heard), ["find", "insert", "insert", "update", "update", "insert", "commitTransaction"]);
    assert_eq!(heard[0].get_bool("startTransaction").ok(), Some(true));
    assert_eq!(heard[0].get_document("readConcern").unwrap().get_str("level").ok(), Some("majority"));
    for command in heard {
        assert_eq!(command.get_bool("autocommit").ok(), Some(false), "{command}");
        assert_eq!(
            (&command["lsid"], &command["txnNumber"]),
            (&heard[0]["lsid"], &heard[0]["txnNumber"]),
            "{command}"
        );
        let last = command.contains_key("commitTransaction");
        assert_eq!(command.contains_key("writeConcern"), last, "{command}");
    }
    assert!(heard[1..].iter().all(|command| !command.contains_key("startTransaction")));
    let concern = heard[6].get_document("writeConcern").unwrap();
    assert_eq!((concern.get_str("w").ok(), concern.get_bool("j").ok()), (Some("majority"), Some(true)));
    // each change is guarded by what the one before it left, and the answer is filed with them
    let guard =
        |command: &Document| command.get_array("updates").unwrap()[0].as_document().unwrap()["q"].clone();
    assert_eq!(guard(&heard[3]), Bson::from(doc! { "_id": "a", "version": 1_i64 }));
    assert_eq!(guard(&heard[4]), Bson::from(doc! { "_id": "a", "version": 2_i64 }));
    let filed = heard[5].get_array("documents").unwrap()[0].as_document().unwrap();
    assert_eq!(filed.get_str("_id").ok(), Some("k".repeat(64).as_str()));
    assert!(filed.get_str("answer").unwrap().contains("\"key\":\"b\""));
}

#[tokio::test]
async fn a_transaction_that_may_pass_is_tried_again_as_a_new_one() {
    let recorder = Recorder::default();
    recorder.answers("insert", [failed(112, TRANSIENT_TRANSACTION_ERROR)]);
    recorder.store().await.commit(unit(&Origin::of("ann"))).await.unwrap();
    let heard = recorder.heard(&OF_A_TRANSACTION);
    let wanted = [
        "find",
        "insert",
        "abortTransaction",
        "find",
        "insert",
        "insert",
        "update",
        "update",
        "commitTransaction",
    ];
    assert_eq!(names(&heard), wanted);
    assert_ne!((&heard[0]["lsid"], &heard[0]["txnNumber"]), (&heard[3]["lsid"], &heard[8]["txnNumber"]));
    assert_eq!(heard[3].get_bool("startTransaction").ok(), Some(true));
}

#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_is_asked_for_again_and_nothing_else() {
    let recorder = Recorder::default();
    recorder.answers("commitTransaction", (0..4).map(|_| failed(91, UNKNOWN_TRANSACTION_COMMIT_RESULT)));
    let written = recorder.store().await.commit(unit(&Origin::of("ann"))).await.unwrap();
    assert_eq!(written.len(), 4);
    let heard = recorder.heard(&OF_A_TRANSACTION);
    assert_eq!(names(&heard)[..5], ["find", "insert", "insert", "update", "update"]);
    assert!(
        heard.len() > 6 && names(&heard)[5..].iter().all(|name| name == "commitTransaction"),
        "{:?}",
        names(&heard)
    );
    assert!(heard.iter().all(|command| command["txnNumber"] == heard[0]["txnNumber"]));
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_told_as_that() {
    let recorder = Recorder::default();
    recorder.answers("commitTransaction", (0..10_000).map(|_| failed(91, UNKNOWN_TRANSACTION_COMMIT_RESULT)));
    let origin = Origin::of("ann").within(Duration::from_millis(300));
    let told = recorder.store().await.commit(unit(&origin)).await;
    assert!(matches!(told, Err(StoreError::Unknown(_))), "{told:?}");
}

#[tokio::test]
async fn a_refused_change_is_named_and_the_transaction_given_up() {
    let recorder = Recorder::default();
    let taken = doc! {
        "ok": 1, "n": 0,
        "writeErrors": [{ "index": 0, "code": 11000, "errmsg": "E11000 duplicate key error collection: shop.products index: name_unique dup key: { : 1 }" }],
    };
    recorder.answers("insert", [doc! { "ok": 1, "n": 1 }, taken]);
    let told = recorder.store().await.commit(unit(&Origin::of("ann"))).await;
    let Err(StoreError::At { index: 1, error }) = &told else { panic!("{told:?}") };
    assert!(matches!(&**error, StoreError::Duplicate { .. }), "{told:?}");
    assert_eq!(names(&recorder.heard(&OF_A_TRANSACTION)), ["find", "insert", "insert", "abortTransaction"]);
}

#[tokio::test]
async fn a_server_of_its_own_has_no_transactions_and_says_so() {
    let recorder = Recorder::default();
    recorder.0.lock().is_alone = true;
    let told = recorder.store().await.commit(unit(&Origin::of("ann"))).await;
    assert!(matches!(&told, Err(StoreError::Unsupported(why)) if why.contains("MongoDB")), "{told:?}");
    assert!(recorder.heard(&OF_A_TRANSACTION).is_empty());
}

#[test]
fn transactions_are_known_by_what_the_server_says_of_itself() {
    for (hello, had) in [
        (doc! { "setName": "rs0", "logicalSessionTimeoutMinutes": 30 }, true),
        (doc! { "msg": "isdbgrid", "logicalSessionTimeoutMinutes": 30_i64 }, true),
        (doc! { "setName": "rs0" }, false),
        (doc! { "logicalSessionTimeoutMinutes": 30 }, false),
        (doc! {}, false),
    ] {
        assert_eq!(are_had(&hello), had, "{hello}");
    }
}
