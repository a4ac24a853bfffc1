//! `POST /{collection}/batch`: some operations at once, each by itself or all as one unit of work.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value as Json, json};

use super::{
    extract::Call,
    metrics::Operation as Metric,
    resource::{JSON, Resource, json as json_response},
};
use crate::problem::Problem;
use crate::{
    server::memory::{about, told},
    service::batch::{Bounds, Done, DoneKind, Outcome, Undone, run, run_atomic},
};
use model::batch::{Batch, OPERATIONS_MAX, Operation, parse_batch};

/// The most bytes of a batch.
const BODY_MAX: usize = 16 << 20;

/// `POST /{collection}/batch`
pub async fn post(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.run_received(Metric::Batch, call, |call| batch(&resource, call)).await
}

async fn batch(resource: &Resource, call: Call) -> Result<Response, Problem> {
    resource.may_write(&call)?;
    let (mut origin, key, uri) = (call.origin(), call.idempotency_key()?, call.uri.clone());
    let body = resource.receive(call, Metric::Batch, JSON, BODY_MAX).await?;
    let Batch { atomic, operations } = parse_batch(&body).map_err(|error| resource.problem(error.into()))?;
    origin.idempotency = key.map(|key| resource.idempotency(&origin, &key, "batch", &body));
    let bounds = Bounds { upserts: resource.upserts, data_bytes_max: resource.record_bytes_max() };
    let outcomes = match atomic {
        false => run(&resource.records, bounds, &operations, &origin).await,
        true => match run_atomic(&resource.records, bounds, &operations, &origin).await {
            Ok(done) => done.into_iter().map(Ok).collect(),
            Err(Undone::Whole(error)) => return Err(resource.problem(error)),
            Err(Undone::Planned { index: failed, error }) => {
                let problem = of_operation(resource.problem(error), failed, &operations);
                return Ok(answer(none_done(failed, &problem, &operations, uri.path())));
            }
            Err(Undone::Refused { index, error }) => {
                return Err(of_operation(resource.problem(error), index, &operations));
            }
        },
    };
    let done = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok());
    let about = about(&resource.path, done.map(|Done { key, version, .. }| (key, *version)));
    Ok(told(answer(results_of(resource, outcomes, &operations, uri.path())), about))
}

fn results_of(
    resource: &Resource,
    outcomes: Vec<Outcome>,
    operations: &[Operation<'_>],
    path: &str,
) -> Vec<Json> {
    let outcomes = outcomes.into_iter().enumerate();
    outcomes.map(|(index, outcome)| result(resource, index, outcome, operations, path)).collect()
}

fn answer(results: Vec<Json>) -> Response {
    json_response(json!({ "results": results }).to_string().into(), StatusCode::MULTI_STATUS)
}

fn result(
    resource: &Resource,
    index: usize,
    outcome: Outcome,
    operations: &[Operation<'_>],
    path: &str,
) -> Json {
    match outcome {
        Ok(Done { key, version, kind }) => {
            let status = match kind {
                DoneKind::Created => StatusCode::CREATED,
                DoneKind::Changed => StatusCode::OK,
                DoneKind::Deleted => StatusCode::NO_CONTENT,
            };
            json!({ "status": status.as_u16(), "id": key.as_str(), "version": version.0 })
        }
        Err(error) => failed(&of_operation(resource.problem(error), index, operations), path),
    }
}

fn of_operation(problem: Problem, index: usize, operations: &[Operation<'_>]) -> Problem {
    match operations.get(index) {
        Some(operation) => problem.of_operation(index, operation),
        None => problem,
    }
}

/// One operation failed, so none was done.
fn none_done(failed_at: usize, problem: &Problem, operations: &[Operation<'_>], path: &str) -> Vec<Json> {
    let detail = format!("not done, because operation {failed_at} failed");
    let others =
        Problem::new(StatusCode::FAILED_DEPENDENCY, "not-done", "The operation was not done", detail);
    let one = |index| failed(if index == failed_at { problem } else { &others }, path);
    (0..operations.len().min(OPERATIONS_MAX)).map(one).collect()
}

fn failed(problem: &Problem, path: &str) -> Json {
    json!({ "status": problem.status().as_u16(), "error": problem.to_json(path) })
}
