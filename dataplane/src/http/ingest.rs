//! `POST /events`: events of price and stock, one as JSON or many as lines of JSON. Accepted means durable;
//! the workers apply them.

use std::{collections::HashSet, sync::Arc};

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use super::{extract::Call, metrics::Operation, resource::Resource};
use crate::problem::Problem;
use crate::service::{
    error::ServiceError,
    ingest::queue::{IngestQueue, NotAccepted},
};
use events::intake::IntakeError;
use model::{
    fault::FieldFault,
    json::BodyError,
    key::Key,
    price_event::{self, PriceEvent},
    record::Lookup,
    schema::Schema,
    value::Timestamp,
};

mod amounts;

/// The media types of one event and of many.
const TYPES: &[&str] = &["application/json", "application/x-ndjson", "application/jsonl"];
/// The most events in one body.
const EVENTS_MAX: usize = 10_000;
/// The most bytes of a body.
const BYTES_MAX: usize = 4 << 20;
/// The most faults that one answer lists.
const FAULTS_MAX: usize = 100;
/// Products that are looked for at once.
const KEYS_MAX: usize = 1_000;

/// The way in for events.
pub struct Ingress {
    products: Arc<Resource>,
    queue: Arc<IngestQueue>,
    schema: Schema,
}

impl Ingress {
    /// The way to these products. Who may write products may send events.
    pub fn new(products: Arc<Resource>, queue: Arc<IngestQueue>) -> Self {
        Self { products, queue, schema: price_event::schema() }
    }

    /// `POST /events`
    pub async fn post(self: Arc<Self>, call: Call) -> Response {
        let products = self.products.clone();
        products.run_received(Operation::Ingest, call, async move |call| self.accept(call).await).await
    }

    async fn accept(&self, call: Call) -> Result<Response, Problem> {
        self.products.may_write(&call)?;
        let kind =
            call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let many = kind.contains("ndjson") || kind.contains("jsonl");
        let body = self.products.receive(call, Operation::Ingest, TYPES, BYTES_MAX).await?;
        let now = self.products.records.now();
        let events = match many {
            true => self.parse_lines(&body, now)?,
            false => vec![PriceEvent::parse(&self.schema, &body, now).map_err(ServiceError::from)?],
        };
        let wrong = amounts::faults(&self.products.records, &events, many.then_some(&*body)).await;
        if !wrong.is_empty() {
            return Err(Problem::invalid(wrong));
        }
        if self.queue.takes_known_only() {
            let lines = if many { amounts::numbers(&body) } else { Vec::new() };
            self.check_known(&events, &lines).await?;
        }
        let accepted = events.len();
        self.queue.accept(events).await.map_err(refusal)?;
        Ok((StatusCode::ACCEPTED, axum::Json(json!({ "accepted": accepted }))).into_response())
    }

    /// Whether all products of events are there, by the store: a tier may not know yet of one that was made
    /// just now.
    async fn check_known(&self, events: &[PriceEvent], lines: &[usize]) -> Result<(), Problem> {
        let mut keys: Vec<Key> = events.iter().filter_map(|event| event.key().ok()).collect();
        keys.sort();
        keys.dedup();
        let mut unknown = HashSet::new();
        for part in keys.chunks(KEYS_MAX) {
            let found = self
                .products
                .records
                .look_up_all(part)
                .await
                .map_err(|error| self.products.problem(error))?;
            let missing = part.iter().zip(found).filter(|(_, found)| !matches!(found, Lookup::Found(_)));
            unknown.extend(missing.map(|(key, _)| key.to_string()));
        }
        let of_unknown = events.iter().enumerate().filter(|(_, event)| unknown.contains(&event.product_id));
        let fault = |(index, event): (usize, &PriceEvent)| {
            let field = lines
                .get(index)
                .map_or_else(|| "product_id".to_owned(), |line| format!("line {line}: product_id"));
            FieldFault::new(field, format!("there is no product {}: make it first", event.product_id))
        };
        let faults: Vec<FieldFault> = of_unknown.take(FAULTS_MAX).map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(Problem::unknown(faults)) }
    }

    /// The events of lines; none is taken where one has a fault.
    fn parse_lines(&self, body: &[u8], now: Timestamp) -> Result<Vec<PriceEvent>, Problem> {
        let (mut events, mut faults) = (Vec::new(), Vec::new());
        let lines = body.split(|byte| *byte == b'\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.trim_ascii().is_empty()) {
            match PriceEvent::parse(&self.schema, line, now) {
                Ok(event) => events.push(event),
                Err(BodyError::Malformed(message)) => {
                    faults.push(FieldFault::new(format!("line {}", index + 1), message));
                }
                Err(BodyError::Invalid(of_line)) => faults.extend(of_line.into_iter().map(|fault| {
                    FieldFault::new(format!("line {}: {}", index + 1, fault.field), fault.message)
                })),
            }
            if faults.len() >= FAULTS_MAX {
                break;
            }
            if events.len() > EVENTS_MAX {
                return Err(too_many(EVENTS_MAX as u64));
            }
        }
        match (faults.is_empty(), events.is_empty()) {
            (false, _) => Err(Problem::invalid(faults)),
            (true, true) => Err(Problem::field("body", "has no events")),
            (true, false) => Ok(events),
        }
    }
}

fn too_many(most: u64) -> Problem {
    let detail = format!("one request may bring at most {most} events: send them in several");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
}

fn refusal(error: NotAccepted) -> Problem {
    match error {
        NotAccepted::TooMany(most) => too_many(most),
        NotAccepted::Full(_) => Problem::overload("queue-full", error.to_string()),
        NotAccepted::Log(IntakeError::Full(why)) => {
            tracing::warn!(why, "events were not accepted: there is no room");
            Problem::insufficient_storage(&why)
        }
        NotAccepted::Log(error) => {
            tracing::warn!(%error, "events were not accepted");
            let detail =
                "the log of events cannot be reached, and the events may be applied or not: send them again";
            Problem::unavailable("log-unavailable", detail)
        }
    }
}
