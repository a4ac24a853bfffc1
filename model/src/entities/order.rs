//! Orders: their items and the total that the server computes.

use rust_decimal::Decimal;
use serde_json::Value as Tree;

use crate::{
    entity::{Definition, Home, List, Selection},
    currency,
    fault::FieldFault,
    schema::{Field, Kind, Schema, Shape},
    strict::{decimal_of, number_fault},
    value::{Json, Row, Value, write_json_text},
};

/// The row of the table.
pub static DEFINITION: Definition = Definition {
    path: "/api/v1/orders",
    schema: Some(schema),
    home: Home::Mysql,
    upserts: false,
    not_behind: Some("an order and what follows from it are one transaction of the store"),
    lists: &[List {
        path: "/api/v1/orders/user/{user_id}",
        id: "listOrdersOfUser",
        summary: "A user's orders",
        of: Selection::Field { field: "user_id", parameter: "user_id" },
    }],
    example: r#"{"id":"order-1","user_id":"ann","items":[{"product_id":"lamp","quantity":1}],"shipping_address":{"city":"Bern"}}"#,
};

/// Every status of an order.
pub const STATUSES: [&str; 6] = ["pending", "processing", "paid", "completed", "failed", "cancelled"];
/// The most items of an order.
pub const ITEMS_MAX: usize = 500;
/// The most pieces of one item.
pub const QUANTITY_MAX: i64 = 1_000_000;

/// One item of an order. Its JSON is `{product_id, quantity, price?}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The key of the product.
    pub product_id: String,
    /// How many pieces, from 1.
    pub quantity: i64,
    /// The price of one piece; none until the catalogue's is known.
    pub price: Option<Decimal>,
}

/// What an order looks like. Its total is the sum of its items, its status moves by the pipeline.
pub fn schema() -> Schema {
    Schema {
        rules,
        derive,
        ..Schema::new(
            "order",
            "orders",
            vec![
                Field::new("user_id", Kind::key()).required().indexed(),
                Field::new("items", Kind::json(Shape::List)).required(),
                Field::new("total", Kind::money(0)).read_only(),
                // that of its products, so it follows the items
                Field::new("currency", Kind::currency()).follows("items"),
                Field::new("status", Kind::Choice(&STATUSES))
                    .indexed()
                    .read_only()
                    .default(Value::Text("pending".into())),
                Field::new("shipping_address", Kind::json(Shape::Object)),
                Field::new("metadata", Kind::json(Shape::Object)),
                // see `progress`
                Field::new("progress", Kind::json(Shape::Object)).internal(),
                Field::new("due_at", Kind::Time).indexed().internal(),
            ],
        )
    }
}

/// The items of an order's row.
///
/// # Errors
/// Every fault of every item, each with its path.
pub fn items(schema: &Schema, row: &Row) -> Result<Vec<Item>, Vec<FieldFault>> {
    let Some(Value::Json(json)) = schema.index_of("items").and_then(|index| row.0.get(index)) else {
        return Err(vec![FieldFault::new("items", "is required")]);
    };
    let Tree::Array(list) = json.to_value() else {
        return Err(vec![FieldFault::new("items", "must be a list")]);
    };
    if list.is_empty() || list.len() > ITEMS_MAX {
        return Err(vec![FieldFault::new("items", format!("must have 1 to {ITEMS_MAX} items"))]);
    }
    let mut faults = Vec::new();
    let items = list.iter().enumerate().filter_map(|(index, tree)| item(index, tree, &mut faults)).collect();
    if faults.is_empty() { Ok(items) } else { Err(faults) }
}

/// Writes items back into an order's row.
pub fn set_items(schema: &Schema, row: &mut Row, items: &[Item]) {
    let mut text = String::from("[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if let Some(price) = item.price {
            text.push_str(&format!("{{\"price\":{},", price.normalize()));
        } else {
            text.push('{');
        }
        text.push_str("\"product_id\":");
        write_json_text(&item.product_id, &mut text);
        text.push_str(&format!(",\"quantity\":{}}}", item.quantity));
    }
    text.push(']');
    let slot = schema.index_of("items").and_then(|index| row.0.get_mut(index));
    if let (Some(slot), Ok(json)) = (slot, Json::parse(&text)) {
        *slot = Value::Json(json);
    }
}

fn rules(schema: &Schema, row: &Row) -> Vec<FieldFault> {
    match items(schema, row) {
        Err(faults) => faults,
        Ok(items) if total(&items) > Decimal::new(999_999_999_999_999, Kind::MONEY_SCALE) => {
            vec![FieldFault::new("items", "the total has more than 15 digits")]
        }
        Ok(items) => {
            schema.get(row, "currency").as_text().map_or_else(Vec::new, |code| currency_faults(code, &items))
        }
    }
}

/// What is wrong with an order's currency, and with the prices in it.
pub fn currency_faults(code: &str, items: &[Item]) -> Vec<FieldFault> {
    if let Err(message) = currency::digits(code) {
        return vec![FieldFault::new("currency", message)];
    }
    let fault = |(index, item): (usize, &Item)| {
        let message = currency::amount_fault(code, item.price?)?;
        Some(FieldFault::new(format!("items[{index}].price"), message))
    };
    items.iter().enumerate().filter_map(fault).collect()
}

/// The items in one form, however the client wrote their prices, and the total.
fn derive(schema: &Schema, row: &mut Row) {
    let Ok(items) = items(schema, row) else { return };
    set_items(schema, row, &items);
    if let Some(slot) = schema.index_of("total").and_then(|index| row.0.get_mut(index)) {
        *slot = Value::Decimal(total(&items));
    }
}

/// 500 items of at most 10^6 pieces and 10^11 each stay far below the 28 digits of a decimal.
fn total(items: &[Item]) -> Decimal {
    let sum: Decimal = items.iter().filter_map(|item| Some(item.price? * Decimal::from(item.quantity))).sum();
    sum.normalize()
}

fn item(index: usize, tree: &Tree, faults: &mut Vec<FieldFault>) -> Option<Item> {
    let at = |name: &str| format!("items[{index}].{name}");
    let Tree::Object(object) = tree else {
        faults.push(FieldFault::new(format!("items[{index}]"), "must be an object"));
        return None;
    };
    let before = faults.len();
    for name in object.keys().filter(|name| !["product_id", "quantity", "price"].contains(&name.as_str())) {
        faults.push(FieldFault::new(at(name), "is not a field of an item"));
    }
    let product_id = match object.get("product_id") {
        Some(Tree::String(text)) => match crate::key::Key::plain_fault(text) {
            None => text.clone(),
            Some(message) => {
                faults.push(FieldFault::new(at("product_id"), message));
                String::new()
            }
        },
        Some(_) => {
            faults.push(FieldFault::new(at("product_id"), "must be text"));
            String::new()
        }
        None => {
            faults.push(FieldFault::new(at("product_id"), "is required"));
            String::new()
        }
    };
    let quantity = object.get("quantity").and_then(Tree::as_i64).unwrap_or_default();
    if !(1..=QUANTITY_MAX).contains(&quantity) {
        faults.push(FieldFault::new(
            at("quantity"),
            format!("must be a whole number from 1 to {QUANTITY_MAX}"),
        ));
    }
    let price = match object.get("price") {
        None | Some(Tree::Null) => None,
        Some(tree) => match price(tree) {
            Ok(price) => Some(price),
            Err(message) => {
                faults.push(FieldFault::new(at("price"), message));
                None
            }
        },
    };
    (faults.len() == before).then_some(Item { product_id, quantity, price })
}

fn price(tree: &Tree) -> Result<Decimal, String> {
    let text = match tree {
        Tree::String(text) => text.clone(),
        Tree::Number(number) => number.to_string(),
        _ => return Err("must be a decimal number".to_owned()),
    };
    let Kind::Decimal { min, max, scale } = Kind::money(0) else { return Err(String::new()) };
    let value = decimal_of(&text)?;
    number_fault(value, min, max, scale).map_or(Ok(value), Err)
}
