//! Typed specifications: what to find, in which order, from where on.

use super::{
    key::Key,
    record::{Named, Record, Unreadable},
    schema::FieldRef,
    value::Value,
};
use crate::budget::Allowance;

/// The most bytes of a page, about: it ends before the record that would pass them, and has one at least.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// The bytes of memory that each byte of a page takes while it is made: the record, and its JSON.
pub const HELD_PER_BYTE: usize = 2;

/// What to find.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which records.
    pub filter: Filter,
    /// In which order; ties are broken by the key, ascending.
    pub order: Vec<(FieldRef, Direction)>,
    /// From where on.
    pub start: Start,
    /// The most records.
    pub limit: u32,
    /// Whether the total is wanted.
    pub count: bool,
    /// How much memory the page may take; it ends early where there is no more.
    pub allowance: Allowance,
}

/// Which records.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All.
    All,
    /// Those that every part takes; all for no part.
    And(Vec<Filter>),
    /// Those that some part takes; none for no part.
    Or(Vec<Filter>),
    /// Those that the part does not take. Two-valued: a comparison with a null is false, and its negation
    /// true.
    Not(Box<Filter>),
    /// Those whose field compares so with the value. Null compares with nothing.
    Compare(FieldRef, Comparison, Value),
    /// Those whose field is one of the values.
    In(FieldRef, Vec<Value>),
    /// Those whose text matches the pattern: `%` is any text, `_` one character, `\` escapes. Case counts.
    Like(FieldRef, String),
    /// Those whose text holds this text, where a letter and its capital are the same.
    Holds(FieldRef, String),
    /// Those whose text is this text, where a letter and its capital are the same.
    Same(FieldRef, String),
    /// Those whose field lies between the two, both included.
    Between(FieldRef, Value, Value),
    /// Those whose field has no value.
    IsNull(FieldRef),
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The least.
    Ascending,
    /// The greatest.
    Descending,
}

/// From where on.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// After so many records.
    Offset(u64),
    /// After the record with these values of the order's fields and this key.
    After(Position),
}

/// A place in an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// The values of the order's fields.
    pub values: Vec<Value>,
    /// The key.
    pub key: Key,
    /// How many records after this one come before the place: those whose own place cannot be told, as they
    /// cannot be read.
    pub skip: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Those among them that cannot be read. They count as found.
    pub unreadable: Vec<Named>,
    /// How many there are in all, where it was asked for.
    pub total: Option<u64>,
    /// Where the next page starts; none at the end.
    pub next: Option<Position>,
}

impl Record {
    /// The value of a field.
    pub fn value_of(&self, field: FieldRef) -> Value {
        match field {
            FieldRef::Key => Value::Text(self.key.to_string()),
            FieldRef::Version => Value::Int(self.version.0 as i64),
            FieldRef::CreatedAt => Value::Time(self.created_at),
            FieldRef::UpdatedAt => Value::Time(self.updated_at),
            FieldRef::Field(index) => self.values.0.get(index).cloned().unwrap_or(Value::Null),
        }
    }

    /// The record's place in an order.
    pub fn position(&self, order: &[(FieldRef, Direction)]) -> Position {
        let values = order.iter().map(|(field, _)| self.value_of(*field)).collect();
        Position { values, key: self.key.clone(), skip: 0 }
    }
}

impl Unreadable {
    /// The record's place in an order; none where a value of the order is one that cannot be read.
    pub fn position(&self, order: &[(FieldRef, Direction)]) -> Option<Position> {
        let known =
            |(field, _): &(FieldRef, Direction)| self.oddities.iter().all(|oddity| oddity.at != *field);
        order.iter().all(known).then(|| self.rest.position(order))
    }
}
