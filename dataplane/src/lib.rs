//! The data plane of Flyweight: serves pools over REST and WebSocket from a multi-tier cache.
//!
//! Each module reads top to bottom: `http -> service -> engine / store -> model`; `app` alone knows every
//! part.

pub mod app;
pub mod args;
pub mod config;
pub mod gateway;
pub mod http;
pub mod problem;
pub mod security;
pub mod server;
pub mod service;
pub mod telemetry;
#[cfg(test)]
mod testing;
