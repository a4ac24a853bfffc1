//! What may be read and written, and how: the policy of each pool. No transport, no SQL.

pub mod cursor;
pub mod error;
pub mod factory;
pub mod list;
pub mod orders;
pub mod payments;
pub mod precondition;
pub mod records;
pub mod staleness;
pub mod warm;
