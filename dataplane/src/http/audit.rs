//! `GET /audit`: who changed what and when, in the pools that the caller may read.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Serialize;

use super::{
    error::Problem,
    extract::Call,
    metrics::Operation,
    params::Params,
    resource::{Resource, json},
};
use crate::{
    domain::{
        audit::{AuditEntry, AuditQuery},
        record::Key,
        value::Timestamp,
    },
    service::audit::{self, AuditPage},
};

/// The pools whose changes are shown.
pub struct Audit(pub Vec<Arc<Resource>>);

#[derive(Serialize)]
struct Body<'a> {
    items: &'a [AuditEntry],
    limit: u32,
    next_cursor: Option<String>,
}

/// `GET /audit?entity=&id=&actor=&since=&limit=&cursor=`
pub async fn list(State(audit): State<Arc<Audit>>, call: Call) -> Response {
    match audit.0.first() {
        Some(first) => first.run(Operation::List, call, |call| page(&audit, call)).await,
        None => Problem::not_found("no pool is served here").respond(&call.uri),
    }
}

async fn page(audit: &Audit, call: Call) -> Result<Response, Problem> {
    let params = Params::read(&call.uri, &["entity", "id", "actor", "since", "limit", "cursor"])?;
    let pools = shown(audit, &params, &call)?;
    let invalid = |name: &'static str| move |message: String| Problem::field(name, message);
    let since = params.get("since").map(str::parse::<Timestamp>).transpose().map_err(invalid("since"))?;
    let key = params.get("id").map(str::parse::<Key>).transpose().map_err(invalid("id"))?;
    let after = params
        .get("cursor")
        .map(|cursor| audit::place_of(cursor).ok_or_else(|| Problem::field("cursor", "is not a cursor of the audit")));
    let limit = params.limit()?;
    let query = AuditQuery {
        entities: pools.iter().map(|pool| pool.records.schema().entity.clone()).collect(),
        key: key.map(|key| key.to_string()),
        actor: params.search("actor")?.map(str::to_owned),
        since,
        after: after.transpose()?,
        limit,
    };
    let records: Vec<_> = pools.iter().map(|pool| Arc::clone(&pool.records)).collect();
    let AuditPage { entries, next_cursor } = match audit::page(&records, query).await {
        Ok(page) => page,
        Err(error) => return Err(audit.0.first().map_or_else(|| Problem::not_found(""), |pool| pool.problem(error))),
    };
    let body = serde_json::to_vec(&Body { items: &entries, limit, next_cursor }).unwrap_or_default();
    Ok(json(body.into(), StatusCode::OK))
}

/// The pools that are asked for, as far as the caller may read them.
fn shown<'a>(audit: &'a Audit, params: &Params, call: &Call) -> Result<Vec<&'a Arc<Resource>>, Problem> {
    let Some(entity) = params.get("entity") else {
        let readable: Vec<_> = audit.0.iter().filter(|pool| pool.may_read(call).is_ok()).collect();
        return match (readable.is_empty(), audit.0.first()) {
            (true, Some(pool)) => pool.may_read(call).map(|()| readable),
            _ => Ok(readable),
        };
    };
    let named = |pool: &&Arc<Resource>| pool.records.schema().entity == entity || pool.pool() == entity;
    let Some(pool) = audit.0.iter().find(named) else {
        let known: Vec<&str> = audit.0.iter().map(|pool| pool.records.schema().entity.as_str()).collect();
        return Err(Problem::field("entity", format!("must be one of {}", known.join(", "))));
    };
    pool.may_read(call)?;
    Ok(vec![pool])
}
