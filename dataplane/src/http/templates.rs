//! `POST /notifications/templates/{id}/render`: a template with its variables filled in.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value as Json, json};

use super::{
    extract::Call,
    metrics::Operation,
    params::Params,
    resource::{JSON, Resource, json as json_response},
};
use crate::problem::Problem;
use crate::service::{error::ServiceError, rendering};
use model::{
    fault::FieldFault,
    json::{BodyError, members},
    key::Version,
    strict, template,
};

/// The most bytes of a body: as many as variables may have, and what is around them.
const BODY_MAX: usize = template::VARIABLES_MAX + 1_024;

/// `POST /notifications/templates/{id}/render`
pub async fn render(State(templates): State<Arc<Resource>>, call: Call) -> Response {
    templates.run_received(Operation::Get, call, |call| filled_in(&templates, call)).await
}

async fn filled_in(templates: &Resource, mut call: Call) -> Result<Response, Problem> {
    templates.may_read(&call)?;
    Params::read(&call.uri, &[])?;
    let key = call.key(&templates.records.schema().key)?;
    let body = templates.receive(call, Operation::Get, JSON, BODY_MAX).await?;
    let variables = variables_of(&body).map_err(|error| templates.problem(error.into()))?;
    let served = templates.records.get(&key, Version(0)).await.map_err(|error| templates.problem(error))?;
    let record: Json = serde_json::from_slice(&served.entry.to_body()).unwrap_or_default();
    let texts =
        ["subject", "body"].map(|field| (field, record.get(field).and_then(Json::as_str).map(str::to_owned)));
    let filled = rendering::apart(move || {
        texts.map(|(field, text)| text.map(|text| template::render(field, &text, &variables)).transpose())
    });
    let filled = filled.await.ok_or_else(|| {
        Problem::overload(
            "rendering",
            "templates are filled in as fast as they can be: try again, or with less text",
        )
    })?;
    let mut faults = Vec::new();
    let [subject, text] = filled.map(|text| {
        text.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        })
    });
    if !faults.is_empty() {
        faults.dedup();
        return Err(templates.problem(ServiceError::Invalid(faults)));
    }
    let answer = json!({
        "id": key.as_str(),
        "version": served.entry.version.0,
        "template": record.get("template"),
        "channels": record.get("channels"),
        "subject": subject,
        "body": text,
    });
    Ok(json_response(answer.to_string().into(), StatusCode::OK))
}

/// The variables of `{variables: {…}}`.
fn variables_of(body: &[u8]) -> Result<Json, BodyError> {
    let mut faults = Vec::new();
    let mut variables = Json::Object(serde_json::Map::new());
    for (name, raw) in members(body, &mut faults)? {
        match (name.as_str(), strict::parse(&name, raw.get())) {
            ("variables", Ok(tree)) if tree.is_object() => variables = tree,
            ("variables", Ok(_)) => faults.push(FieldFault::new(name, "must be an object")),
            ("variables", Err(fault)) => faults.push(fault),
            _ => {
                faults
                    .push(FieldFault::new(strict::shorten(&name), "is not a field here: there is variables"));
            }
        }
    }
    if faults.is_empty() { Ok(variables) } else { Err(BodyError::Invalid(faults)) }
}
