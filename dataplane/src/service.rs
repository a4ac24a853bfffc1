//! What may be read and written, and how: the policy of each pool. No transport, no SQL.

pub mod audit;
pub mod batch;
pub mod cursor;
pub mod dead_letters;
pub mod dependency;
pub mod error;
pub mod factory;
pub mod failure;
pub mod ingest;
pub mod list;
pub mod notify;
pub mod oddities;
pub mod orders;
pub mod pages;
pub mod payment;
pub mod payments;
pub mod pipeline;
pub mod precondition;
pub mod records;
pub mod rendering;
pub mod staleness;
pub mod warm;
pub mod write_behind;
