//! Products for tests.

use rust_decimal::Decimal;

use model::{
    entities::product,
    key::{Key, Version},
    record::Record,
    schema::Schema,
    value::{Json, Row, Timestamp, Value},
};

/// A product whose parts a test may change.
pub struct Product {
    pub key: Key,
    pub version: u64,
    pub name: String,
    pub currency: String,
    pub category: String,
    pub brand: String,
    pub price: Decimal,
    pub stock: i64,
}

pub fn schema() -> Schema {
    product::schema()
}

impl Product {
    /// The n-th product, with one of so many states that many products can have.
    pub fn of_state(n: u64, state: u64) -> Self {
        Self {
            key: format!("product-{n}").parse().unwrap(),
            version: 1 + n % 3,
            name: format!("Wireless headphones model {state}"),
            currency: "EUR".to_owned(),
            category: format!("category-{}", state % 40),
            brand: format!("brand-{}", state % 100),
            price: Decimal::new(1_000 + (n as i64 * 7_919) % 90_000, 2),
            stock: (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64 % 500,
        }
    }

    /// A product that has nothing in common with others.
    pub fn unique(n: u64) -> Self {
        Self {
            currency: format!("¤{n}"),
            category: format!("c{n}"),
            brand: format!("b{n}"),
            ..Self::of_state(n, n)
        }
    }

    pub fn record(&self) -> Record {
        let description = format!("{}: closed, over the ear, with a case. ", self.name).repeat(8);
        let attributes = format!(r#"{{"colour":"black","model":"{}","driver":"40 mm"}}"#, self.name);
        let mut values = vec![
            Value::Text(self.name.clone()),
            Value::Text(description),
            Value::Decimal(self.price),
            Value::Text(self.currency.clone()),
            Value::Text(self.category.clone()),
            Value::Text(self.brand.clone()),
            Value::Int(self.stock),
            Value::Json(Json::parse(&attributes).unwrap()),
        ];
        // Nothing in the fields that no client sees.
        values.resize(schema().fields.len(), Value::Null);
        Record {
            key: self.key.clone(),
            version: Version(self.version),
            created_at: Timestamp(1_760_000_000_000),
            updated_at: Timestamp(1_760_000_000_000 + self.stock * 60_000),
            values: Row(values),
        }
    }
}
