//! The one table of entities: a file for each below this one, and its line here. Routes, resources, stores,
//! the description of the API and the gateway read it.

use serde::{Deserialize, Serialize};

use crate::{entity::Definition, schema::Schema};

macro_rules! entities {
    ($($(#[doc = $doc:literal])* $name:ident: $file:ident,)*) => {
        $(pub mod $file;)*

        /// The kind of entity that a pool serves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
        pub enum Entity {
            $($(#[doc = $doc])* $name,)*
        }

        impl Entity {
            /// Every row of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What is known of it.
            pub fn definition(self) -> &'static Definition {
                match self {
                    $(Self::$name => &$file::DEFINITION,)*
                }
            }
        }
    };
}

entities! {
    /// People and accounts, in SQL.
    User: user,
    /// Payments and their status, in SQL.
    Payment: payment,
    /// Orders and their items, in SQL.
    Order: order,
    /// The product catalogue, in the document store.
    Product: product,
    /// Templates of notifications, in the document store.
    NotificationTemplate: notification_template,
    /// Configuration values, in the document store.
    Configuration: configuration,
    /// A declared table or collection.
    Custom: custom,
}

impl Entity {
    /// Those whose fields are known without a pool.
    pub fn built_in() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|entity| entity.definition().schema.is_some())
    }
}

/// The schema of a built-in entity; none for `Custom`.
pub fn builtin(entity: Entity) -> Option<Schema> {
    entity.definition().schema.map(|schema| schema())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entity::Selection, json::parse_create};

    #[test]
    fn every_row_says_what_its_schema_says() {
        for (entity, schema) in Entity::built_in().filter_map(|entity| Some((entity, builtin(entity)?))) {
            let definition = entity.definition();
            assert!(schema.fields.iter().all(|field| !(field.read_only && field.required)), "{entity:?}");
            let example = parse_create(&schema, definition.example.as_bytes());
            assert!(example.is_ok(), "{entity:?}: {example:?}");
            for list in definition.lists {
                let fields: Vec<&str> = match &list.of {
                    Selection::Field { field, .. } => vec![field],
                    Selection::Search(params) => {
                        params.iter().flat_map(|param| param.fields).copied().collect()
                    }
                };
                for field in fields {
                    assert!(schema.index_of(field).is_some(), "{entity:?}: {} has no {field}", list.path);
                }
            }
        }
    }
}
