//! Entities as data: schemas, records, changes, queries and events. No store, no transport, no runtime.

pub mod change;
pub mod event;
pub mod query;
pub mod record;
pub mod schema;
pub mod seal;
pub mod value;
