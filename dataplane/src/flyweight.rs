//! Records as flyweights: what is shared is stored once, what is a record's own is small, and the reply is spliced from both.

pub mod codec;
pub mod packed;
