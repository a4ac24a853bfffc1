//! The one form of an error: RFC 9457 problem details. No SQL, no stack, no secret.

use std::time::Duration;

use axum::{body::Bytes, response::Response};
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Serialize;

use crate::service::error::ServiceError;
use model::{
    batch::Operation,
    fault::FieldFault,
    key::Version,
    record::{Oddity, Unreadable},
};
use store::confined::PoolFault;

/// When to ask again for a pool that is unavailable: it is looked at every few seconds.
const POOL_RETRY_S: u32 = 5;

/// When to ask again where there is no room: people have to make it.
const ROOM_RETRY_S: u32 = 10;

/// The kind of a body in a content coding.
const CODED: &str = "content-coding";

/// An error as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldFault>,
    retry_after_s: Option<u32>,
    cause: Cause,
    unreadable: Option<Box<Shown>>,
    operation: Option<Box<OfOperation>>,
}

/// The kind of a problem, in the extensions of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub &'static str);

/// What a status of the class 5xx is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A failure of this side.
    Failure,
    /// More comes in than can be done.
    Overload,
    /// The client asks for what is not there.
    Demand,
}

/// What of a record cannot be read. Its value is shown nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    key: String,
    field: String,
    /// What is stored there, as the store calls it.
    stored_type: String,
    /// Its bytes.
    length: u64,
    /// The record's version, by which a PUT or DELETE may ask for it; none where it cannot be read either.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// The operation of a batch that a problem is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct OfOperation {
    index: usize,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'a Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a OfOperation>,
}

#[derive(Serialize)]
struct Fault<'a> {
    field: &'a str,
    message: &'a str,
}

/// The document of a problem, beside the answer that it is the body of: who sends that may add to it.
#[derive(Clone, Debug)]
pub struct ProblemBody(pub Bytes);

impl Problem {
    /// A problem of a kind: a short word that names it for programs.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            cause: Cause::Failure,
            unreadable: None,
            operation: None,
        }
    }

    /// 400: fields, parameters or headers are wrong.
    pub fn invalid(errors: Vec<FieldFault>) -> Self {
        let detail = match errors.as_slice() {
            [fault] => format!("{} {}", fault.field, fault.message),
            faults => format!("{} fields are wrong", faults.len()),
        };
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "invalid", "The request is not valid", detail) }
    }

    /// 400: one field, parameter or header is wrong.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldFault::new(field, message)])
    }

    /// 401: a token is needed.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "A valid token is needed", detail)
    }

    /// 403: the caller's roles do not allow it.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The caller may not do this", detail)
    }

    /// 429: the caller asks more often than it may.
    pub fn limited(detail: impl Into<String>, wait: Duration) -> Self {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        Self {
            retry_after_s: Some(seconds.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate", "Too many requests", detail)
        }
    }

    /// 404: nothing is there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// 404: what these fields name is not there.
    pub fn unknown(errors: Vec<FieldFault>) -> Self {
        Self { errors, ..Self::not_found("what the request speaks of is not there") }
    }

    /// 413: the body is too large.
    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("the body may have at most {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    }

    /// 415: the body came in a content coding.
    pub fn coded() -> Self {
        let detail = "Content-Encoding is not supported: send the body as it is";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, CODED, "The body's coding is not supported", detail)
    }

    /// 503: try again in a second.
    pub fn unavailable(kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, "The service cannot do this now", detail)
        }
    }

    /// 503: the pool's collection cannot be used until its owner has mended it.
    pub fn pool_unavailable(fault: &PoolFault) -> Self {
        let PoolFault { reason, message } = fault;
        Self {
            retry_after_s: Some(POOL_RETRY_S),
            title: "The pool is unavailable",
            ..Self::unavailable("pool-unavailable", format!("{message} ({reason:?})"))
        }
    }

    /// 507: there is no room to store this, and nothing was changed.
    pub fn insufficient_storage(why: &str) -> Self {
        let detail =
            format!("nothing was changed: {why}; reads go on, and writes as soon as there is room again");
        let title = "There is no room to store this";
        Self {
            retry_after_s: Some(ROOM_RETRY_S),
            ..Self::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient-storage", title, detail)
        }
    }

    /// 503: more comes in than can be done. That is no failure of this side, and is counted apart.
    pub fn overload(kind: &'static str, detail: impl Into<String>) -> Self {
        Self { cause: Cause::Overload, ..Self::unavailable(kind, detail) }
    }

    /// 503: the requests and answers under way hold as much memory as they may.
    pub fn no_memory() -> Self {
        let detail = "requests and answers under way hold as much memory as they may: try again, or ask for less at once";
        Self::overload("memory", detail)
    }

    /// What it is counted as, where its status is of the class 5xx.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The same, of one operation of a batch.
    #[must_use]
    pub fn of_operation(mut self, index: usize, operation: &Operation<'_>) -> Self {
        let (op, id) = (operation.op.name(), operation.key.as_ref().map(ToString::to_string));
        let named = id.as_ref().map_or_else(String::new, |id| format!(" {id}"));
        self.detail = format!("operation {index} ({op}{named}): {}", self.detail);
        self.operation = Some(Box::new(OfOperation { index, op, id }));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The problem as JSON, of something at a path.
    pub fn to_json(&self, path: &str) -> serde_json::Value {
        serde_json::to_value(self.body(path)).unwrap_or_default()
    }

    fn body<'a>(&'a self, path: &'a str) -> Body<'a> {
        Body {
            r#type: format!("urn:flyweight:problem:{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: path,
            errors: self
                .errors
                .iter()
                .map(|FieldFault { field, message }| Fault { field, message })
                .collect(),
            unreadable: self.unreadable.as_deref(),
            operation: self.operation.as_deref(),
        }
    }

    /// The response to a request for this URI.
    pub fn respond(&self, uri: &Uri) -> Response {
        let body = self.body(uri.path());
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let mut response = Response::new(body.clone().into());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(ProblemBody(body));
        response.extensions_mut().insert(Reason(self.kind));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // tells a wrong coding from a wrong type (RFC 9110, section 12.5.3)
        if self.kind == CODED {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let conflict = |kind, detail| {
            Self::new(StatusCode::CONFLICT, kind, "The record's state does not allow this", detail)
        };
        match error {
            ServiceError::NotFound => Self::not_found("there is no such record"),
            ServiceError::Stale { current } => Self::stale(current),
            ServiceError::Exists => conflict("exists", "a record with this key exists".to_owned()),
            ServiceError::Duplicate { field } => {
                let detail = format!("another record has the same {field}");
                Self {
                    errors: vec![FieldFault::new(field, "is taken by another record")],
                    ..conflict("duplicate", detail)
                }
            }
            ServiceError::KeyReused => {
                let message = "came with another request before: take a new one for each request";
                let fault = FieldFault::new("Idempotency-Key", message);
                let title = "The idempotency key is in use";
                let detail = format!("{} {message}", fault.field);
                let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency", title, detail);
                Self { errors: vec![fault], ..problem }
            }
            ServiceError::Conflict(detail) => conflict("conflict", detail),
            ServiceError::Refused(faults) => {
                let detail = ServiceError::Refused(faults.clone()).to_string();
                Self { errors: faults, ..conflict("conflict", detail) }
            }
            ServiceError::Malformed(detail) => {
                Self::new(StatusCode::BAD_REQUEST, "malformed", "The body cannot be read", detail)
            }
            ServiceError::Invalid(faults) => Self::invalid(faults),
            ServiceError::ReadOnly(detail) => Self::forbidden(detail),
            ServiceError::Unsupported(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupported", "The store cannot do this", detail)
            }
            ServiceError::TooLarge(bytes_max) => Self::too_large(bytes_max),
            ServiceError::At { index: _, error } => Self::from(*error),
            ServiceError::Setup(detail) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "store-setup",
                "The store is not set up for this",
                detail,
            ),
            ServiceError::NotYet { wanted, current } => Self {
                cause: Cause::Demand,
                ..Self::unavailable(
                    "not-yet",
                    format!("version {wanted} has not arrived: the record has version {current}"),
                )
            },
            ServiceError::Contended => {
                Self::unavailable("contended", "others changed the record again and again: try again")
            }
            ServiceError::PoolUnavailable(fault) => Self::pool_unavailable(&fault),
            ServiceError::Full(why) => Self::insufficient_storage(&why),
            ServiceError::Unavailable(_) => {
                Self::unavailable("store-unavailable", "the store cannot be reached: try again")
            }
            ServiceError::Overloaded => Self::no_memory(),
            ServiceError::Timeout => {
                Self::unavailable("timeout", "the store did not answer in time: try again")
            }
            ServiceError::Unknown(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "unknown-outcome",
                "The outcome is not known",
                "the store did not confirm in time: the change may or may not have happened",
            ),
            ServiceError::Unreadable(unreadable) => Self::unreadable(&unreadable),
            ServiceError::Internal(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The service failed",
                "the service failed to handle this request; its log says more",
            ),
        }
    }
}

impl Problem {
    /// 500: a stored value has no exact meaning. Who knows the right one can put it there.
    fn unreadable(unreadable: &Unreadable) -> Self {
        let Oddity { field, kind, length, .. } = unreadable.first();
        let version = unreadable.has_version().then_some(unreadable.rest.version.0);
        let key = unreadable.rest.key.to_string();
        let detail = format!(
            "{field} holds a stored value of the type {kind} and {length} bytes that has no exact meaning there: \
             replace the record (PUT) or delete it"
        );
        let message = format!("cannot be read: its stored type is {kind}, of {length} bytes");
        let errors = vec![FieldFault::new(&field, message)];
        let shown = Shown { key, field, stored_type: kind, length, version };
        let title = "The stored record cannot be read";
        let problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable-record", title, detail);
        Self { errors, unreadable: Some(Box::new(shown)), ..problem }
    }

    /// 412: the record has another version than the conditions ask for.
    pub fn stale(current: Version) -> Self {
        let detail = match current {
            Version(0) => "the record is not there".to_owned(),
            version => format!("the record has version {version}"),
        };
        Self::new(StatusCode::PRECONDITION_FAILED, "stale", "The record is not as the condition says", detail)
    }
}
