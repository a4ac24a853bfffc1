//! An entity is data: its fields with kind, bounds and roles. Everything that handles records reads the
//! schema.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{
    fault::FieldFault,
    key::Key,
    strict,
    value::{Row, Timestamp, Value},
};

/// What the records of one collection look like.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The entity in the singular, as in event types: `product`. The pool's name for a declared table.
    pub entity: String,
    /// The collection in the plural, as in paths: `products`.
    pub collection: String,
    /// The name of the key in JSON: `id`, or the declared key.
    pub key: String,
    /// The fields, without key, version and times.
    pub fields: Vec<Field>,
    /// Whether a new record may have any key; else only a plain one.
    pub any_key: bool,
    /// What single fields cannot say: rules over the whole record. Each fault names a field.
    pub rules: fn(&Schema, &Row) -> Vec<FieldFault>,
    /// Sets what the server computes from the other fields of a valid record, such as an order's total.
    pub derive: fn(&Schema, &mut Row),
    /// What a change from outside leaves in internal fields: the record before it, which a create has not,
    /// the record after it, what was written, the time.
    pub on_write: fn(&Schema, Option<&Row>, &mut Row, Wrote<'_>, Timestamp),
}

/// What a change from outside wrote.
#[derive(Clone, Copy, Debug)]
pub enum Wrote<'a> {
    /// A new record.
    Created,
    /// All fields of a record.
    Replaced,
    /// Some fields, by their places in the schema.
    Patched(&'a [usize]),
}

/// How a field's values are stored in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum Role {
    /// As measurement shows: shared where that saves memory.
    #[default]
    Auto,
    /// Shared: equal values are stored once.
    Intrinsic,
    /// Per record.
    Extrinsic,
}

/// How a number goes out in JSON. JavaScript and many others read a number there as a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
pub enum JsonForm {
    /// As a JSON number.
    #[default]
    Number,
    /// As text: exact for every reader.
    String,
}

/// One field of a schema.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON and in stores.
    pub name: String,
    /// The kind of its values, with bounds.
    pub kind: Kind,
    /// Whether equal values are shared in memory.
    pub role: Role,
    /// Whether a record must have a value.
    pub required: bool,
    /// Whether no two records may have the same value. Text only.
    pub unique: bool,
    /// Whether stores keep an index for it.
    pub indexed: bool,
    /// Whether its values are encrypted in stores and masked elsewhere.
    pub encrypted: bool,
    /// Whether only the server sets it.
    pub read_only: bool,
    /// How its numbers go out in JSON, and for a declared one what may come in.
    pub json: JsonForm,
    /// Whether it is the server's own bookkeeping: kept in stores, shown nowhere (no answer, event or cache
    /// has it).
    pub internal: bool,
    /// The value of a new record that does not give one.
    pub default: Value,
    /// The field that this one follows from: a patch of that one takes this one's value away, unless it names
    /// it too.
    pub follows: Option<&'static str>,
    /// The field whose text this one holds in small letters, so that it is unique without case. The server
    /// sets it.
    pub folds: Option<&'static str>,
}

/// The kind of a field's values, with bounds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Text of at most so many characters, and at least one where the field is required. Never a NUL.
    Text {
        /// The most Unicode scalar values.
        max: usize,
        /// What else the text must be.
        form: Form,
    },
    /// A whole number between two bounds, both included.
    Int {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// An exact decimal number between two bounds, both included.
    Decimal {
        /// The least.
        min: Decimal,
        /// The greatest.
        max: Decimal,
        /// The most digits after the point.
        scale: u32,
    },
    /// true or false.
    Bool,
    /// Any JSON value.
    Json {
        /// The most bytes of canonical text.
        max: usize,
        /// Which shape the value must have.
        shape: Shape,
    },
    /// A point in time.
    Time,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// What text must be, beyond its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Anything.
    Any,
    /// An e-mail address.
    Email,
    /// A currency code of ISO 4217: three capital letters.
    Currency,
    /// The key of another record.
    Key,
}

/// Which shape a JSON value must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Anything but null.
    Any,
    /// An object.
    Object,
    /// A list.
    List,
    /// A list of strings.
    Strings,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldRef {
    /// The key.
    Key,
    /// The version.
    Version,
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// A field of the schema, by its index.
    Field(usize),
}

impl Schema {
    /// A schema whose key is `id`, with no rules beyond those of its fields.
    pub fn new(entity: &str, collection: &str, fields: Vec<Field>) -> Self {
        Self {
            entity: entity.to_owned(),
            collection: collection.to_owned(),
            key: "id".to_owned(),
            fields,
            any_key: false,
            rules: |_, _| Vec::new(),
            derive: |_, _| (),
            on_write: |_, _, _, _, _| (),
        }
    }

    /// Whether some field is set by the server alone.
    pub fn has_read_only(&self) -> bool {
        self.fields.iter().any(|field| field.read_only)
    }

    /// The index of a field by its name. Internal fields are not found: nobody outside may speak of them.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name && !field.internal)
    }

    /// The index of an internal field by its name.
    pub fn internal_index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name && field.internal)
    }

    /// The value of a field, internal ones too; null where there is no such field.
    pub fn get<'a>(&self, row: &'a Row, name: &str) -> &'a Value {
        let index = self.fields.iter().position(|field| field.name == name);
        index.and_then(|index| row.0.get(index)).unwrap_or(&Value::Null)
    }

    /// Sets a field, internal ones too. Without such a field nothing happens.
    pub fn set(&self, row: &mut Row, name: &str, value: Value) {
        let index = self.fields.iter().position(|field| field.name == name);
        if let Some(slot) = index.and_then(|index| row.0.get_mut(index)) {
            *slot = value;
        }
    }

    /// Sets what holds the text of other fields in small letters. What was there stays while the text is the
    /// same but for case, so that rows that had twins before can still be changed.
    pub fn fold(&self, row: &mut Row, current: Option<&Row>) {
        for field in &self.fields {
            let Some(of) = field.folds else { continue };
            let encrypted = self.fields.iter().any(|other| other.name == of && other.encrypted);
            let folded =
                |row: &Row| self.get(row, of).as_text().filter(|_| !encrypted).map(str::to_lowercase);
            let next = folded(&*row);
            let value = match current {
                Some(current) if folded(current) == next => self.get(current, &field.name).clone(),
                _ => next.map_or(Value::Null, Value::Text),
            };
            self.set(row, &field.name, value);
        }
    }

    /// The field that a client knows a field by: for one that holds another in small letters, that other.
    pub fn known_as<'a>(&'a self, field: &'a str) -> &'a str {
        self.fields.iter().find(|own| own.name == field).and_then(|own| own.folds).unwrap_or(field)
    }

    /// The index of the field that holds this one in small letters.
    pub fn folded_index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.folds == Some(name))
    }

    /// A row of these values, and defaults for the rest.
    pub fn row_of<const N: usize>(&self, values: [(&str, Value); N]) -> Row {
        let mut row = Row(self.fields.iter().map(|field| field.default.clone()).collect());
        for (name, value) in values {
            self.set(&mut row, name, value);
        }
        row
    }
}

impl Kind {
    /// The most bytes of a built-in entity's JSON field.
    pub const JSON_MAX: usize = 64 << 10;
    /// The digits after the point of an amount of money.
    pub const MONEY_SCALE: u32 = 4;

    /// Text of any form.
    pub fn text(max: usize) -> Self {
        Self::Text { max, form: Form::Any }
    }

    /// The key of another record.
    pub fn key() -> Self {
        Self::Text { max: Key::PLAIN_MAX, form: Form::Key }
    }

    /// Whether it takes every exact number: of 64 bits with a sign or without, or of 65 digits. Declared
    /// fields do.
    pub fn is_unbounded(&self) -> bool {
        match self {
            Self::Int { min, max } => (*min, *max) == (i64::MIN, i64::MAX),
            Self::Decimal { min, max, .. } => (*min, *max) == (Decimal::MIN, Decimal::MAX),
            Self::Text { .. } | Self::Bool | Self::Json { .. } | Self::Time | Self::Choice(_) => false,
        }
    }

    /// A currency code of ISO 4217.
    pub fn currency() -> Self {
        Self::Text { max: 3, form: Form::Currency }
    }

    /// An amount of money: 15 digits, 4 of them after the point, from `least` ten-thousandths on.
    pub fn money(least: i64) -> Self {
        Self::Decimal {
            min: Decimal::new(least, Self::MONEY_SCALE),
            max: Decimal::new(999_999_999_999_999, Self::MONEY_SCALE),
            scale: Self::MONEY_SCALE,
        }
    }

    /// JSON of a shape, of the usual size.
    pub fn json(shape: Shape) -> Self {
        Self::Json { max: Self::JSON_MAX, shape }
    }
}

impl Field {
    /// An optional field with no index, that anybody may set.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            role: Role::Auto,
            required: false,
            unique: false,
            indexed: false,
            encrypted: false,
            read_only: false,
            json: JsonForm::Number,
            internal: false,
            default: Value::Null,
            follows: None,
            folds: None,
        }
    }

    /// The field, required.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The field, unique over the collection (and indexed by that).
    #[must_use]
    pub fn unique(self) -> Self {
        Self { unique: true, ..self }
    }

    /// The field, with an index.
    #[must_use]
    pub fn indexed(self) -> Self {
        Self { indexed: true, ..self }
    }

    /// The field, set by the server alone.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The field, as bookkeeping of the server that is shown nowhere.
    #[must_use]
    pub fn internal(self) -> Self {
        Self { internal: true, read_only: true, ..self }
    }

    /// The field, as what follows from another.
    #[must_use]
    pub fn follows(self, other: &'static str) -> Self {
        Self { follows: Some(other), ..self }
    }

    /// The field, as the text of another in small letters, without any twin.
    #[must_use]
    pub fn folds(self, other: &'static str) -> Self {
        Self { folds: Some(other), ..self }.unique().internal()
    }

    /// The field, in a role.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The field, with a value for records that do not give one.
    #[must_use]
    pub fn default(self, default: Value) -> Self {
        Self { default, ..self }
    }
}

impl Field {
    /// Appends a value of the field as answers, events and audit show it.
    pub fn write_json(&self, value: &Value, out: &mut String) {
        match (self.json, value) {
            (JsonForm::String, Value::Int(_) | Value::Decimal(_) | Value::Wide(_)) => {
                out.push('"');
                value.write_json(out);
                out.push('"');
            }
            _ => value.write_json(out),
        }
    }

    /// Whether a value goes out as a number that a double does not hold: one beyond 2^53 - 1.
    pub fn is_beyond_doubles(&self, value: &Value) -> bool {
        let beyond = match value {
            Value::Int(number) => number.unsigned_abs() > strict::DOUBLE_MAX as u64,
            value => matches!(value, Value::Wide(_)),
        };
        beyond && self.json == JsonForm::Number
    }
}
