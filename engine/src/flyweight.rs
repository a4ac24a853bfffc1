//! Records as flyweights: what is shared is stored once, what is a record's own is small, and the reply is
//! spliced from both.

pub mod codec;
pub mod interner;
pub mod json;
pub mod packed;
pub mod roles;
#[cfg(test)]
pub(crate) mod sample;
pub mod shape;
pub mod tags;
