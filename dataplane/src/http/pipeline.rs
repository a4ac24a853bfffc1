//! The order pipeline in the API: timelines, cancelling, figures, and dead letters.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;

use super::{
    extract::Call,
    listing,
    metrics::Operation,
    params::Params,
    resource::{self, JSON, Resource},
};
use crate::problem::Problem;
use crate::service::{dead_letters::DeadLetters, pipeline::Pipeline};
use model::{
    dead_letter,
    json::parse_create,
    routes,
    schema::{Field, Kind, Schema},
};

/// Orders with their pipeline.
struct Orders {
    resource: Arc<Resource>,
    pipeline: Arc<Pipeline>,
}

/// Dead letters with their sources.
struct Letters {
    resource: Arc<Resource>,
    letters: Arc<DeadLetters>,
}

/// The routes of orders that are being fulfilled.
pub fn of_orders(resource: Arc<Resource>, pipeline: Arc<Pipeline>) -> Router {
    let orders = Arc::new(Orders { resource, pipeline });
    Router::new()
        .route(routes::TIMELINE.path, get(timeline))
        .route(routes::CANCEL.path, post(cancel))
        .route(routes::PIPELINE.path, get(figures))
        .with_state(orders)
}

/// The routes of dead letters.
pub fn of_letters(resource: Arc<Resource>, letters: Arc<DeadLetters>) -> Router {
    let shown = resource.clone();
    let list = get(async move |call: Call| listing::search(shown, dead_letter::SEARCH, call).await);
    let state = Arc::new(Letters { resource: resource.clone(), letters });
    Router::new()
        .route(routes::LETTER.path, get(resource::get))
        .with_state(resource.clone())
        .merge(
            Router::new()
                .route(routes::GIVE_UP_LETTER.path, axum::routing::delete(give_up))
                .route(routes::REPLAY_LETTER.path, post(replay))
                .route(routes::REPLAY_LETTERS.path, post(replay_all))
                .with_state(state),
        )
        .route(routes::LETTERS.path, list)
}

/// `GET /orders/{id}/timeline`
async fn timeline(State(orders): State<Arc<Orders>>, call: Call) -> Response {
    let Orders { resource, pipeline } = &*orders;
    resource
        .run(Operation::Get, call, async |mut call: Call| {
            resource.may_read(&call)?;
            Params::read(&call.uri, &[])?;
            let timeline = pipeline.timeline(&call.key("id")?).await;
            Ok(Json(timeline.map_err(|error| resource.problem(error))?).into_response())
        })
        .await
}

/// `POST /orders/{id}/cancel`
async fn cancel(State(orders): State<Arc<Orders>>, call: Call) -> Response {
    let Orders { resource, pipeline } = &*orders;
    resource
        .run(Operation::Patch, call, async |mut call: Call| {
            resource.may_write(&call)?;
            let (key, actor) = (call.key("id")?, call.origin().actor);
            let order = pipeline.cancel(&key, &format!("cancelled by {actor}"), &actor).await;
            Ok(resource.written(&order.map_err(|error| resource.problem(error))?, StatusCode::ACCEPTED))
        })
        .await
}

/// `GET /pipeline`
async fn figures(State(orders): State<Arc<Orders>>, call: Call) -> Response {
    let Orders { resource, pipeline } = &*orders;
    resource
        .run(Operation::Get, call, async |call: Call| {
            resource.may_read(&call)?;
            Params::read(&call.uri, &[])?;
            Ok(Json(pipeline.figures().await.map_err(|error| resource.problem(error))?).into_response())
        })
        .await
}

/// `POST /dead-letters/{id}/replay`
async fn replay(State(state): State<Arc<Letters>>, call: Call) -> Response {
    let Letters { resource, letters } = &*state;
    resource
        .run(Operation::Patch, call, async |mut call: Call| {
            resource.may_write(&call)?;
            let actor = call.origin().actor;
            letters.replay(&call.key("id")?, &actor).await.map_err(|error| resource.problem(error))?;
            Ok(StatusCode::ACCEPTED.into_response())
        })
        .await
}

/// `POST /dead-letters/replay` with `{stage?, subject?, cursor?}`
async fn replay_all(State(state): State<Arc<Letters>>, call: Call) -> Response {
    let Letters { resource, letters } = &*state;
    resource
        .run_received(Operation::Patch, call, async |call: Call| {
            resource.may_write(&call)?;
            let actor = call.origin().actor;
            let received = resource.body(call, Operation::Patch, JSON).await?;
            let schema = filter();
            let body: &[u8] = if received.is_empty() { b"{}" } else { &received };
            let draft = parse_create(&schema, body).map_err(|error| resource.problem(error.into()))?;
            if draft.key.is_some() {
                return Err(Problem::field("id", "is no filter: replay one letter at its own path"));
            }
            let text = |name| schema.get(&draft.values, name).as_text();
            let cursor = text("cursor").map(str::parse).transpose();
            let cursor = cursor
                .map_err(|why: String| Problem::field("cursor", format!("is none of ours: it {why}")))?;
            let done = letters.replay_all(text("stage"), text("subject"), cursor, &actor).await;
            Ok(Json(done.map_err(|error| resource.problem(error))?).into_response())
        })
        .await
}

/// `DELETE /dead-letters/{id}`
async fn give_up(State(state): State<Arc<Letters>>, call: Call) -> Response {
    let Letters { resource, letters } = &*state;
    resource
        .run(Operation::Delete, call, async |mut call: Call| {
            resource.may_write(&call)?;
            let actor = call.origin().actor;
            letters.give_up(&call.key("id")?, &actor).await.map_err(|error| resource.problem(error))?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
        .await
}

fn filter() -> Schema {
    let text = |name, max| Field::new(name, Kind::text(max));
    let fields = vec![text("stage", 64), text("subject", 128), text("cursor", 128)];
    Schema::new("filter", "filters", fields)
}
