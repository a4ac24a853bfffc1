//! A way to a server that is cut, or that changes what is sent: outcomes that nobody can know, settings that
//! do not take.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// What happens to the bytes on the way.
const PASS: u8 = 0;
/// The connection is cut when it asks to commit: the server never hears of it.
const CUT_BEFORE: u8 = 1;
/// The connection is cut when the server has committed: the answer is lost.
const CUT_AFTER: u8 = 2;
/// The time zone that a session asks for is replaced.
const CHANGE: u8 = 3;

/// A store that reaches its server over such a way.
struct Way {
    url: String,
    mode: Arc<AtomicU8>,
}

impl Way {
    /// None where there is no server.
    async fn to(target: &Target) -> Option<Self> {
        let Place::Mysql { url, .. } = &target.place else { return None };
        let (account, rest) = url.split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{account}@{}/{database}?ssl-mode=DISABLED", listener.local_addr().unwrap());
        let mode = Arc::new(AtomicU8::new(PASS));
        let (server, shared) = (server.to_owned(), mode.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let mode = shared.clone();
                tokio::spawn(async move { _ = carry(client, server, &mode).await });
            }
        });
        Some(Self { url, mode })
    }

    async fn store(&self, target: &Target) -> Target {
        let options =
            MysqlOptions { acquire_timeout: Duration::from_secs(1), ..MysqlOptions::new(&self.url) };
        let store = Arc::new(SqlStore::mysql(options, sealer()).unwrap());
        let Place::Mysql { server, url, database } = &target.place else { unreachable!("a server") };
        let place = Place::Mysql { server: server.clone(), url: url.clone(), database: database.clone() };
        Target::prepared(store, place).await
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mode: &AtomicU8) -> std::io::Result<()> {
    let (mut sent, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            len = client.read(&mut sent) => {
                let bytes = &mut sent[..len?];
                if bytes.is_empty() {
                    return Ok(());
                }
                let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|part| part == what);
                match mode.load(Ordering::SeqCst) {
                    CUT_BEFORE if has(bytes, b"\x03COMMIT").is_some() => return Ok(()),
                    CUT_AFTER if has(bytes, b"\x03COMMIT").is_some() => {
                        server.write_all(bytes).await?;
                        // once it answers it has committed
                        return server.read(&mut answered).await.map(drop);
                    }
                    CHANGE => {
                        if let Some(at) = has(bytes, b"+00:00") {
                            bytes[at..at + 6].copy_from_slice(b"+05:30");
                        }
                    }
                    _ => {}
                }
                server.write_all(bytes).await?;
            }
            len = server.read(&mut answered) => {
                let len = len?;
                if len == 0 {
                    return Ok(());
                }
                client.write_all(&answered[..len]).await?;
            }
        }
    }
}

fn keyed(key: &str, change: Change) -> UnitOfWork {
    let idempotency = Some(Idempotency { key: key.to_owned(), request: "r".to_owned() });
    UnitOfWork::new(vec![change], &Origin { idempotency, ..Origin::of("tester") })
}

pub async fn a_commit_that_is_cut_off_has_an_unknown_outcome(target: &Target) {
    let Some(way) = Way::to(target).await else { return };
    let cut = way.store(target).await;
    let things = &target.things;
    for (mode, key) in [(CUT_BEFORE, "before"), (CUT_AFTER, "after")] {
        let unit = || keyed(key, create(things, key, titled(key)));
        way.set(mode);
        let result = cut.store.commit(unit()).await;
        assert!(matches!(result, Err(StoreError::Unknown(_))), "{key}: {result:?}");
        way.set(PASS);
        // a repeat of the same request finds out, and does it only where it was not done
        let written = cut.store.commit(unit()).await.unwrap().remove(0);
        assert_eq!((written.version, written.repeated), (Version(1), mode == CUT_AFTER), "{key}");
        assert_eq!(found(target.lookup(things, key).await).version, Version(1));
    }
    assert_eq!(target.store.outbox().backlog().await.unwrap().events, 2, "each has one event");
}

pub async fn creates_whose_commit_is_cut_off_are_not_done_again(target: &Target) {
    let Some(way) = Way::to(target).await else { return };
    let cut = way.store(target).await;
    let things = &target.things;
    for (mode, name, there) in [(CUT_BEFORE, "b", 0), (CUT_AFTER, "a", 16)] {
        let keys: Vec<String> = (0..16).map(|index| format!("{name}{index}")).collect();
        let fresh =
            |key: &String| change(things, key, Action::Create { values: titled(key), fresh_key: true });
        way.set(mode);
        for result in join_all(keys.iter().map(|key| cut.one(fresh(key)))).await {
            assert!(matches!(result, Err(StoreError::Unknown(_))), "{name}: {result:?}");
        }
        way.set(PASS);
        let mut found = 0;
        for key in &keys {
            match target.lookup(things, key).await {
                Lookup::Missing => {}
                Lookup::Found(record) if record.version == Version(1) => found += 1,
                other => panic!("{key}: {other:?}"),
            }
        }
        assert_eq!((found, target.store.outbox().backlog().await.unwrap().events), (there, there));
    }
}

pub async fn settings_that_do_not_take_are_told(target: &Target) {
    let Some(way) = Way::to(target).await else { return };
    let store = way.store(target).await.store;
    // those that are set as they must be go on
    way.set(CHANGE);
    let options = MysqlOptions { acquire_timeout: Duration::from_millis(300), ..MysqlOptions::new(&way.url) };
    let changed = SqlStore::mysql(options, sealer()).unwrap();
    let told = changed.read(&target.things, &["k".parse().unwrap()]).await;
    assert!(matches!(&told, Err(StoreError::Setup(why)) if why.contains("time_zone is +05:30")), "{told:?}");
    let told = changed.commit(keyed("k", create(&target.things, "k", titled("x")))).await;
    assert!(matches!(&told, Err(StoreError::Setup(_))), "{told:?}");
    store.ping().await.unwrap();
    way.set(PASS);
    changed.ping().await.unwrap();
}
