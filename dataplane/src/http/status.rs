//! `PUT /payments/{id}/status`: moves a payment's status.

use std::sync::{Arc, LazyLock};

use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{
    conditions::precondition,
    extract::Call,
    metrics::Operation,
    resource::{JSON, Resource},
};
use crate::problem::Problem;
use crate::service::payments::set_status;
use model::{
    entities::payment::STATUSES,
    json::parse_create,
    schema::{Field, Kind, Schema},
    value::Value,
};

/// What the body looks like.
static BODY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new("status", "status", vec![Field::new("status", Kind::Choice(&STATUSES)).required()])
});

/// Moves a payment to the status of the body.
pub async fn put(State(payments): State<Arc<Resource>>, call: Call) -> Response {
    payments.run_received(Operation::Patch, call, |call| change(&payments, call)).await
}

async fn change(payments: &Resource, mut call: Call) -> Result<Response, Problem> {
    payments.may_change(&call)?;
    let key = call.key("id")?;
    let (asked, origin) = (precondition(&call.headers)?, call.origin());
    let body = payments.body(call, Operation::Patch, JSON).await?;
    let draft = parse_create(&BODY, &body).map_err(|error| payments.problem(error.into()))?;
    if draft.key.is_some_and(|other| other != key) {
        return Err(Problem::field("id", "must be the key of the path, or left out"));
    }
    let status = draft.values.0.first().and_then(Value::as_text).unwrap_or_default();
    let moved = set_status(&payments.records, &key, &asked, status, &origin).await;
    Ok(payments.written(&moved.map_err(|error| payments.problem(error))?, StatusCode::OK))
}
