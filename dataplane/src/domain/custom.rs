//! Declared entities: a schema made from what a pool says of a table or collection.

use crds::pool::{FieldSpec, FieldType, JsonForm};
use rust_decimal::Decimal;

use super::schema::{Field, Form, Kind, Schema, Shape};

/// The schema of a declared table or collection. The key and the version are no fields of it, whether or not the pool lists them.
pub fn schema(pool: &str, key: &str, version: Option<&str>, specs: &[FieldSpec]) -> Schema {
    let reserved =
        |name: &str| name == key || Some(name) == version || ["version", "created_at", "updated_at"].contains(&name);
    let fields = specs.iter().filter(|spec| !reserved(&spec.name)).map(field).collect();
    Schema { key: key.to_owned(), any_key: true, ..Schema::new(pool, pool, fields) }
}

fn field(spec: &FieldSpec) -> Field {
    let FieldSpec { name, kind, role, encrypt, required, json } = spec;
    let json = match kind {
        // a double holds 15 of its digits
        Some(FieldType::Decimal) => JsonForm::String,
        _ => json.unwrap_or_default(),
    };
    Field {
        role: *role,
        encrypted: *encrypt,
        required: *required,
        json,
        ..Field::new(name, kind_of(kind.unwrap_or(FieldType::String)))
    }
}

/// The kind of a declared type.
fn kind_of(declared: FieldType) -> Kind {
    match declared {
        FieldType::String => Kind::Text { max: 65_535, form: Form::Any },
        FieldType::Integer => Kind::Int { min: i64::MIN, max: i64::MAX },
        FieldType::Decimal => Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: Decimal::MAX_SCALE },
        FieldType::Boolean => Kind::Bool,
        FieldType::Json => Kind::Json { max: 1 << 20, shape: Shape::Any },
        FieldType::Timestamp => Kind::Time,
    }
}
