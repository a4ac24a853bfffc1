//! The schema of a pool: a built-in one with the pool's wishes, or one made from what the pool declares of a
//! table or collection.

use model::{
    entities,
    schema::{Field, Form, Kind, Schema, Shape},
};
use rust_decimal::Decimal;

use crate::{
    pool::{FieldSpec, FieldType, JsonForm, Role},
    settings::PoolSettings,
};

/// The schema of a pool.
pub fn of_pool(pool: &PoolSettings) -> Schema {
    match entities::builtin(pool.entity) {
        Some(schema) => with_wishes(schema, &pool.fields),
        None => declared(&pool.name, &pool.source.key, pool.source.version.as_deref(), &pool.fields),
    }
}

/// The schema of a declared table or collection. The key and the version are no fields of it, whether or not
/// the pool lists them.
pub fn declared(pool: &str, key: &str, version: Option<&str>, specs: &[FieldSpec]) -> Schema {
    let reserved = |name: &str| {
        name == key || Some(name) == version || ["version", "created_at", "updated_at"].contains(&name)
    };
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
        FieldType::Decimal => {
            Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: Decimal::MAX_SCALE }
        }
        FieldType::Boolean => Kind::Bool,
        FieldType::Json => Kind::Json { max: 1 << 20, shape: Shape::Any },
        FieldType::Timestamp => Kind::Time,
    }
}

/// The schema with the roles and the encryption that a pool asks for. Fields that it does not have are
/// ignored: `resolve` reports them.
fn with_wishes(mut schema: Schema, specs: &[FieldSpec]) -> Schema {
    for field in &mut schema.fields {
        let Some(spec) = specs.iter().find(|spec| spec.name == field.name) else { continue };
        field.role = spec.role;
        field.encrypted = spec.encrypt;
    }
    // Sealed text differs for equal values: such a field cannot be shared, found or unique.
    for field in schema.fields.iter_mut().filter(|field| field.encrypted) {
        field.role = Role::Extrinsic;
        field.indexed = false;
    }
    schema
}

#[cfg(test)]
mod tests {
    use model::entities::payment;

    use super::*;

    #[test]
    fn a_pool_changes_roles_and_encryption() {
        let spec = |name: &str, encrypt| FieldSpec {
            name: name.to_owned(),
            kind: None,
            role: Role::Intrinsic,
            encrypt,
            required: false,
            json: None,
        };
        let schema = with_wishes(payment::schema(), &[spec("method", false), spec("order_id", true)]);
        let field = |name: &str| &schema.fields[schema.index_of(name).unwrap()];
        assert_eq!((field("method").role, field("method").encrypted), (Role::Intrinsic, false));
        assert_eq!((field("order_id").role, field("order_id").encrypted), (Role::Extrinsic, true));
        assert!(!field("order_id").indexed);
    }
}
