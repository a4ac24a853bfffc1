//! The API on a real server on a free port, over SQLite.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::testing::Folder;
use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use crds::pool::{Access, Entity, FieldSpec, FieldType, JsonForm, PoolLimits, Role};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::sync::watch;

use super::{
    direct::Routes,
    gate::Gate,
    health::Health,
    ingest::Ingress,
    metrics::HttpMetrics,
    resource::Resource,
    router::{Api, router},
    tickets::Tickets,
};
use crate::http::pool::{Pool, Source, path_of, upserts};
use crate::{
    security::{
        caller::{Caller, Validity},
        policy::{Policies, Policy},
    },
    service::{
        factory::Factory,
        ingest::queue::IngestQueue,
        orders::{Catalogue, pricing},
        payments::PaymentKeeper,
        records::Records,
    },
};
use ::events::intake::{Intake, IntakeError, IntakeReader};
use engine::{
    clock::Clock,
    memory::{MemoryConfig, MemoryTier, Policy as Eviction, PoolConfig},
    tiered::{Backing, TierConfig, TierPlace, Tiered, TieredConfig, WriteStrategy, lifetime},
};
use model::{
    budget::Budgets,
    change::Collection,
    entities,
    price_event::PriceEvent,
    schema::Schema,
    seal::{SealError, Sealer},
};
use store::{RecordStore, sql::SqlStore};

mod access;
mod bad_input;
mod batches;
mod bounds;
mod changes;
mod conditions;
mod events;
mod factory;
mod faults;
mod groups;
mod money;
mod never_back;
mod numbers;
mod odd_rows;
mod openapi;
mod pages;
mod paths;
mod repeats;
mod repositories;
mod round_trips;

/// A running server, and a client of it.
struct Server {
    address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    pools: Vec<Pool>,
    policies: Arc<Policies>,
    commits: Arc<AtomicU64>,
    factory: Arc<Factory>,
    router: Router,
    ingest: Arc<IngestQueue>,
    _folder: Option<Folder>,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

/// A log in memory that nobody reads.
#[derive(Default)]
pub struct MemoryIntake(Mutex<Vec<PriceEvent>>);

#[async_trait]
impl Intake for MemoryIntake {
    async fn append(&self, events: Vec<PriceEvent>) -> Result<(), IntakeError> {
        self.0.lock().extend(events);
        Ok(())
    }

    async fn reader(&self) -> Result<Box<dyn IntakeReader>, IntakeError> {
        Err(IntakeError::Unavailable("nobody reads it".to_owned()))
    }

    async fn waiting(&self) -> Result<u64, IntakeError> {
        Ok(self.0.lock().len() as u64)
    }
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

fn collection_of(entity: Entity) -> Arc<Collection> {
    let schema = entities::builtin(entity).unwrap();
    let name = schema.collection.clone();
    Arc::new(Collection {
        pool: name.clone(),
        schema: Arc::new(schema),
        name,
        key_column: "id".to_owned(),
        version_column: Some("version".to_owned()),
        declared: false,
    })
}

/// A declared table with a version, and one without.
fn declared(pool: &str, version: Option<&str>) -> Arc<Collection> {
    let field = |name: &str, kind, role| FieldSpec {
        name: name.into(),
        kind: Some(kind),
        role,
        encrypt: false,
        required: false,
        json: None,
    };
    let specs = [
        field("code", FieldType::String, Role::Extrinsic),
        field("phone", FieldType::String, Role::Auto),
        field("amount", FieldType::Decimal, Role::Extrinsic),
        field("rate", FieldType::Decimal, Role::Intrinsic),
        field("count", FieldType::Integer, Role::Extrinsic),
        FieldSpec { json: Some(JsonForm::String), ..field("serial", FieldType::Integer, Role::Extrinsic) },
    ];
    Arc::new(Collection {
        pool: pool.to_owned(),
        schema: Arc::new(crds::schema::declared(pool, "code", version, &specs)),
        name: pool.to_owned(),
        key_column: "code".to_owned(),
        version_column: version.map(str::to_owned),
        declared: true,
    })
}

impl Server {
    /// All built-in entities and two declared tables, in a fresh SQLite file.
    async fn start() -> Self {
        let folder = Folder::new();
        let file = folder.path().join("data.db");
        let declared = [declared("stores", Some("version")), declared("regions", None)];
        declare(&file).await;
        let store: Arc<dyn RecordStore> = Arc::new(SqlStore::sqlite(&file, Arc::new(Plain)).unwrap());
        let collections: Vec<_> = Entity::built_in().map(collection_of).chain(declared).collect();
        store.prepare(&collections).await.unwrap();
        let mut server = Self::over(&store, &collections).await;
        server._folder = Some(folder);
        server
    }

    /// These collections of a store.
    async fn over(store: &Arc<dyn RecordStore>, collections: &[Arc<Collection>]) -> Self {
        Self::group(store, collections, collections, Router::new()).await
    }

    /// Some of the collections of a store, where other processes serve the others. `live` has the routes that
    /// the app adds.
    async fn group(
        store: &Arc<dyn RecordStore>,
        collections: &[Arc<Collection>],
        all: &[Arc<Collection>],
        live: Router,
    ) -> Self {
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        let wake: crate::service::records::Wake =
            Arc::new(move || _ = counter.fetch_add(1, Ordering::SeqCst));
        let records = |collection: &Arc<Collection>| {
            let tiers = Arc::new(tiers_of(collection));
            Records::new(
                Arc::clone(collection),
                Arc::clone(store),
                tiers,
                Duration::from_millis(1_000),
                Arc::clone(&wake),
            )
        };
        let products = all.iter().find(|c| c.pool == "products").map(|c| Arc::new(records(c)));
        let policies = Policies::none();
        let open = Policy {
            access: Access { price: vec!["sales".to_owned()], ..Access::default() },
            ..Policy::open()
        };
        policies.put(all.iter().map(|collection| (&*collection.pool, open.clone())));
        let metrics = HttpMetrics::new(&prometheus::Registry::new()).unwrap();
        let gate = Arc::new(Gate::new(64, Duration::from_secs(5), Budgets::default()));
        let pools: Vec<Pool> = collections
            .iter()
            .map(|collection| {
                let entity = entity_of(&collection.schema);
                let records = match entity {
                    Entity::Order => {
                        let policy = policies.of_pool("products");
                        let catalogue = products.clone().map(|products| Catalogue { products, policy });
                        let records = records(collection);
                        let clock = records.clock().clone();
                        records.completed_by(pricing(Arc::clone(&collection.schema), catalogue, clock))
                    }
                    _ => records(collection),
                };
                let policy = policies.of_pool(&collection.pool);
                let path = path_of(entity, &collection.pool);
                let metrics = metrics.of_pool(&collection.pool);
                let resource = Resource::new(
                    Arc::new(records),
                    path,
                    upserts(entity),
                    policy,
                    Arc::clone(&gate),
                    metrics,
                );
                let source = Source { kind: "mysql", backend: "mysql".to_owned() };
                Pool { entity, resource: Arc::new(resource), source }
            })
            .collect();
        let of = |name: &str| {
            pools.iter().find(|pool| pool.resource.pool() == name).map(|pool| pool.resource.records.clone())
        };
        if let Some(payments) = of("payments") {
            let schema = payments.collection().schema.clone();
            payments.keep(Arc::new(PaymentKeeper { payments: schema, orders: of("orders") }));
        }
        let health = Health {
            checks: watch::channel(BTreeMap::new()).1,
            unready: watch::channel(None).1,
            unavailable: Box::new(BTreeMap::new),
            served: {
                let names: Vec<&str> =
                    collections.iter().map(|collection| collection.pool.as_str()).collect();
                http::HeaderValue::try_from(names.join(",")).unwrap()
            },
            factory: Box::new(|| Json::Null),
            figures: Box::new(|| Json::Null),
            queues: Box::new(|| Json::Null),
            rates_are_shared: Box::new(|| None),
        };
        let factory = Arc::new(Factory::new(pools.iter().map(|pool| (pool.resource.records.clone(), None))));
        let (ingest, ingress) = ingress(&pools);
        let api = Api {
            factory: factory.clone(),
            pools: pools.clone(),
            letters: None,
            ingress,
            tickets: Arc::new(Tickets::of_process(Clock::system())),
            health: Arc::new(health),
        };
        let router = router(&api, live);
        let routes = Routes::new(&api, router.clone());
        let app = Router::new().fallback_service(routes).layer(axum::middleware::from_fn(
            async |mut request: axum::extract::Request, next: axum::middleware::Next| {
                // Stands in for the security layer: the roles are what the test says.
                if let Some(roles) = request.headers().get("test-roles") {
                    let roles = roles.to_str().unwrap().split(',').map(str::to_owned).collect();
                    request.extensions_mut().insert(Arc::new(Caller {
                        subject: "tester".to_owned(),
                        roles,
                        validity: Validity::default(),
                    }));
                }
                next.run(request).await
            },
        ));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            pools,
            policies,
            commits,
            factory,
            router,
            ingest,
            _folder: None,
        }
    }

    fn resource(&self, pool: &str) -> &Resource {
        &self.pools.iter().find(|found| found.resource.pool() == pool).unwrap().resource
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        // Two slashes lead to the root, one below the base path.
        let path = path
            .strip_prefix('/')
            .filter(|rest| rest.starts_with('/'))
            .map_or_else(|| format!("/api/v1{path}"), str::to_owned);
        let uri = format!("http://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn with(&self, method: Method, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_owned()).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.with(Method::POST, path, body).await
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        self.with(Method::PUT, path, body).await
    }

    async fn patch(&self, path: &str, body: &str) -> Answer {
        self.with(Method::PATCH, path, body).await
    }

    /// A statement that another program makes.
    async fn sql(&self, statement: &'static str) {
        use sqlx::ConnectOptions;
        let file = self._folder.as_ref().unwrap().path().join("data.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        sqlx::query(statement).execute(&mut options.connect().await.unwrap()).await.unwrap();
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, which must have this status.
    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Checks that this is a problem of this status, and gives the fields that it names.
    #[track_caller]
    fn problem(&self, status: u16) -> Vec<String> {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        for name in ["type", "title", "detail", "instance"] {
            assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {body}");
        }
        for word in ["SELECT", "INSERT", "UPDATE ", "sqlite", "panicked", "src/"] {
            assert!(!self.text.contains(word), "{}", self.text);
        }
        let field = |error: &Json| error["field"].as_str().unwrap().to_owned();
        body["errors"].as_array().map(|errors| errors.iter().map(field).collect()).unwrap_or_default()
    }

    fn ids(&self) -> Vec<String> {
        self.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn entity_of(schema: &Schema) -> Entity {
    Entity::built_in()
        .find(|entity| entities::builtin(*entity).unwrap().entity == schema.entity)
        .unwrap_or(Entity::Custom)
}

/// One tier in memory.
fn tiers_of(collection: &Collection) -> Tiered {
    let settings = TierConfig {
        name: "hot".to_owned(),
        place: TierPlace::Memory,
        ttl: Duration::from_secs(60),
        jitter_percent: 0,
        negative_ttl: Duration::from_secs(2),
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        write: WriteStrategy::CacheAside,
    };
    let clock = Clock::system();
    let memory =
        MemoryTier::new(MemoryConfig { max_bytes: 8 << 20, policy: Eviction::S3Fifo, shards: 1, seed: 1 });
    let config = PoolConfig { capacity: 1_000, idle_after_ms: 60_000, lifetime: lifetime(&settings) };
    let pool = memory.register(Arc::clone(&collection.schema), config).unwrap();
    Tiered::new(TieredConfig {
        pool: collection.pool.clone(),
        schema: Arc::clone(&collection.schema),
        tiers: vec![(settings, Backing::Memory(Arc::new(memory), pool))],
        sealer: None,
        clock,
        load_deadline: Duration::from_millis(1_000),
        not_yet_deadline: Duration::from_millis(200),
    })
}

/// Makes the tables that a user would have declared.
async fn declare(file: &std::path::Path) {
    use sqlx::ConnectOptions;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    for table in [
        "CREATE TABLE stores (code VARCHAR(64) PRIMARY KEY, phone TEXT, version BIGINT NOT NULL)",
        "CREATE TABLE regions (code VARCHAR(64) PRIMARY KEY, phone TEXT)",
    ] {
        sqlx::query(table).execute(&mut connection).await.unwrap();
    }
}

/// A way in for events whose log is a list; none where no products are served.
fn ingress(pools: &[Pool]) -> (Arc<IngestQueue>, Option<Arc<Ingress>>) {
    let products = pools.iter().find(|pool| pool.entity == Entity::Product);
    let queue = Arc::new(IngestQueue::new(Arc::new(MemoryIntake::default()), 10));
    let ingress = products.map(|products| Arc::new(Ingress::new(products.resource.clone(), queue.clone())));
    (queue, ingress)
}
