//! The product catalogue.

use crate::{
    entity::{Definition, Home, List, Match, SearchParam, Selection},
    counted, currency,
    schema::{Field, Kind, Schema, Shape},
    stock,
    value::Value,
};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/products",
    schema: Some(schema),
    home: Home::Mongodb,
    upserts: false,
    not_behind: Some("stock is held by guarded changes in the store"),
    lists: &[
        List {
            path: "/api/v1/products/category/{category}",
            id: "listProductsOfCategory",
            summary: "The products of a category",
            of: Selection::Field { field: "category", parameter: "category" },
        },
        List {
            path: "/api/v1/products/search",
            id: "searchProducts",
            summary: "Search by words",
            of: Selection::Search(&[
                SearchParam {
                    name: "q",
                    about: "Words, each in the name, description, category or brand, in capitals or not.",
                    fields: &["name", "description", "category", "brand"],
                    how: Match::Words,
                    max: 256,
                },
                SearchParam {
                    name: "category",
                    about: "The whole category.",
                    fields: &["category"],
                    how: Match::Whole,
                    max: 128,
                },
                SearchParam {
                    name: "brand",
                    about: "The whole brand.",
                    fields: &["brand"],
                    how: Match::Whole,
                    max: 128,
                },
            ]),
        },
    ],
    example: r#"{"id":"lamp","name":"Lamp","price":"19.90","category":"Lighting","stock":10}"#,
};

/// What a product looks like.
pub fn schema() -> Schema {
    Schema {
        rules: |schema, row| currency::faults(schema, row, "price"),
        on_write: counted::on_write,
        ..fields()
    }
}

fn fields() -> Schema {
    Schema::new(
        "product",
        "products",
        vec![
            Field::new("name", Kind::text(255)).required(),
            Field::new("description", Kind::text(64 << 10)),
            Field::new("price", Kind::money(0)).required(),
            Field::new("currency", Kind::currency()).default(Value::Text(currency::DEFAULT.into())),
            Field::new("category", Kind::text(128)).indexed(),
            Field::new("brand", Kind::text(128)),
            Field::new("stock", Kind::Int { min: 0, max: 1_000_000_000_000 }).default(Value::Int(0)),
            Field::new("attributes", Kind::json(Shape::Object)),
            // what orders hold of the stock, and since when the oldest of them does: see `stock`
            Field::new("holds", Kind::Json { max: stock::HOLDS_BYTES_MAX, shape: Shape::Object }).internal(),
            Field::new("held_since", Kind::Time).indexed().internal(),
            // who set its price and stock, and what was sold since: see `counted` and `price_event`
            Field::new(counted::PRICED_BY, Kind::text(64)).internal(),
            Field::new(counted::FIELD, Kind::json(Shape::Object)).internal(),
        ],
    )
}
