//! The admin port: probes, metrics, and what the operator reads.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use prometheus::TextEncoder;

use super::figures::Figures;
use crate::{
    http::health::{self, Health},
    server::apart::Pulse,
};

/// The routes of the admin port.
pub fn routes(health: Arc<Health>, figures: Arc<Figures>, pulse: Pulse) -> Router {
    Router::new()
        .route("/livez", get(live).with_state(pulse))
        .route("/readyz", get(health::ready).with_state(health))
        .route("/metrics", get(metrics).with_state(figures.clone()))
        .route("/status", get(status).with_state(figures))
}

/// `GET /livez`: the threads that serve turn.
async fn live(State(pulse): State<Pulse>) -> Response {
    pulse.answer()
}

async fn metrics(State(figures): State<Arc<Figures>>) -> Response {
    match TextEncoder::new().encode_to_string(&figures.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(figures): State<Arc<Figures>>) -> Response {
    Json(figures.status()).into_response()
}
