//! `FlyweightPool`: which entities are served, from where, and how their state is shared.

pub use model::{
    entities::Entity,
    schema::{JsonForm, Role},
};
use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Span};

/// What a pool serves and from where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(kube::CustomResource, schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "flyweight.dev",
        version = "v1alpha1",
        kind = "FlyweightPool",
        plural = "flyweightpools",
        shortname = "fwp",
        category = "flyweight",
        namespaced,
        derive = "PartialEq",
        status = "crate::status::PoolStatus",
        doc = "Which entities are served, from where, and how their state is shared.",
        printcolumn(name = "Entity", type_ = "string", json_path = ".spec.entity"),
        printcolumn(
            name = "Ready",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].status"
        ),
        printcolumn(
            name = "Reason",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].reason"
        ),
        printcolumn(name = "Entities", type_ = "integer", json_path = ".status.entities"),
        printcolumn(name = "Distinct", type_ = "integer", json_path = ".status.distinct"),
        printcolumn(name = "Saved", type_ = "string", json_path = ".status.bytesSaved"),
        printcolumn(name = "Hit ratio", type_ = "string", json_path = ".status.hitRatio"),
        printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlog"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "self.entity == oldSelf.entity", "message": "entity is fixed: create another pool for another entity", "fieldPath": ".entity" },
        { "rule": "self.entity != 'Custom' || (has(self.source) && has(self.fields) && size(self.fields) > 0)", "message": "a Custom pool declares its source and its fields" },
        { "rule": "self.entity != 'Custom' || !has(self.source) || !has(self.source.mysql) || (has(self.source.mysql.table) && has(self.source.mysql.key))", "message": "a Custom pool names its table and the column that identifies a row", "fieldPath": ".source" },
        { "rule": "self.entity != 'Custom' || !has(self.source) || !has(self.source.mongodb) || has(self.source.mongodb.collection)", "message": "a Custom pool names its collection", "fieldPath": ".source" },
        { "rule": "self.entity != 'Custom' || !has(self.fields) || self.fields.all(f, has(f.type))", "message": "every field of a Custom pool has a type", "fieldPath": ".fields" },
    ]))
)]
pub struct PoolSpec {
    /// The kind of entity. Custom serves any declared table or collection. Fixed.
    pub entity: Entity,
    /// The table or collection that holds the records. Built-in entities default to the first backend of
    /// their kind. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How single fields are treated. A Custom pool declares all its fields here. Rolling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub fields: Vec<FieldSpec>,
    /// The cache tiers that a read asks, in order; none means that every read goes to the store. Rolling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 4)))]
    pub tier_refs: Vec<Ref>,
    /// The most entities that this pool keeps in memory tiers. Hot.
    #[serde(default = "default_capacity")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000_000)))]
    pub capacity: u64,
    /// When entries that nobody asks for are dropped. Hot.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// What is loaded before a pod is ready. Hot (it acts at the next start).
    #[serde(default)]
    pub warm_up: WarmUp,
    /// Bounds on single records. Hot.
    #[serde(default)]
    pub limits: PoolLimits,
    /// Which roles may read and write. Hot.
    #[serde(default)]
    pub access: Access,
}

/// The name of another resource in the same namespace, or of a backend of the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Ref {
    /// The name.
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
}

/// Where the records are: exactly one of `mysql` and `mongodb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "has(self.mysql) != has(self.mongodb)", "message": "name exactly one of mysql and mongodb" },
    ]))
)]
pub struct Source {
    /// A table of a declared MySQL backend. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<TableSource>,
    /// A collection of a declared MongoDB backend. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<CollectionSource>,
}

/// A table of a declared MySQL backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct TableSource {
    /// The backend, by its name in the service. Rolling.
    pub backend_ref: Ref,
    /// The table. Built-in entities have one of their own, such as `users`. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub table: Option<String>,
    /// The column that identifies a row. Required for Custom. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub key: Option<String>,
    /// The integer column that grows with every change; without it the pool is read-only. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub version: Option<String>,
}

/// A collection of a declared MongoDB backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct CollectionSource {
    /// The backend, by its name in the service. Rolling.
    pub backend_ref: Ref,
    /// The collection. Built-in entities have one of their own, such as `products`. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub collection: Option<String>,
    /// The field that is the record's key in the API of a Custom pool; stored as `_id`. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$")))]
    pub key: Option<String>,
}

/// How one field is treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "!(has(self.encrypt) && self.encrypt && has(self.role) && self.role == 'Intrinsic')", "message": "an encrypted field is never shared: it cannot be Intrinsic", "fieldPath": ".role" },
    ]))
)]
pub struct FieldSpec {
    /// The field's name, as in the API and in the store.
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))
    )]
    pub name: String,
    /// The type of the values. Custom pools only: built-in entities know theirs. Rolling.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(with = "FieldType"))]
    pub kind: Option<FieldType>,
    /// Whether equal values are stored once (Intrinsic), per record (Extrinsic), or as measured (Auto).
    /// Rolling.
    #[serde(default)]
    pub role: Role,
    /// Whether the value is encrypted in the store. An encrypted field is never shared or searched. Rolling.
    #[serde(default)]
    pub encrypt: bool,
    /// Whether a record must have the field. Custom pools only. Rolling.
    #[serde(default)]
    pub required: bool,
    /// How an Integer goes out in JSON: as a Number (the default), from -(2^53 - 1) to 2^53 - 1, or as a
    /// String of any 64 bits. A Decimal is always a String. Custom pools only. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(with = "JsonForm"))]
    pub json: Option<JsonForm>,
}

/// The type of a declared field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum FieldType {
    /// Text, up to 65,535 bytes of UTF-8.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// An exact decimal number, up to 28 digits.
    Decimal,
    /// true or false.
    Boolean,
    /// Any JSON value.
    Json,
    /// A UTC time with milliseconds, RFC 3339.
    Timestamp,
}

/// When entries that nobody asks for are dropped from memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Cleanup {
    /// An entry that was not read for this long is dropped. Hot.
    #[serde(default = "default_idle_after")]
    pub idle_after: Span,
    /// How often idle entries are looked for. Hot.
    #[serde(default = "default_cleanup_interval")]
    pub interval: Span,
}

/// What a pod loads before it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum WarmUp {
    /// Nothing: entries come with the first reads.
    #[default]
    None,
    /// All records, up to the capacity.
    All,
    /// The records that changed last.
    Recent,
    /// What the other pods hold.
    Peers,
}

/// Bounds on single records of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct PoolLimits {
    /// The largest request body for one record. Hot.
    #[serde(default = "default_max_record_bytes")]
    pub max_record_bytes: Bytes,
}

/// Which roles of the caller's token may do what; `*` is everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Access {
    /// Roles that may read. Hot.
    #[serde(default = "everybody")]
    #[cfg_attr(feature = "kube", schemars(length(max = 32), inner(length(max = 64))))]
    pub read: Vec<String>,
    /// Roles that may create, change and delete. Hot.
    #[serde(default = "everybody")]
    #[cfg_attr(feature = "kube", schemars(length(max = 32), inner(length(max = 64))))]
    pub write: Vec<String>,
    /// Roles that may order at another price than the catalogue's: a right of the pool of products. Nobody
    /// has it by default. Hot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 32), inner(length(max = 64))))]
    pub price: Vec<String>,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self { idle_after: default_idle_after(), interval: default_cleanup_interval() }
    }
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { max_record_bytes: default_max_record_bytes() }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self { read: everybody(), write: everybody(), price: Vec::new() }
    }
}

fn default_capacity() -> u64 {
    1_000_000
}

fn default_idle_after() -> Span {
    Span::from_secs(30 * 60)
}

fn default_cleanup_interval() -> Span {
    Span::from_secs(60)
}

fn default_max_record_bytes() -> Bytes {
    Bytes(1 << 20)
}

fn everybody() -> Vec<String> {
    vec!["*".to_owned()]
}
