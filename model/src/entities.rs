//! The one list of built-in entities with their schemas.

use crate::{
    configuration, entity::Entity, notification_template, order, payment, product, schema::Schema, user,
};

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
}
