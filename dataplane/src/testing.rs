//! What the tests of several modules share, and those of `events` have too.

#[path = "../../events/src/testing.rs"]
pub mod events;
