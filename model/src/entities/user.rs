//! People and accounts.

use crate::entity::{Definition, Home, List, Match, SearchParam, Selection};
use crate::schema::{Field, Form, Kind, Schema, Shape};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/users",
    schema: Some(schema),
    home: Home::Mysql,
    upserts: false,
    not_behind: Some("only the store can tell that no other user has the same email"),
    lists: &[List {
        path: "/api/v1/users/search",
        id: "searchUsers",
        summary: "Search",
        of: Selection::Search(&[
            SearchParam {
                name: "q",
                about: "Held by the name, the e-mail address or the user name.",
                fields: &["name", "email", "username"],
                how: Match::Part,
                max: 256,
            },
            SearchParam {
                name: "email",
                about: "The whole e-mail address.",
                fields: &["email"],
                how: Match::Same,
                max: 254,
            },
            SearchParam {
                name: "name",
                about: "Held by the name.",
                fields: &["name"],
                how: Match::Part,
                max: 256,
            },
        ]),
    }],
    example: r#"{"id":"ann","email":"ann@example.com","name":"Ann"}"#,
};

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
