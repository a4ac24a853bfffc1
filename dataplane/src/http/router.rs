//! Every route and every layer of the API.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post, put},
};
use crds::pool::Entity;
use http::{Method, StatusCode, Uri};
use serde_json::json;

use super::{
    audit::{self, Audit},
    batch,
    extract::Call,
    factory,
    health::{self, Health},
    ingest::Ingress,
    listing, openapi, pages,
    params::Params,
    pool::Pool,
    repositories,
    resource::{self, Resource},
    schemas, status, templates,
    tickets::{self, Tickets},
};
use crate::problem::Problem;
use crate::service::factory::Factory;
use model::{
    entity::{SearchParam, Selection},
    routes,
};

/// What every path of the API starts with.
pub const BASE: &str = routes::BASE;

/// What the API serves.
pub struct Api {
    /// The pools, in the order of the service; at most one for each built-in entity.
    pub pools: Vec<Pool>,
    /// The dead letters; none where they are not shown in the audit.
    pub letters: Option<Arc<Resource>>,
    /// The way in for events; none where products are not served.
    pub ingress: Option<Arc<Ingress>>,
    /// Tickets of the feed.
    pub tickets: Arc<Tickets>,
    /// What the process says of itself.
    pub health: Arc<Health>,
    /// What the pools hold.
    pub factory: Arc<Factory>,
}

/// The router of the API. `live` has the routes of the live feed.
pub fn router(api: &Api, live: Router) -> Router {
    let mut router = live.merge(openapi::routes(&api.pools)).merge(pages::routes());
    for Pool { entity, resource, .. } in &api.pools {
        router = router.merge(collection(resource)).merge(of_entity(*entity, resource));
    }
    if let Some(ingress) = api.ingress.clone() {
        router = router.route(routes::EVENTS.path, post(async move |call: Call| ingress.post(call).await));
    }
    router = router.merge(schemas::routes(&api.pools)).merge(tickets::routes(Arc::clone(&api.tickets)));
    let catalogue = pools_body(&api.pools);
    router = router.route(routes::POOLS.path, get(async move |uri: Uri| list_pools(catalogue, &uri)));
    router = router.merge(repositories::routes(&api.pools, &api.health));
    router = router.merge(factory::routes(Arc::clone(&api.factory), &api.pools));
    router = router.route(routes::FIGURES.path, get(health::figures).with_state(Arc::clone(&api.health)));
    let pools = Arc::new(Audit(
        api.pools.iter().map(|pool| &pool.resource).chain(&api.letters).map(Arc::clone).collect(),
    ));
    router = router.route(routes::AUDIT.path, get(audit::list).with_state(pools.clone()));
    router = router.route(routes::AUDIT_EXPORT.path, get(audit::export).with_state(pools));
    for [health, livez, readyz] in [
        [&routes::HEALTH, &routes::LIVEZ, &routes::READYZ],
        [&routes::HEALTH_OF_API, &routes::LIVEZ_OF_API, &routes::READYZ_OF_API],
    ] {
        router = router
            .route(health.path, get(health::health).with_state(Arc::clone(&api.health)))
            .route(livez.path, get(health::live))
            .route(readyz.path, get(health::ready).with_state(Arc::clone(&api.health)));
    }
    let missing = Arc::new(Missing::new(&api.pools));
    router.fallback(async move |uri: Uri| missing.respond(&uri)).method_not_allowed_fallback(not_allowed)
}

/// The routes that every pool has.
fn collection(resource: &Arc<Resource>) -> Router {
    let mut whole = get(listing::list_all);
    let mut one = get(resource::get);
    if resource.is_writable() {
        one = one.put(resource::replace).patch(resource::patch).delete(resource::delete);
        whole = whole.post(resource::create);
        // by ?id=, which takes every key
        whole = whole.put(resource::replace).patch(resource::patch).delete(resource::delete);
    }
    let path = &resource.path;
    let mut router = Router::new().route(path, whole).route(&format!("{path}{}", routes::RECORD.path), one);
    if resource.is_writable() {
        router = router.route(&format!("{path}{}", routes::BATCH.path), post(batch::post));
    }
    router.with_state(Arc::clone(resource))
}

/// The routes that only one entity has.
fn of_entity(entity: Entity, resource: &Arc<Resource>) -> Router {
    let lists = entity.definition().lists.iter().fold(Router::new(), |router, list| {
        let handler = match &list.of {
            Selection::Search(params) => search(resource, params),
            Selection::Field { field, .. } => list_by(resource, field),
        };
        router.route(list.path, handler)
    });
    let own = match entity {
        Entity::Payment => Router::new().route(routes::PAYMENT_STATUS.path, put(status::put)),
        Entity::NotificationTemplate => Router::new().route(routes::RENDER.path, post(templates::render)),
        _ => Router::new(),
    };
    lists.merge(own.with_state(Arc::clone(resource)))
}

fn search(resource: &Arc<Resource>, by: &'static [SearchParam]) -> MethodRouter {
    let resource = Arc::clone(resource);
    get(async move |call: Call| listing::search(resource, by, call).await)
}

fn list_by(resource: &Arc<Resource>, field: &'static str) -> MethodRouter {
    let resource = Arc::clone(resource);
    get(async move |call: Call| listing::list_by(resource, field, call).await)
}

/// `GET /pools`
fn list_pools(catalogue: axum::Json<serde_json::Value>, uri: &Uri) -> Response {
    match Params::read(uri, &[]) {
        Ok(_) => catalogue.into_response(),
        Err(problem) => problem.respond(uri),
    }
}

fn pools_body(pools: &[Pool]) -> axum::Json<serde_json::Value> {
    let pool = |Pool { entity, resource, .. }: &Pool| json!({ "name": resource.pool(), "entity": entity, "path": resource.path, "writable": resource.is_writable() });
    axum::Json(json!({ "pools": pools.iter().map(pool).collect::<Vec<_>>() }))
}

/// Answers for paths that no route has.
struct Missing {
    served: String,
    unserved: Vec<(String, String)>,
}

impl Missing {
    fn new(pools: &[Pool]) -> Self {
        let names: Vec<String> = pools
            .iter()
            .map(|Pool { resource, .. }| format!("{} at {}", resource.pool(), resource.path))
            .collect();
        let served = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let unserved = Entity::built_in().filter(|entity| pools.iter().all(|pool| pool.entity != *entity));
        let unserved = unserved.map(|entity| {
            let home = routes::home_of(entity).to_owned();
            (home, format!("no pool of the entity {entity:?} is served here"))
        });
        let custom = (format!("{BASE}/pools"), "no such pool is served here".to_owned());
        Self { served, unserved: unserved.chain([custom]).collect() }
    }

    fn respond(&self, uri: &Uri) -> Response {
        let below = |base: &str| {
            uri.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let unserved = self.unserved.iter().find(|(base, _)| below(base));
        let detail = match unserved {
            Some((_, why)) => format!("{why}; served are: {}", self.served),
            None => "there is no such path".to_owned(),
        };
        Problem::not_found(detail).respond(uri)
    }
}

/// 405 with the allowed methods, which the router adds; they also answer OPTIONS.
async fn not_allowed(method: Method, uri: Uri) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = format!(
        "{} is not possible here; the header Allow says what is",
        method.as_str().get(..16).unwrap_or(method.as_str())
    );
    let problem =
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "The method is not possible here", detail);
    problem.respond(&uri)
}
