//! Configuration values: any JSON under a key.

use super::schema::{Field, Kind, Schema, Shape};

/// What a configuration value looks like.
pub fn schema() -> Schema {
    Schema::new(
        "configuration",
        "configurations",
        vec![
            Field::new("value", Kind::Json { max: 512 << 10, shape: Shape::Any }).required(),
            Field::new("description", Kind::text(4_000)),
            Field::new("category", Kind::text(128)).indexed(),
            Field::new("metadata", Kind::json(Shape::Object)),
        ],
    )
}
