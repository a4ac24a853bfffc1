//! What Flyweight speaks of, as data: entities with their schemas, records, changes, queries, events, and the
//! table of routes.
//!
//! Pure: no store, no transport, no runtime. Whatever serves an entity reads its schema here and knows none
//! by name.

pub mod actor;
pub mod audit;
pub mod batch;
pub mod breaker;
pub mod budget;
pub mod change;
pub mod clock;
pub mod counted;
pub mod currency;
pub mod dead_letter;
pub mod durability;
pub mod entities;
pub mod entity;
pub mod event;
pub mod failpoint;
pub mod fault;
pub mod field;
pub mod holds;
pub mod ids;
pub mod json;
pub mod key;
pub mod log;
pub mod ownership;
pub mod passage;
pub mod price_event;
pub mod progress;
pub mod query;
pub mod record;
pub mod routes;
pub mod schema;
pub mod seal;
pub mod specification;
pub mod stock;
pub mod strict;
pub mod template;
pub mod value;
pub mod wide;
