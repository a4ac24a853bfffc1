//! `/repositories`: what the stores are, and searches over them by specification.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Value as Json, json};

use super::{
    extract::Call,
    health::{Check, Condition, Health},
    listing,
    metrics::Operation,
    params::Params,
    resource::{JSON, Resource, json as json_response},
};
use crate::http::pool::Pool;
use crate::problem::Problem;
use crate::service::{
    error::ServiceError,
    list::{From, LIMIT_DEFAULT, LIMIT_MAX, PageRequest},
};
use model::{routes, specification::parse_search};

/// The most bytes of a search.
const BODY_MAX: usize = 1 << 20;

/// The kinds of repositories, with what each can do.
const KINDS: [(&str, &str, &[&str]); 4] = [
    (
        "mysql",
        "records in tables of a MySQL server, or of the embedded database that stands in for it",
        &[
            "transactions",
            "atomic batches",
            "unique fields",
            "optimistic versions",
            "outbox",
            "audit",
            "idempotency keys",
        ],
    ),
    (
        "mongodb",
        "records in documents of a MongoDB server, or of the embedded database that stands in for it",
        &[
            "atomic changes of one record",
            "unique fields",
            "optimistic versions",
            "outbox",
            "audit",
            "idempotency keys",
        ],
    ),
    (
        "cached",
        "records read through the tiers of their pools",
        &["flyweights", "single flight", "version fences", "read your writes", "pages by generation"],
    ),
    (
        "specification",
        "records found by typed specifications, the same in every store",
        &[
            "eq",
            "ne",
            "lt",
            "lte",
            "gt",
            "gte",
            "in",
            "like",
            "between",
            "is_null",
            "and",
            "or",
            "not",
            "order_by",
            "cursor",
            "count_only",
        ],
    ),
];

/// The repositories of this process.
pub struct Repositories {
    pools: Vec<Pool>,
    health: Arc<Health>,
}

/// The routes.
pub fn routes(pools: &[Pool], health: &Arc<Health>) -> Router {
    let state = Arc::new(Repositories { pools: pools.to_vec(), health: Arc::clone(health) });
    Router::new()
        .route(routes::REPOSITORIES.path, get(all))
        .route(routes::REPOSITORY_QUERY.path, post(query))
        .route(routes::REPOSITORY.path, get(one))
        .with_state(state)
}

/// `GET /repositories`
async fn all(State(repositories): State<Arc<Repositories>>, call: Call) -> Response {
    let listed = Params::read(&call.uri, &[]).map(|_| {
        let all: Vec<Json> = KINDS.iter().map(|(kind, ..)| repositories.describe(kind)).collect();
        json_response(json!({ "repositories": all }).to_string().into(), StatusCode::OK)
    });
    listed.unwrap_or_else(|problem| problem.respond(&call.uri))
}

/// `GET /repositories/{type}`
async fn one(State(repositories): State<Arc<Repositories>>, call: Call) -> Response {
    let named = || {
        Params::read(&call.uri, &[])?;
        let wanted = call.param("type")?;
        let known = || KINDS.map(|(kind, ..)| kind).join(", ");
        match KINDS.iter().find(|(kind, ..)| *kind == wanted) {
            Some((kind, ..)) => {
                Ok(json_response(repositories.describe(kind).to_string().into(), StatusCode::OK))
            }
            None => {
                Err(Problem::not_found(format!("there is no such type of repository: there are {}", known())))
            }
        }
    };
    named().unwrap_or_else(|problem| problem.respond(&call.uri))
}

/// `POST /repositories/query`
async fn query(State(repositories): State<Arc<Repositories>>, call: Call) -> Response {
    match repositories.pools.first() {
        Some(first) => {
            first
                .resource
                .run_received(Operation::List, call, |call| search(&repositories, &first.resource, call))
                .await
        }
        None => Problem::not_found("no pool is served here").respond(&call.uri),
    }
}

async fn search(repositories: &Repositories, gate: &Resource, call: Call) -> Result<Response, Problem> {
    Params::read(&call.uri, &[])?;
    let caller = call.head();
    let body = gate.receive(call, Operation::List, JSON, BODY_MAX).await?;
    let search = parse_search(&body).map_err(|error| gate.problem(error.into()))?;
    let resource = repositories.of(&search.repository)?;
    resource.may_read(&caller)?;
    let schema = resource.records.schema();
    let wrong = |fault| resource.problem(ServiceError::Invalid(vec![fault]));
    let filter = search.filter(schema).map_err(wrong)?;
    let order = search.order(schema).map_err(wrong)?;
    if search.count_only {
        let total = resource.records.count(filter).await.map_err(|error| resource.problem(error))?;
        return Ok(json_response(json!({ "total": total }).to_string().into(), StatusCode::OK));
    }
    let limit = search.limit.unwrap_or(LIMIT_DEFAULT.into());
    let limit = u32::try_from(limit).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = limit
        .ok_or_else(|| Problem::field("limit", format!("must be a whole number from 1 to {LIMIT_MAX}")))?;
    let from = search.cursor.map_or(From::Offset(0), From::Cursor);
    listing::page(resource, filter, order, &PageRequest { from, limit }).await
}

impl Repositories {
    fn of(&self, name: &str) -> Result<&Resource, Problem> {
        let named =
            |pool: &&Pool| pool.resource.pool() == name || pool.resource.records.schema().entity == name;
        let known = || self.pools.iter().map(|pool| pool.resource.pool()).collect::<Vec<_>>().join(", ");
        match self.pools.iter().find(named) {
            Some(pool) => Ok(&pool.resource),
            None => Err(Problem::field("repository", format!("must be one of {}", known()))),
        }
    }

    fn describe(&self, kind: &str) -> Json {
        let (description, features) = KINDS
            .iter()
            .find(|(name, ..)| *name == kind)
            .map_or(("", &[] as &[&str]), |(_, description, features)| (description, features));
        let of_kind = |pool: &&Pool| match kind {
            "cached" => pool.resource.records.is_cached(),
            "specification" => true,
            kind => pool.source.kind == kind,
        };
        let pools: Vec<&Pool> = self.pools.iter().filter(of_kind).collect();
        let entities: Vec<Json> = pools
            .iter()
            .map(|Pool { resource, entity, source }| {
                let name = resource.pool();
                json!({ "name": name, "entity": entity, "path": resource.path, "backend": source.backend })
            })
            .collect();
        let checks = self.health.checks.borrow();
        let checks = pools.iter().filter_map(|pool| checks.get(&pool.source.backend));
        let status = super::health::overall(checks.collect::<Vec<&Check>>());
        let health = if pools.is_empty() { Json::Null } else { condition(status) };
        json!({
            "type": kind, "description": description, "features": features, "health": health, "entities": entities,
        })
    }
}

fn condition(condition: Condition) -> Json {
    serde_json::to_value(condition).unwrap_or_default()
}
