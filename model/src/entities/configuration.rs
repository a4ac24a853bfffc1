//! Configuration values: any JSON under a key.

use crate::entity::{Definition, Home};
use crate::schema::{Field, Kind, Schema, Shape};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/configurations",
    schema: Some(schema),
    home: Home::Mongodb,
    upserts: true,
    not_behind: None,
    lists: &[],
    example: r#"{"id":"greeting","value":"Hello","description":"What the shop says first."}"#,
};

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
