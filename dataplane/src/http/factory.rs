//! `/factory/…` and `/repositories/cache/…`: what the pools hold and did, dropping what is idle, loading
//! ahead of the reads.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use crds::{pool::WarmUp, units::Span};
use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    extract::Call,
    params::{IDS_MAX, Params},
    resource::{Resource, json},
};
use crate::http::pool::Pool;
use crate::problem::Problem;
use crate::service::{
    error::ServiceError,
    factory::{Cleaned, Factory, FactoryPool},
};
use engine::tiered::stats::TieredStats;
use model::{
    json::{BodyError, parse_create},
    key::Key,
    query::Filter,
    routes,
    schema::{Field, Form, Kind, Schema, Shape},
    specification::read_filter,
    strict,
    value::{Row, Value},
};

/// The pools as the API manages them.
pub struct FactoryApi {
    factory: Arc<Factory>,
    pools: Vec<Pool>,
    /// One warm-up at a time.
    warming: Semaphore,
}

#[derive(Serialize)]
struct CacheStats<'a> {
    hits: u64,
    misses: u64,
    hit_rate: f64,
    repositories: BTreeMap<&'a str, TieredStats>,
}

/// The most bytes of a body, and how long it may take.
const BODY_MAX: usize = 256 << 10;
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a warm-up by request may take; what was loaded by then stays.
const WARM_DEADLINE: Duration = Duration::from_secs(30);
const NAME: Kind = Kind::Text { max: 63, form: Form::Any };

static CLEANUP: LazyLock<Schema> =
    LazyLock::new(|| body_of(vec![Field::new("pool", NAME), Field::new("idle_after", NAME)]));
static WARM: LazyLock<Schema> = LazyLock::new(|| {
    body_of(vec![Field::new("pool", NAME), Field::new("mode", Kind::Choice(&["All", "Recent", "Peers"]))])
});
static WARM_CACHE: LazyLock<Schema> = LazyLock::new(|| {
    let ids = Kind::Json { max: BODY_MAX, shape: Shape::Strings };
    let filter = Kind::Json { max: BODY_MAX, shape: Shape::Object };
    body_of(vec![
        Field::new("repository", NAME).required(),
        Field::new("ids", ids),
        Field::new("where", filter),
    ])
});

fn body_of(fields: Vec<Field>) -> Schema {
    Schema::new("request", "requests", fields)
}

/// The routes.
pub fn routes(factory: Arc<Factory>, pools: &[Pool]) -> Router {
    let api = Arc::new(FactoryApi { factory, pools: pools.to_vec(), warming: Semaphore::new(1) });
    Router::new()
        .route(routes::FACTORY_STATS.path, get(stats))
        .route(routes::FACTORY_CLEANUP.path, post(clean_up))
        .route(routes::FACTORY_WARM.path, post(warm))
        .route(routes::CACHE_STATS.path, get(cache_stats))
        .route(routes::CACHE_WARM.path, post(warm_cache))
        .with_state(api)
}

async fn stats(State(api): State<Arc<FactoryApi>>, call: Call) -> Response {
    let uri = call.uri.clone();
    let answered = Params::read(&uri, &[]).map(|_| answer(&api.factory.stats()));
    answered.unwrap_or_else(|problem| problem.respond(&uri))
}

async fn cache_stats(State(api): State<Arc<FactoryApi>>, call: Call) -> Response {
    let uri = call.uri.clone();
    let total = api.factory.stats().total;
    let (hits, misses, hit_rate) = (total.hits, total.misses, total.hit_rate);
    let stats = CacheStats { hits, misses, hit_rate, repositories: api.factory.cache_stats() };
    let answered = Params::read(&uri, &[]).map(|_| answer(&stats));
    answered.unwrap_or_else(|problem| problem.respond(&uri))
}

async fn clean_up(State(api): State<Arc<FactoryApi>>, call: Call) -> Response {
    let uri = call.uri.clone();
    let cleaned = async {
        let body = Request::read(&api, &CLEANUP, call).await?;
        let idle_after = body.text("idle_after").map(|text| {
            let span = text.parse::<Span>().map_err(|message| Problem::field("idle_after", message))?;
            Ok::<_, Problem>(u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX))
        });
        let idle_after_ms = idle_after.transpose()?;
        let mut sum = Cleaned::default();
        for pool in body.pools {
            let Cleaned { removed, remaining } = pool.clean_up(idle_after_ms);
            sum = Cleaned { removed: sum.removed + removed, remaining: sum.remaining + remaining };
        }
        Ok(answer(&sum))
    };
    cleaned.await.unwrap_or_else(|problem: Problem| problem.respond(&uri))
}

async fn warm(State(api): State<Arc<FactoryApi>>, call: Call) -> Response {
    let uri = call.uri.clone();
    let warmed = async {
        let body = Request::read(&api, &WARM, call).await?;
        let _turn = api.turn()?;
        let mode = match body.text("mode") {
            Some("All") => WarmUp::All,
            Some("Peers") => WarmUp::Peers,
            _ => WarmUp::Recent,
        };
        let taken = Mutex::new(0);
        let all = async {
            for pool in &body.pools {
                pool.warmer.run(mode, |more| *taken.lock() += more).await?;
            }
            Ok::<_, ServiceError>(())
        };
        let complete = match timeout(WARM_DEADLINE, all).await {
            Ok(done) => done.map(|()| true)?,
            Err(_) => false,
        };
        let entities: u64 = body.pools.iter().map(|pool| pool.entities()).sum();
        Ok(answer(&json!({ "loaded": *taken.lock(), "entities": entities, "complete": complete })))
    };
    warmed.await.unwrap_or_else(|problem: Problem| problem.respond(&uri))
}

async fn warm_cache(State(api): State<Arc<FactoryApi>>, call: Call) -> Response {
    let uri = call.uri.clone();
    let warmed = async {
        let body = Request::read(&api, &WARM_CACHE, call).await?;
        let (keys, filter) = match body.pools[..] {
            // nothing was asked for in particular
            _ if body.text("repository").is_none() => (None, None),
            [pool] => (body.keys("ids")?, body.filter(pool.warmer.schema())?),
            _ => return Err(Problem::field("repository", "must be one pool")),
        };
        if keys.is_some() && filter.is_some() {
            return Err(Problem::field("where", "cannot be joined with ids"));
        }
        let _turn = api.turn()?;
        let taken = Mutex::new(0);
        let load = async {
            for pool in &body.pools {
                match &keys {
                    Some(keys) => *taken.lock() += pool.warmer.keys(keys).await?,
                    None => {
                        let filter = filter.clone().unwrap_or(Filter::All);
                        pool.warmer.matching(filter, |more| *taken.lock() += more).await?;
                    }
                }
            }
            Ok::<_, ServiceError>(())
        };
        let complete = match timeout(WARM_DEADLINE, load).await {
            Ok(done) => done.map(|()| true)?,
            Err(_) => false,
        };
        let entities: u64 = body.pools.iter().map(|pool| pool.entities()).sum();
        Ok(answer(&json!({ "loaded": *taken.lock(), "entities": entities, "complete": complete })))
    };
    warmed.await.unwrap_or_else(|problem: Problem| problem.respond(&uri))
}

/// A request that changes what pools hold: its body, and the pools that it names, which the caller may write.
struct Request<'a> {
    schema: &'a Schema,
    values: Row,
    pools: Vec<&'a FactoryPool>,
}

impl<'a> Request<'a> {
    /// Reads the body and checks that the caller may write the pool that it names, or all where it names
    /// none.
    async fn read(api: &'a FactoryApi, schema: &'a Schema, call: Call) -> Result<Self, Problem> {
        Params::read(&call.uri, &[])?;
        // who may write nothing here learns nothing, not even that the request is wrong
        let allowed: Vec<Result<(), Problem>> =
            api.pools.iter().map(|pool| pool.resource.permits_write(&call)).collect();
        if !allowed.is_empty() && allowed.iter().all(Result::is_err) {
            allowed.into_iter().collect::<Result<(), _>>()?;
            return Err(Problem::forbidden("none of the token's roles may do this"));
        }
        let held = api.pools.first().map(|pool| pool.resource.budgets().bodies.share());
        let held = held.ok_or_else(|| Problem::not_found("no pool is served here"))?;
        let body = call.body(&["application/json"], BODY_MAX, BODY_DEADLINE, &held).await?;
        let values = match body.is_empty() {
            // all pools, and everything in them
            true => Row::default(),
            false => {
                let draft = parse_create(schema, &body).map_err(|error| match error {
                    BodyError::Malformed(detail) => ServiceError::Malformed(detail).into(),
                    BodyError::Invalid(faults) => Problem::invalid(faults),
                })?;
                if draft.key.is_some() {
                    return Err(Problem::field(&schema.key, "is not a field here"));
                }
                draft.values
            }
        };
        let mut request = Self { schema, values, pools: Vec::new() };
        let field = if schema.index_of("pool").is_some() { "pool" } else { "repository" };
        let named = request.text(field).map(str::to_owned);
        let goes_by = |name: &str, resource: &Resource| {
            name == resource.pool() || field == "repository" && name == resource.records.schema().entity
        };
        let wanted = |pool: &&Pool| named.as_deref().is_none_or(|name| goes_by(name, &pool.resource));
        for (Pool { resource, .. }, allowed) in api.pools.iter().zip(allowed).filter(|(pool, _)| wanted(pool))
        {
            allowed?;
            request.pools.extend(api.factory.pool(resource.pool()));
        }
        if request.pools.is_empty() {
            let names: Vec<&str> = api.pools.iter().map(|pool| pool.resource.pool()).collect();
            return Err(Problem::field(
                field,
                format!("is no pool that is served here; there are: {}", names.join(", ")),
            ));
        }
        Ok(request)
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.values.0.get(self.schema.index_of(field)?).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.value(field)?.as_text()
    }

    /// A field as JSON; none where it is not given.
    fn json(&self, field: &str) -> Option<String> {
        let mut text = String::new();
        self.value(field)?.write_json(&mut text);
        Some(text)
    }

    /// Which records of a pool `where` says; none where it is not given.
    fn filter(&self, schema: &Schema) -> Result<Option<Filter>, Problem> {
        let Some(text) = self.json("where") else { return Ok(None) };
        let read = strict::parse("where", &text).and_then(|tree| read_filter(&tree, schema));
        read.map(Some).map_err(|fault| Problem::invalid(vec![fault]))
    }

    /// A list of keys; none where it is not given.
    fn keys(&self, field: &str) -> Result<Option<Vec<Key>>, Problem> {
        let Some(text) = self.json(field) else { return Ok(None) };
        let wrong = || Problem::field(field, format!("must be a list of at most {IDS_MAX} keys"));
        let texts: Vec<String> = serde_json::from_str(&text).map_err(|_| wrong())?;
        if texts.len() > IDS_MAX {
            return Err(wrong());
        }
        let key = |text: String| {
            Key::try_from(text).map_err(|message| Problem::field(field, format!("each {message}")))
        };
        texts.into_iter().map(key).collect::<Result<_, _>>().map(Some)
    }
}

impl FactoryApi {
    /// The right to warm up.
    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        self.warming
            .try_acquire()
            .map_err(|_| Problem::unavailable("warming", "a warm-up is under way: try again"))
    }
}

fn answer(body: &impl Serialize) -> Response {
    json(serde_json::to_vec(body).unwrap_or_default().into(), StatusCode::OK)
}
