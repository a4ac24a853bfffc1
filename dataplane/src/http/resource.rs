//! The generic handlers of one pool's records. Knows no entity by name.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::{
    compress::{self, compressed, is_large},
    conditions::{Asked, IF_MIN_VERSION, at_least, etag, of_read, precondition},
    extract::{Call, IDEMPOTENCY_KEY, Received},
    gate::{Gate, Places, WriteGate},
    metrics::{Operation, PoolMetrics},
    params::Params,
};
use crate::problem::{Cause, Problem};
use crate::{
    security::policy::PoolPolicy,
    server::memory::{ABOUT, ASKS_ABOUT},
    service::{
        error::ServiceError,
        records::{Records, Served},
    },
    telemetry::trace,
};
use engine::{Entry, tiered::STORE};
use model::{
    budget::{Budgets, until_sent},
    change::{Idempotency, Origin},
    json::{parse_create, parse_patch, parse_replace},
    key::Key,
    record::Record,
    routes::is_fixed_word,
};
use store::confined::Away;

/// The media types of a JSON body.
pub const JSON: &[&str] = &["application/json"];
const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];
const EXPLAIN: HeaderName = HeaderName::from_static("flyweight-explain");

/// From how many bytes on an answer of one record counts in memory.
const LARGE: usize = 64 << 10;

const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// The records of one pool as the API serves them.
pub struct Resource {
    /// The records.
    pub records: Arc<Records>,
    /// The path of the collection: `/api/v1/users`.
    pub path: String,
    /// Whether PUT creates a record that is not there.
    pub upserts: bool,
    policy: PoolPolicy,
    gate: Arc<Gate>,
    writes: WriteGate,
    metrics: PoolMetrics,
    away: Arc<Away>,
}

impl Resource {
    /// The records of a pool at a path.
    pub fn new(
        records: Arc<Records>,
        path: String,
        upserts: bool,
        policy: PoolPolicy,
        gate: Arc<Gate>,
        metrics: PoolMetrics,
    ) -> Self {
        Self {
            records,
            path,
            upserts,
            policy,
            gate,
            writes: WriteGate::default(),
            metrics,
            away: Arc::default(),
        }
    }

    /// The same over a store whose pools can be away.
    #[must_use]
    pub fn confined_by(self, away: Arc<Away>) -> Self {
        Self { away, ..self }
    }

    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.records.collection().pool
    }

    /// What its requests cost.
    pub fn metrics(&self) -> &PoolMetrics {
        &self.metrics
    }

    /// What requests and answers may hold.
    pub fn budgets(&self) -> &Budgets {
        &self.gate.budgets
    }

    /// What it allows, and to whom.
    pub fn policy(&self) -> &PoolPolicy {
        &self.policy
    }

    /// Whether the pool's records can be changed.
    pub fn is_writable(&self) -> bool {
        self.records.collection().version_column.is_some()
    }

    /// Handles a request without a body within the gate, and counts it. `work` gets the request.
    pub async fn run<F: Future<Output = Result<Response, Problem>>>(
        &self,
        operation: Operation,
        call: Call,
        work: impl FnOnce(Call) -> F,
    ) -> Response {
        let work = |call| async move {
            let _places = self.enter(operation).await?;
            work(call).await
        };
        self.run_received(operation, call, work).await
    }

    /// Counts a request whose `work` receives a body first, and with it its places: who sends it slowly takes
    /// none from others.
    pub async fn run_received<F: Future<Output = Result<Response, Problem>>>(
        &self,
        operation: Operation,
        call: Call,
        work: impl FnOnce(Call) -> F,
    ) -> Response {
        let started = Instant::now();
        let (uri, accepted) = (call.uri.clone(), call.headers.get(header::ACCEPT_ENCODING).cloned());
        let is_asked = call.headers.contains_key(ASKS_ABOUT);
        let response = trace::scope(trace::of_headers(&call.headers), work(call)).await;
        let cause = response.as_ref().err().map(Problem::cause);
        let mut response = response.unwrap_or_else(|problem| problem.respond(&uri));
        if !is_asked {
            response.headers_mut().remove(ABOUT);
        }
        let response = if is_large(&response) { compressed(accepted, response).await } else { response };
        let took = started.elapsed();
        if cause == Some(Cause::Demand) {
            self.metrics.unmet(operation, took);
        } else {
            self.metrics.observe(operation, response.status(), took);
        }
        if cause == Some(Cause::Overload) {
            self.metrics.refused(operation, took);
        }
        response
    }

    /// A place for a request; for a change of a record also one among the pool's writes. Events only pass
    /// through to their log.
    async fn enter(&self, operation: Operation) -> Result<Places<'_>, Problem> {
        if operation.writes() {
            self.gate.check_memory()?;
        }
        // A write that waits, or whose refusal is held back, takes no place from others.
        let write = match operation {
            Operation::Get | Operation::List | Operation::Ingest => None,
            Operation::Create
            | Operation::Replace
            | Operation::Patch
            | Operation::Delete
            | Operation::Batch => Some(self.writes.enter().await?),
        };
        Ok([Some(self.gate.enter()?), write])
    }

    /// Refuses callers that may not read, and all while the pool is away: also what memory still holds of it.
    ///
    /// # Errors
    /// 401, 403, or 503 with why.
    pub fn may_read(&self, call: &Call) -> Result<(), Problem> {
        check(self.policy.may_read(call.caller()), call)?;
        self.is_here()
    }

    /// Whether the pool is not away.
    ///
    /// # Errors
    /// 503 with why.
    fn is_here(&self) -> Result<(), Problem> {
        self.away.of(self.pool()).map_or(Ok(()), |fault| Err(Problem::pool_unavailable(&fault)))
    }

    /// Refuses callers that may not write.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn may_write(&self, call: &Call) -> Result<(), Problem> {
        self.permits_write(call)?;
        Params::read(&call.uri, &[])?;
        self.is_here()
    }

    /// Refuses callers that may not write, and keys of idempotency: one record is changed once by its
    /// version.
    ///
    /// # Errors
    /// 400, 401 or 403.
    pub fn may_change(&self, call: &Call) -> Result<(), Problem> {
        self.permits_write(call)?;
        call.check_params()?;
        if call.headers.contains_key(IDEMPOTENCY_KEY) {
            return Err(Problem::field(
                "Idempotency-Key",
                "is for creates and batches: change a record under If-Match",
            ));
        }
        Ok(())
    }

    /// Refuses callers that may not write, whatever else the request is.
    ///
    /// # Errors
    /// 401 or 403.
    pub fn permits_write(&self, call: &Call) -> Result<(), Problem> {
        check(self.policy.may_write(call.caller()), call)
    }

    /// What tells a repeat of this request: the caller and the key that the caller gave, and the request.
    pub fn idempotency(&self, origin: &Origin, key: &str, request: &str, body: &[u8]) -> Idempotency {
        let hex = |parts: [&[u8]; 3]| {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let key = hex([origin.actor.as_bytes(), self.path.as_bytes(), key.as_bytes()]);
        Idempotency { key, request: hex([request.as_bytes(), self.path.as_bytes(), body]) }
    }

    /// The body of a request of one record, and its places.
    ///
    /// # Errors
    /// See [`Self::receive`].
    pub async fn body(
        &self,
        call: Call,
        operation: Operation,
        types: &[&str],
    ) -> Result<Received<'_>, Problem> {
        self.receive(call, operation, types, self.record_bytes_max()).await
    }

    /// The most bytes of the body of one record.
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(self.policy.now().limits.max_record_bytes.0).unwrap_or(usize::MAX)
    }

    /// The body of a request, of at most so many bytes, and once it is there the places of the request.
    ///
    /// # Errors
    /// See [`Call::body`]; 503 where there is no place.
    pub async fn receive(
        &self,
        call: Call,
        operation: Operation,
        types: &[&str],
        bytes_max: usize,
    ) -> Result<Received<'_>, Problem> {
        if operation.writes() {
            self.gate.check_memory()?;
        }
        let held = self.budgets().bodies.share();
        let bytes = call.body(types, bytes_max, self.gate.deadline, &held).await?;
        Ok(Received::new(bytes, held, self.enter(operation).await?))
    }

    /// The answer that shows a record as it was written.
    pub fn written(&self, record: &Record, status: StatusCode) -> Response {
        let mut response = json(record.to_json(self.records.schema()).into(), status);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag(record.version));
        if let Ok(location) = HeaderValue::try_from(location(&self.path, &record.key)) {
            // the answer to an action on a record, such as its cancellation, says whose version the tag is
            // (RFC 9110, section 8.7)
            let name =
                if status == StatusCode::CREATED { header::LOCATION } else { header::CONTENT_LOCATION };
            headers.insert(name, location);
        }
        response
    }

    /// Answers with the record of the path's key.
    pub async fn get(&self, call: Call) -> Response {
        self.run(Operation::Get, call, |call| self.read(call)).await
    }

    async fn read(&self, mut call: Call) -> Result<Response, Problem> {
        let started = Instant::now();
        self.may_read(&call)?;
        call.check_params()?;
        let key = call.key(&self.records.schema().key)?;
        let served =
            self.records.get(&key, at_least(&call.headers)?).await.map_err(|error| self.problem(error))?;
        let version = served.entry.version;
        let (mut response, tag) = match of_read(&call.headers, version)? {
            Asked::Whole => (json(self.body_of(&served.entry)?, StatusCode::OK), etag(version)),
            Asked::Known(tag) => (compress::not_modified(served.entry.body_len()), tag),
            Asked::Refused => return Err(Problem::stale(version)),
        };
        response.headers_mut().insert(header::ETAG, tag);
        if served.stale {
            response.headers_mut().insert(header::AGE, HeaderValue::from(served.age.as_secs()));
            response.headers_mut().insert(header::WARNING, STALE);
        }
        if call.headers.get(EXPLAIN).is_some_and(|value| value == "1") {
            response.headers_mut().insert(EXPLAIN, explanation(&served));
        }
        // an answer that had to wait for the store, or for a version, tells nothing of what a hit costs
        if &*served.tier != STORE && !served.stale && !call.headers.contains_key(IF_MIN_VERSION) {
            self.metrics.hit(started.elapsed());
        }
        Ok(response)
    }

    /// The body of an answer; a large one counts in memory until it is sent.
    fn body_of(&self, entry: &Entry) -> Result<Bytes, Problem> {
        let bytes = entry.body_len();
        if bytes < LARGE {
            return Ok(entry.to_body().into());
        }
        let held = Arc::new(self.budgets().answers.share());
        match held.grow(bytes as u64) {
            true => Ok(until_sent(entry.to_body().into(), held)),
            false => Err(Problem::no_memory()),
        }
    }

    /// Creates a record.
    pub async fn post(&self, call: Call) -> Response {
        self.run_received(Operation::Create, call, |call| self.create(call)).await
    }

    async fn create(&self, call: Call) -> Result<Response, Problem> {
        self.may_write(&call)?;
        let (origin, key) = (call.origin(), call.idempotency_key()?);
        let body = self.body(call, Operation::Create, JSON).await?;
        // In a box of its own, which a write gets that is let in: thousands may wait to be refused.
        Box::pin(self.create_from(&body, origin, key)).await
    }

    async fn create_from(
        &self,
        body: &[u8],
        mut origin: Origin,
        key: Option<String>,
    ) -> Result<Response, Problem> {
        let draft = parse_create(self.records.schema(), body).map_err(|error| self.problem(error.into()))?;
        origin.idempotency = key.map(|key| self.idempotency(&origin, &key, "create", body));
        let record = self.records.create(draft, &origin).await.map_err(|error| self.problem(error))?;
        Ok(self.written(&record, StatusCode::CREATED))
    }

    async fn replace(&self, mut call: Call) -> Result<Response, Problem> {
        self.may_change(&call)?;
        let key = call.key(&self.records.schema().key)?;
        let (asked, origin) = (precondition(&call.headers)?, call.origin());
        let received = self.body(call, Operation::Replace, JSON).await?;
        let body =
            parse_replace(self.records.schema(), &received).map_err(|error| self.problem(error.into()))?;
        let (record, created) = if self.upserts {
            self.records.upsert(&key, &asked, body, &origin).await.map_err(|error| self.problem(error))?
        } else {
            (
                self.records
                    .replace(&key, &asked, body, &origin)
                    .await
                    .map_err(|error| self.problem(error))?,
                false,
            )
        };
        Ok(self.written(&record, if created { StatusCode::CREATED } else { StatusCode::OK }))
    }

    async fn patch(&self, mut call: Call) -> Result<Response, Problem> {
        self.may_change(&call)?;
        let key = call.key(&self.records.schema().key)?;
        let (asked, origin) = (precondition(&call.headers)?, call.origin());
        let body = self.body(call, Operation::Patch, PATCH).await?;
        let patch = parse_patch(self.records.schema(), &body).map_err(|error| self.problem(error.into()))?;
        let record =
            self.records.patch(&key, &asked, &patch, &origin).await.map_err(|error| self.problem(error))?;
        Ok(self.written(&record, StatusCode::OK))
    }

    async fn delete(&self, mut call: Call) -> Result<Response, Problem> {
        self.may_change(&call)?;
        let key = call.key(&self.records.schema().key)?;
        let (asked, origin) = (precondition(&call.headers)?, call.origin());
        let version =
            self.records.delete(&key, &asked, &origin).await.map_err(|error| self.problem(error))?;
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        // a read that asks for it finds the record gone, at every replica
        response.headers_mut().insert(header::ETAG, etag(version));
        Ok(response)
    }

    /// The problem that an error is to the caller; failures of this side are logged here, once.
    pub fn problem(&self, error: ServiceError) -> Problem {
        let text = error.to_string();
        let problem = Problem::from(error);
        if problem.status().is_server_error() {
            tracing::warn!(
                pool = self.pool(),
                status = problem.status().as_u16(),
                error = text,
                "request failed"
            );
        }
        problem
    }
}

/// `GET /{collection}/{key}`
pub async fn get(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.get(call).await
}

/// `POST /{collection}`
pub async fn create(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.post(call).await
}

/// `PUT /{collection}/{key}`
pub async fn replace(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.run_received(Operation::Replace, call, |call| resource.replace(call)).await
}

/// `PATCH /{collection}/{key}`
pub async fn patch(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.run_received(Operation::Patch, call, |call| resource.patch(call)).await
}

/// `DELETE /{collection}/{key}`
pub async fn delete(State(resource): State<Arc<Resource>>, call: Call) -> Response {
    resource.run(Operation::Delete, call, |call| resource.delete(call)).await
}

/// What is kept as it is in a path's segment: RFC 3986's `pchar`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$');
/// Where a record is read: by its key in the path, or as `?id=` where the path would mean something else.
fn location(path: &str, key: &Key) -> String {
    let encoded = utf8_percent_encode(key.as_str(), SEGMENT);
    if is_fixed_word(key.as_str()) { format!("{path}?id={encoded}") } else { format!("{path}/{encoded}") }
}

fn check(allowed: bool, call: &Call) -> Result<(), Problem> {
    match call.caller() {
        _ if allowed => Ok(()),
        None => Err(Problem::unauthenticated("send a token as Authorization: Bearer")),
        Some(_) => Err(Problem::forbidden("none of the token's roles may do this in this pool")),
    }
}

/// An answer with a JSON body.
pub fn json(body: Bytes, status: StatusCode) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn explanation(served: &Served) -> HeaderValue {
    let Served { entry, tier, age, stale } = served;
    let stale = if *stale { "; stale" } else { "" };
    let text = format!("tier={tier}; version={}; age={}ms{stale}", entry.version, age.as_millis());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("tier=unknown"))
}

#[cfg(test)]
mod tests;
