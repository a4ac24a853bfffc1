//! Templates of notifications.

use super::schema::{Field, Kind, Schema, Shape};

/// What a template looks like.
pub fn schema() -> Schema {
    Schema::new(
        "notification_template",
        "notification_templates",
        vec![
            Field::new("template", Kind::text(128)).required().indexed(),
            Field::new("subject", Kind::text(1_000)),
            Field::new("body", Kind::text(64 << 10)).required(),
            Field::new("channels", Kind::json(Shape::Strings)),
            Field::new("metadata", Kind::json(Shape::Object)),
        ],
    )
}
