//! Coupons: what a code takes off a price.

use crate::{
    entity::{Definition, Home, List, Match, SearchParam, Selection},
    schema::{Field, Kind, Schema},
};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/coupons",
    schema: Some(schema),
    home: Home::Mysql,
    upserts: false,
    not_behind: None,
    lists: &[
        List {
            path: "/api/v1/coupons/search",
            id: "searchCoupons",
            summary: "Search",
            of: Selection::Search(&[SearchParam {
                name: "q",
                about: "Held by the name.",
                fields: &["name"],
                how: Match::Part,
                max: 128,
            }]),
        },
        List {
            path: "/api/v1/coupons/campaign/{campaign}",
            id: "listCouponsOfCampaign",
            summary: "The coupons of a campaign",
            of: Selection::Field { field: "campaign", parameter: "campaign" },
        },
    ],
    example: r#"{"id":"spring10","name":"Spring","percent":10,"campaign":"spring"}"#,
};

/// What a coupon looks like.
pub fn schema() -> Schema {
    Schema::new(
        "coupon",
        "coupons",
        vec![
            Field::new("name", Kind::text(128)).required(),
            Field::new("percent", Kind::Int { min: 1, max: 100 }).required(),
            Field::new("campaign", Kind::text(64)).indexed(),
        ],
    )
}
