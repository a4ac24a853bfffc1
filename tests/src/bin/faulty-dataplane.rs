//! A data plane as a bad release would be: it migrates nothing, starts, says that it is ready, and fails
//! every other request.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Json, Router, http::StatusCode, routing::get};
use serde_json::json;
use tokio::net::TcpListener;

const API_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("migrate") {
        return Ok(());
    }
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let answer = async move || match count.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let status = async move || {
        let total = asked.load(Ordering::Relaxed);
        Json(json!({ "ready": true, "requests": { "total": total, "errors": total / 2, "seconds": 0.0 } }))
    };
    let probes = || Router::new().route("/livez", get(async || "ok")).route("/readyz", get(async || "ok"));
    let admin = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ADMIN_PORT)).await?;
    let api = TcpListener::bind((Ipv4Addr::UNSPECIFIED, API_PORT)).await?;
    tokio::spawn(async move { axum::serve(admin, probes().route("/status", get(status))).await });
    axum::serve(api, probes().fallback(answer)).await
}
