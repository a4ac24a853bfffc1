//! The REST API: routes, handlers, errors. Knows services and domain, never a store.

pub mod access_log;
pub mod audit;
pub mod batch;
pub mod browsers;
pub mod compress;
pub mod conditions;
pub mod credentials;
pub mod direct;
pub mod extract;
pub mod factory;
pub mod gate;
pub mod guard;
pub mod health;
pub mod ingest;
pub mod listing;
pub mod live;
pub mod metrics;
pub mod openapi;
pub mod pages;
pub mod params;
pub mod pipeline;
pub mod pool;
mod ratelimit;
pub mod refusals;
pub mod repositories;
pub mod request_ids;
pub mod resource;
pub mod router;
pub mod schemas;
pub mod status;
pub mod templates;
pub mod tickets;

#[cfg(test)]
mod tests;
