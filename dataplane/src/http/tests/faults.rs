//! Stores that fail: an answer in time that says what is known, and nothing of the inside.

use async_trait::async_trait;

use super::*;
use model::{
    audit::{AuditFound, AuditQuery},
    change::{Idempotency, UnitOfWork, Written},
    event::Outbox,
    fault::FieldFault,
    json::parse_create,
    key::{Key, Version},
    query::{Page, Query},
    record::{Lookup, Record},
    value::Timestamp,
};
use store::{
    StoreError,
    confined::{PoolFault, PoolReason},
};

/// A store that fails each call in one way.
struct Failing(fn() -> StoreError);

/// A store that never answers.
struct Silent;

#[async_trait]
impl RecordStore for Failing {
    async fn prepare(&self, _: &[Arc<Collection>]) -> Result<(), StoreError> {
        Err((self.0)())
    }
    async fn read(&self, _: &Collection, _: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        Err((self.0)())
    }
    async fn find(&self, _: &Collection, _: &Query) -> Result<Page, StoreError> {
        Err((self.0)())
    }
    async fn commit(&self, _: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        Err((self.0)())
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        Err((self.0)())
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        Err((self.0)())
    }
    async fn audit(&self, _: &AuditQuery) -> Result<AuditFound, StoreError> {
        Err((self.0)())
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Err((self.0)())
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        unreachable!("the API asks no outbox")
    }
}

#[async_trait]
impl RecordStore for Silent {
    async fn prepare(&self, _: &[Arc<Collection>]) -> Result<(), StoreError> {
        std::future::pending().await
    }
    async fn read(&self, _: &Collection, _: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        std::future::pending().await
    }
    async fn find(&self, _: &Collection, _: &Query) -> Result<Page, StoreError> {
        std::future::pending().await
    }
    async fn commit(&self, _: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        std::future::pending().await
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        std::future::pending().await
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        std::future::pending().await
    }
    async fn audit(&self, _: &AuditQuery) -> Result<AuditFound, StoreError> {
        std::future::pending().await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        unreachable!("the API asks no outbox")
    }
}

/// A store in which another writer is always first: each read and each commit takes a while, and then the
/// record has another version.
#[derive(Default)]
struct Busy {
    /// The deadline of each commit.
    deadlines: Mutex<Vec<Option<std::time::Instant>>>,
}

/// How long a call of the busy store takes.
const BUSY: Duration = Duration::from_millis(150);

#[async_trait]
impl RecordStore for Busy {
    async fn prepare(&self, _: &[Arc<Collection>]) -> Result<(), StoreError> {
        Ok(())
    }
    async fn read(&self, collection: &Collection, keys: &[Key]) -> Result<Vec<Lookup>, StoreError> {
        tokio::time::sleep(BUSY).await;
        let values = parse_create(&collection.schema, CREATE.as_bytes()).unwrap().values;
        let at = Timestamp::now();
        let record = |key: &Key| Record {
            key: key.clone(),
            version: Version(1),
            created_at: at,
            updated_at: at,
            values: values.clone(),
        };
        Ok(keys.iter().map(|key| Lookup::Found(record(key))).collect())
    }
    async fn find(&self, _: &Collection, _: &Query) -> Result<Page, StoreError> {
        unreachable!("nothing is searched")
    }
    async fn commit(&self, work: UnitOfWork) -> Result<Vec<Written>, StoreError> {
        self.deadlines.lock().push(work.deadline);
        tokio::time::sleep(BUSY).await;
        Err(StoreError::Stale { current: Version(2) })
    }
    async fn prune(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn recall(&self, _: &Collection, _: &Idempotency) -> Result<Option<Vec<Written>>, StoreError> {
        std::future::pending().await
    }
    async fn audit(&self, _: &AuditQuery) -> Result<AuditFound, StoreError> {
        Ok(AuditFound::default())
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn outbox(&self) -> Arc<dyn Outbox> {
        unreachable!("the API asks no outbox")
    }
}

/// Makes an error that a store gives.
type Fault = fn() -> StoreError;

const CREATE: &str = r#"{"name":"Tea","price":1}"#;

#[tokio::test]
async fn every_failure_of_a_store_has_its_answer() {
    let cases: [(Fault, u16, u16); 12] = [
        (|| StoreError::Unavailable("SELECT at 10.0.0.1".into()), 503, 503),
        (
            || StoreError::Unprepared(PoolFault::new(PoolReason::ColumnMissing, "there is no column x")),
            503,
            503,
        ),
        (|| StoreError::Full("the disk is full".into()), 507, 507),
        (|| StoreError::Unknown("SELECT at 10.0.0.1".into()), 504, 504),
        (|| StoreError::Corrupt("SELECT at 10.0.0.1".into()), 500, 500),
        (|| StoreError::Unsupported("this cannot be done".into()), 422, 422),
        (|| StoreError::Setup("a column is gone".into()), 500, 500),
        (|| StoreError::Invalid(vec![FieldFault::new("name", "is too long")]), 400, 400),
        (|| StoreError::ReadOnly("this cannot be written".into()), 403, 403),
        (|| StoreError::NotFound, 404, 404),
        (|| StoreError::Duplicate { field: "name".into() }, 409, 409),
        (|| StoreError::Stale { current: Version(7) }, 412, 412),
    ];
    for (error, read, write) in cases {
        let store: Arc<dyn RecordStore> = Arc::new(Failing(error));
        let server = Server::over(&store, &[collection_of(Entity::Product)]).await;
        for answer in [
            server.get("/products/p").await,
            server.get("/products").await,
            server.get("/products?ids=p").await,
        ] {
            answer.problem(read);
            assert!(!answer.text.contains("10.0.0.1"), "{}", answer.text);
            assert_eq!(answer.header("retry-after").is_empty(), !matches!(read, 503 | 507));
        }
        for answer in [
            server.post("/products", CREATE).await,
            server.put("/products/p", CREATE).await,
            server.delete("/products/p").await,
        ] {
            answer.problem(write);
            assert!(!answer.text.contains("10.0.0.1"), "{}", answer.text);
        }
        assert_eq!(server.commits.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn a_silent_store_is_answered_for_within_the_deadline() {
    let store: Arc<dyn RecordStore> = Arc::new(Silent);
    let server = Server::over(&store, &[collection_of(Entity::Product)]).await;
    let started = std::time::Instant::now();
    let (read, write) = tokio::join!(server.get("/products/p"), server.post("/products", CREATE));
    read.problem(503);
    write.problem(504);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn all_attempts_of_a_change_have_one_deadline() {
    let busy = Arc::new(Busy::default());
    let store: Arc<dyn RecordStore> = busy.clone();
    let server = Server::over(&store, &[collection_of(Entity::Product)]).await;
    let batch = r#"{"atomic":true,"operations":[{"op":"patch","id":"p","data":{"name":"B"}}]}"#;
    for change in ["patch", "batch"] {
        let started = std::time::Instant::now();
        let answer = match change {
            "patch" => server.patch("/products/p", r#"{"name":"B"}"#).await,
            _ => server.send(Method::POST, "/products/batch", &[("idempotency-key", "k")], batch).await,
        };
        let took = started.elapsed();
        let deadlines = std::mem::take(&mut *busy.deadlines.lock());
        assert!(
            answer.text.contains("not answer in time") || answer.text.contains("did not confirm"),
            "{}",
            answer.text
        );
        // twelve attempts would take 3.6 s, and the look for an earlier answer for ever
        assert!(
            (Duration::from_millis(900)..Duration::from_millis(1_900)).contains(&took),
            "{change}: {took:?}"
        );
        assert!(deadlines.len() > 1 && deadlines[0].is_some(), "it was tried again: {deadlines:?}");
        assert!(deadlines.iter().all(|deadline| *deadline == deadlines[0]), "one for all: {deadlines:?}");
    }
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_early() {
    let store: Arc<dyn RecordStore> = Arc::new(Silent);
    let server = Arc::new(Server::over(&store, &[collection_of(Entity::Product)]).await);
    let calls = (0..80).map(|_| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let answer = server.get("/products/p").await;
            answer.problem(503);
            answer.json()["type"].as_str().unwrap().to_owned()
        })
    });
    let mut shed = 0;
    for call in calls.collect::<Vec<_>>() {
        shed += usize::from(call.await.unwrap().ends_with(":overloaded"));
    }
    assert_eq!(shed, 80 - 64);
    let figures = server.resource("products").metrics().total();
    assert_eq!(
        (figures.total, figures.errors, figures.refused),
        (80, 64, 80 - 64),
        "a refusal is no failure"
    );
    // Probes do not wait at the gate.
    server.get("//livez").await.expect(200);
}
