//! Dead letters: what could not be done, kept until somebody replays or drops it.

use super::schema::{Field, Kind, Schema, Shape};
use crate::entity::{Match, SearchParam};

/// What dead letters can be found by.
pub const SEARCH: &[SearchParam] = &[
    SearchParam { name: "stage", about: "Of one stage.", fields: &["stage"], how: Match::Whole, max: 64 },
    SearchParam {
        name: "subject",
        about: "Of one record.",
        fields: &["subject"],
        how: Match::Whole,
        max: 128,
    },
    SearchParam {
        name: "class",
        about: "Of one kind of fault.",
        fields: &["class"],
        how: Match::Whole,
        max: 64,
    },
    SearchParam { name: "q", about: "Held by the error.", fields: &["error"], how: Match::Part, max: 256 },
];

/// Why something could not be done, and what follows from it.
pub const CLASSES: [&str; 4] = ["validation", "not_retryable", "retryable", "system"];
/// What became of a letter that was done again, and of one that was given up.
pub const REPLAYED: &str = "replayed";
/// See [`REPLAYED`].
pub const DROPPED: &str = "dropped";
/// Both.
pub const OUTCOMES: [&str; 2] = [REPLAYED, DROPPED];
/// The most bytes of what is kept of a message.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What a dead letter looks like. The server alone writes them.
pub fn schema() -> Schema {
    Schema::new(
        "dead_letter",
        "dead_letters",
        vec![
            Field::new("stage", Kind::text(64)).indexed().read_only(),
            Field::new("subject", Kind::text(128)).indexed().read_only(),
            Field::new("class", Kind::Choice(&CLASSES)).read_only(),
            Field::new("error", Kind::text(2_000)).read_only(),
            Field::new("attempts", Kind::Int { min: 0, max: i64::MAX }).read_only(),
            Field::new("trace", Kind::text(64)).read_only(),
            Field::new("payload", Kind::Json { max: PAYLOAD_BYTES_MAX, shape: Shape::Any }).read_only(),
            // its last state before it goes: what the audit keeps
            Field::new("outcome", Kind::Choice(&OUTCOMES)).read_only(),
        ],
    )
}
