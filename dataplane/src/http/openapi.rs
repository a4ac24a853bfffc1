//! The API's description as an OpenAPI 3.1 document, made once from the pools' schemas and the lists of
//! operations beside this file.
//!
//! A test wants each row of the table of routes (`model::routes`) in the router and in this document: a new
//! route is described in one of `pools`, `factory`, `pipeline`, `searches` and `service`.

mod examples;
mod factory;
pub mod operation;
mod pipeline;
mod pools;
pub mod schemas;
mod searches;
mod service;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

use super::conditions::is_known;
use crate::http::pool::Pool;
use model::routes;

/// The routes that give the document.
pub fn routes(pools: &[Pool]) -> Router {
    let text = Bytes::from(document(pools).to_string());
    let tag = HeaderValue::try_from(format!("\"{:016x}\"", xxh3_64(&text)))
        .unwrap_or(HeaderValue::from_static("\"0\""));
    let give = get(async move |request: Request| respond(&request, text, tag));
    Router::new().route(routes::OPENAPI.path, give.clone()).route(routes::OPENAPI_OF_API.path, give)
}

/// The document for an API that serves these pools.
pub fn document(pools: &[Pool]) -> Json {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    let operations =
        [service::operations(), factory::operations(), searches::operations(), pipeline::operations(pools)];
    for operation in operations.into_iter().flatten() {
        operation.insert_into(&mut paths);
    }
    schemas.extend(service::schemas());
    schemas.extend(pipeline::schemas());
    for Pool { entity, resource, .. } in pools {
        let schema = resource.records.schema();
        let mut described = schemas::of_entity(schema, &schemas::pascal(&schema.entity));
        pools::amend(*entity, schema, &mut described);
        schemas.extend(described);
        for operation in pools::operations(*entity, resource) {
            operation.insert_into(&mut paths);
        }
    }
    examples::add(&mut paths, pools);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Flyweight",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Records from multi-tier caches, with one version from the row to the live feed.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "token": [] }],
        "tags": tags(pools),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": operation::problem_responses(),
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "Behind a proxy that takes `Authorization` for itself, the same in `Flyweight-Authorization`.",
            } },
        },
    })
}

/// The groups of operations, in the order in which they are shown.
fn tags(pools: &[Pool]) -> Vec<Json> {
    let of_pools = pools.iter().map(|Pool { entity, resource, .. }| {
        json!({ "name": resource.pool(), "description": format!("The pool of the entity {entity:?}.") })
    });
    let others = [
        ("events", "The live feed."),
        ("pipeline", "How orders are fulfilled, and what could not be done."),
        ("factory", "What the pools hold, and what sharing saves."),
        ("service", "Health, and this document."),
        ("pages", "The dashboard and this description."),
    ];
    of_pools.chain(others.map(|(name, about)| json!({ "name": name, "description": about }))).collect()
}

fn respond(request: &Request, text: Bytes, tag: HeaderValue) -> Response {
    if is_known(request.headers(), &tag) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, tag)];
    (headers, text).into_response()
}
