//! Entities as data: schemas, records, changes, queries and events. No store, no transport, no runtime.

pub mod audit;
pub mod batch;
pub mod change;
pub mod configuration;
pub mod custom;
pub mod dead_letter;
pub mod entities;
pub mod event;
pub mod field;
pub mod json;
pub mod notification_template;
pub mod order;
pub mod payment;
pub mod price_event;
pub mod product;
pub mod progress;
pub mod query;
pub mod record;
pub mod schema;
pub mod seal;
pub mod specification;
pub mod stock;
pub mod strict;
pub mod template;
pub mod user;
pub mod value;
