//! The data plane of Flyweight: serves pools over REST and WebSocket from a multi-tier cache.
//!
//! Each module reads top to bottom: `http -> service -> cache / store -> domain`; `app` alone knows every part.

pub mod app;
pub mod args;
pub mod breaker;
pub mod budget;
pub mod cache;
pub mod config;
pub mod domain;
pub mod durability;
pub mod events;
pub mod failpoint;
pub mod flyweight;
pub mod gateway;
pub mod http;
pub mod owner;
pub mod passage;
pub mod routes;
pub mod security;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod supervisor;
pub mod telemetry;
