//! Who calls, what the caller may do and how often, and the encryption of fields.

pub mod caller;
pub mod issuers;
pub mod jwt;
pub mod limits;
pub mod policy;
pub mod tls;
pub mod token;
