//! The one list of built-in entities, and the schema of a pool: a built-in one with the pool's wishes, or a declared one.

use crds::{
    pool::{Entity, FieldSpec, Role},
    settings::PoolSettings,
};

use super::{configuration, custom, notification_template, order, payment, product, schema::Schema, user};

/// The schema of a built-in entity; none for `Custom`.
pub fn builtin(entity: Entity) -> Option<Schema> {
    Some(match entity {
        Entity::User => user::schema(),
        Entity::Payment => payment::schema(),
        Entity::Order => order::schema(),
        Entity::Product => product::schema(),
        Entity::NotificationTemplate => notification_template::schema(),
        Entity::Configuration => configuration::schema(),
        Entity::Custom => return None,
    })
}

/// The schema of a pool.
pub fn of_pool(pool: &PoolSettings) -> Schema {
    match builtin(pool.entity) {
        Some(schema) => with_wishes(schema, &pool.fields),
        None => custom::schema(&pool.name, &pool.source.key, pool.source.version.as_deref(), &pool.fields),
    }
}

/// The schema with the roles and the encryption that a pool asks for. Fields that it does not have are ignored: `resolve` reports them.
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
    use super::*;

    const BUILTINS: [Entity; 6] = [
        Entity::User,
        Entity::Payment,
        Entity::Order,
        Entity::Product,
        Entity::NotificationTemplate,
        Entity::Configuration,
    ];

    #[test]
    fn schemas_have_the_fields_that_pools_may_speak_of() {
        for entity in BUILTINS {
            let (schema, table) = (builtin(entity).unwrap(), entity.builtin().unwrap());
            let shown = schema.fields.iter().filter(|field| !field.internal);
            let names: Vec<&str> = shown.map(|field| field.name.as_str()).collect();
            assert_eq!(names, table.fields, "{entity:?}");
            assert_eq!(schema.collection, table.collection);
            assert!(schema.fields.iter().all(|field| !(field.read_only && field.required)), "{entity:?}");
        }
    }

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
