//! People and accounts.

use super::schema::{Field, Form, Kind, Schema, Shape};

/// What a user looks like.
pub fn schema() -> Schema {
    Schema::new(
        "user",
        "users",
        vec![
            Field::new("email", Kind::Text { max: 254, form: Form::Email }).required().unique(),
            Field::new("name", Kind::text(255)).required(),
            Field::new("username", Kind::text(64)).unique(),
            Field::new("profile", Kind::json(Shape::Object)),
            Field::new("preferences", Kind::json(Shape::Object)),
            // addresses are unique without case; nothing where rows of before differ by case alone
            Field::new("email_folded", Kind::text(768)).folds("email"),
        ],
    )
}
