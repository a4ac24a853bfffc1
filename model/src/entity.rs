//! What an entity is to everybody else: one row of the table in `entities`.

use crate::schema::Schema;

/// An entity: its schema, where its records are, and what it has beyond what every collection has.
#[derive(Debug)]
pub struct Definition {
    /// The path of its collection. `{pool}` stands for the name of a declared one.
    pub path: &'static str,
    /// What its records look like; none where a pool declares that.
    pub schema: Option<fn() -> Schema>,
    /// The kind of store that holds it unless its pool says otherwise.
    pub home: Home,
    /// Whether PUT creates a record that is not there.
    pub upserts: bool,
    /// Why its records cannot be acknowledged before the store has them; none where they can.
    pub not_behind: Option<&'static str>,
    /// Its lists besides that of all records.
    pub lists: &'static [List],
    /// A record as a client creates it, in JSON; empty where a pool declares the fields.
    pub example: &'static str,
}

/// A list of some records of an entity, and its route.
#[derive(Debug)]
pub struct List {
    /// The whole path with its `{parameters}`.
    pub path: &'static str,
    /// What the API's description calls it.
    pub id: &'static str,
    /// What it lists.
    pub summary: &'static str,
    /// Which records.
    pub of: Selection,
}

/// Which records a list has.
#[derive(Debug)]
pub enum Selection {
    /// Those whose field is what the path says.
    Field {
        /// The field.
        field: &'static str,
        /// The parameter of the path, as the API's description calls it.
        parameter: &'static str,
    },
    /// Those that parameters of the query ask for.
    Search(&'static [SearchParam]),
}

/// A query parameter of a search.
#[derive(Clone, Copy, Debug)]
pub struct SearchParam {
    /// Its name.
    pub name: &'static str,
    /// What it asks for.
    pub about: &'static str,
    /// The fields that it looks into; one of them must match.
    pub fields: &'static [&'static str],
    /// How a field matches.
    pub how: Match,
    /// The most characters of it.
    pub max: usize,
}

/// How a field matches a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is equal.
    Whole,
    /// It is equal, in capitals or not.
    Same,
    /// It holds the text, in capitals or not.
    Part,
    /// Each word is in one of the fields, in capitals or not.
    Words,
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
