//! The built-in entities: where their records live, and which fields a pool may say something about.

use serde::{Deserialize, Serialize};

/// The kind of entity that a pool serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum Entity {
    /// People and accounts, in SQL.
    User,
    /// Payments and their status, in SQL.
    Payment,
    /// Orders and their items, in SQL.
    Order,
    /// The product catalogue, in the document store.
    Product,
    /// Templates of notifications, in the document store.
    NotificationTemplate,
    /// Configuration values, in the document store.
    Configuration,
    /// A declared table or collection.
    Custom,
}

/// A built-in entity, as far as a pool can say something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// The table or collection, where the pool names none.
    pub collection: &'static str,
    /// The kind of store, where the pool names none.
    pub home: Home,
    /// The fields that a pool may give a role; `id`, `version` and the times are not among them.
    pub fields: &'static [&'static str],
}

/// The kind of store that holds an entity unless its pool says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The first MySQL backend of the service.
    Mysql,
    /// The first MongoDB backend of the service.
    Mongodb,
}

/// The field that identifies a record of a built-in entity.
pub const KEY: &str = "id";
/// The field that holds the version of a record of a built-in entity, and of any record in MongoDB.
pub const VERSION: &str = "version";
/// The fields that every record has, which no pool declares.
pub const RESERVED: [&str; 4] = [KEY, VERSION, "created_at", "updated_at"];

const USER: Builtin = Builtin {
    collection: "users",
    home: Home::Mysql,
    fields: &["email", "name", "username", "profile", "preferences"],
};
const PAYMENT: Builtin = Builtin {
    collection: "payments",
    home: Home::Mysql,
    fields: &[
        "user_id",
        "order_id",
        "amount",
        "currency",
        "gateway",
        "method",
        "status",
        "transaction_id",
        "metadata",
    ],
};
const ORDER: Builtin = Builtin {
    collection: "orders",
    home: Home::Mysql,
    fields: &["user_id", "items", "total", "currency", "status", "shipping_address", "metadata"],
};
const PRODUCT: Builtin = Builtin {
    collection: "products",
    home: Home::Mongodb,
    fields: &["name", "description", "price", "currency", "category", "brand", "stock", "attributes"],
};
const NOTIFICATION_TEMPLATE: Builtin = Builtin {
    collection: "notification_templates",
    home: Home::Mongodb,
    fields: &["template", "subject", "body", "channels", "metadata"],
};
const CONFIGURATION: Builtin = Builtin {
    collection: "configurations",
    home: Home::Mongodb,
    fields: &["value", "description", "category", "metadata"],
};

impl Entity {
    /// What is known of a built-in entity; nothing for `Custom`, which declares itself.
    pub fn builtin(self) -> Option<&'static Builtin> {
        match self {
            Self::User => Some(&USER),
            Self::Payment => Some(&PAYMENT),
            Self::Order => Some(&ORDER),
            Self::Product => Some(&PRODUCT),
            Self::NotificationTemplate => Some(&NOTIFICATION_TEMPLATE),
            Self::Configuration => Some(&CONFIGURATION),
            Self::Custom => None,
        }
    }
}
