//! Templates of notifications.

use crate::{
    entity::{Definition, Home},
    fault::FieldFault,
    schema::{Field, Kind, Schema, Shape},
    template::fault_of,
    value::{Row, Value},
};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/notifications/templates",
    schema: Some(schema),
    home: Home::Mongodb,
    upserts: false,
    not_behind: None,
    lists: &[],
    example: r#"{"id":"welcome","template":"welcome","subject":"Hello","body":"Hello {{name}}","channels":["email"]}"#,
};

/// What a template looks like.
pub fn schema() -> Schema {
    Schema {
        rules,
        ..Schema::new(
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
}

/// A text that cannot be filled in is refused when it is written, not when it is sent.
fn rules(schema: &Schema, row: &Row) -> Vec<FieldFault> {
    let texts = schema
        .fields
        .iter()
        .zip(&row.0)
        .filter(|(field, _)| ["subject", "body"].contains(&field.name.as_str()));
    let fault =
        |(field, value): (&Field, &Value)| Some(FieldFault::new(&field.name, fault_of(value.as_text()?)?));
    texts.filter_map(fault).collect()
}
