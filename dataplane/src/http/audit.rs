//! `GET /audit` and its export: who changed what and when, in the pools that the caller may read.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use super::{
    extract::Call,
    metrics::Operation,
    params::Params,
    resource::{Resource, json},
};
use crate::problem::Problem;
use crate::service::{
    audit::{self, AuditPage},
    error::ServiceError,
    records::Records,
};
use model::{
    audit::{AuditEntry, AuditQuery},
    budget::{Allowance, Held, until_sent},
    key::Key,
    value::Timestamp,
};

/// The entries that an export reads at once.
const EXPORT_STEP: u32 = 500;

/// The pools whose changes are shown.
pub struct Audit(pub Vec<Arc<Resource>>);

#[derive(Serialize)]
struct Page<'a> {
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

/// `GET /audit/export?entity=&id=&actor=&since=`: all that a list gives page by page, as lines of JSON.
pub async fn export(State(audit): State<Arc<Audit>>, call: Call) -> Response {
    match audit.0.first().cloned() {
        Some(first) => first.run(Operation::List, call, |call| lines(audit, call)).await,
        None => Problem::not_found("no pool is served here").respond(&call.uri),
    }
}

async fn lines(audit: Arc<Audit>, call: Call) -> Result<Response, Problem> {
    let params = Params::read(&call.uri, &["entity", "id", "actor", "since"])?;
    let (records, query) = asked(&audit, &params, &call)?;
    let query = AuditQuery { limit: EXPORT_STEP, ..query };
    // the first step is done before the answer begins, so that a failure is told as one
    let first = audit.read(&records, query.clone()).await.map_err(|error| audit.problem(error))?;
    let rest = stream::try_unfold(Some(Step::Read(first)), move |step| {
        let (records, query, audit) = (records.clone(), query.clone(), audit.clone());
        async move {
            let (page, held) = match step {
                None => return Ok::<_, std::io::Error>(None),
                Some(Step::Read(read)) => read,
                Some(Step::After(place)) => {
                    let query = AuditQuery { after: Some(place), ..query };
                    audit.read(&records, query).await.map_err(std::io::Error::other)?
                }
            };
            let mut text = Vec::new();
            for entry in &page.entries {
                serde_json::to_writer(&mut text, entry)?;
                text.push(b'\n');
            }
            let next = page.next_cursor.as_deref().and_then(audit::place_of).map(Step::After);
            Ok(Some((until_sent(text.into(), held), next)))
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// How far an export is.
enum Step {
    /// This was read, and is held.
    Read((AuditPage, Arc<Held>)),
    /// What follows this place is next.
    After((Timestamp, Uuid)),
}

impl Audit {
    /// A page, and what it holds of the memory for answers.
    async fn read(
        &self,
        records: &[Arc<Records>],
        query: AuditQuery,
    ) -> Result<(AuditPage, Arc<Held>), ServiceError> {
        let held = Arc::new(self.0.first().ok_or(ServiceError::NotFound)?.budgets().answers.share());
        let page = audit::page(records, AuditQuery { allowance: Allowance::of(&held), ..query }).await?;
        Ok((page, held))
    }

    fn problem(&self, error: ServiceError) -> Problem {
        self.0.first().map_or_else(|| Problem::not_found(""), |pool| pool.problem(error))
    }
}

/// The pools that are asked for, as far as the caller may read them, and what of their audit.
fn asked(audit: &Audit, params: &Params, call: &Call) -> Result<(Vec<Arc<Records>>, AuditQuery), Problem> {
    let pools = shown(audit, params, call)?;
    let invalid = |name: &'static str| move |message: String| Problem::field(name, message);
    let since = params.get("since").map(str::parse::<Timestamp>).transpose().map_err(invalid("since"))?;
    let key = params.get("id").map(str::parse::<Key>).transpose().map_err(invalid("id"))?;
    let query = AuditQuery {
        entities: pools.iter().map(|pool| pool.records.schema().entity.clone()).collect(),
        key: key.map(|key| key.to_string()),
        actor: params.search("actor")?.map(str::to_owned),
        since,
        ..AuditQuery::default()
    };
    Ok((pools.iter().map(|pool| Arc::clone(&pool.records)).collect(), query))
}

async fn page(audit: &Audit, call: Call) -> Result<Response, Problem> {
    let params = Params::read(&call.uri, &["entity", "id", "actor", "since", "limit", "cursor"])?;
    let (records, query) = asked(audit, &params, &call)?;
    let after = params.get("cursor").map(|cursor| {
        audit::place_of(cursor).ok_or_else(|| Problem::field("cursor", "is not a cursor of the audit"))
    });
    let limit = params.limit()?;
    let query = AuditQuery { after: after.transpose()?, limit, ..query };
    let (page, held) = audit.read(&records, query).await.map_err(|error| audit.problem(error))?;
    if !held.double() {
        return Err(Problem::no_memory());
    }
    let AuditPage { entries, next_cursor } = page;
    let body = serde_json::to_vec(&Page { items: &entries, limit, next_cursor }).unwrap_or_default();
    Ok(json(until_sent(body.into(), held), StatusCode::OK))
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
