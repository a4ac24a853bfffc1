//! Request bodies to values: strict, and every fault of a body at once.

use std::{collections::HashSet, fmt};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value as Tree, value::RawValue};

use super::{
    fault::FieldFault,
    field::{json_value, key_of, time_of, value_of, written},
    key::{Key, Version},
    record::Record,
    schema::{Field, Kind, Schema},
    strict::{self, shorten},
    value::{Row, Value},
};

/// The most faults that one answer lists.
const FAULTS_MAX: usize = 100;

/// Why a body is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not one JSON object; says what it is instead, and where.
    Malformed(String),
    /// It is an object, but fields of it are wrong.
    Invalid(Vec<FieldFault>),
}

/// The body of a create.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The key, where the client chose one.
    pub key: Option<Key>,
    /// The values, defaults filled in.
    pub values: Row,
}

/// What a client sent back of the fields that only the server sets. It must be what the record has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Echo {
    /// The key.
    pub key: Option<Key>,
    /// The version that the client saw: the change is for this one only.
    pub version: Option<Version>,
    /// The times and read-only fields, each by its name.
    pub values: Vec<(String, Value)>,
}

/// The body of a replace.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    /// What the client sent back of the server's fields.
    pub echo: Echo,
    /// The values, defaults filled in, also for read-only fields.
    pub values: Row,
}

/// The body of a patch: a JSON merge patch (RFC 7396).
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// What the client sent back of the server's fields.
    pub echo: Echo,
    parts: Vec<(usize, Part)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// The field gets this value; null removes it.
    Set(Value),
    /// The field's JSON is merged with this object.
    Merge(Tree),
}

/// Reads the body of a create.
///
/// # Errors
/// See [`BodyError`].
pub fn parse_create(schema: &Schema, body: &[u8]) -> Result<Draft, BodyError> {
    let mut faults = Vec::new();
    let mut values = vec![Value::Null; schema.fields.len()];
    let mut key = None;
    for (name, raw) in members(body, &mut faults)? {
        match place_of(schema, &name) {
            Place::Key => {
                key = collect(key_of(&name, raw.get()).and_then(|key| schema.may_create(key)), &mut faults)
            }
            Place::Field(index) => {
                let Some((slot, field)) = values.get_mut(index).zip(schema.fields.get(index)) else {
                    continue;
                };
                *slot = collect(written(field, raw.get()), &mut faults).unwrap_or(Value::Null);
            }
            Place::Version | Place::Time | Place::ReadOnly(_) => {
                faults.push(FieldFault::new(name, "is set by the server: leave it out"));
            }
            Place::Nowhere => faults.push(unknown(&name)),
        }
    }
    Ok(Draft { key, values: finish(schema, values, faults)? })
}

/// Reads the body of a replace.
///
/// # Errors
/// See [`BodyError`].
pub fn parse_replace(schema: &Schema, body: &[u8]) -> Result<Replacement, BodyError> {
    let mut faults = Vec::new();
    let mut echo = Echo::default();
    let mut values = vec![Value::Null; schema.fields.len()];
    for (name, raw) in members(body, &mut faults)? {
        if let Place::Field(index) = place_of(schema, &name) {
            let Some((slot, field)) = values.get_mut(index).zip(schema.fields.get(index)) else { continue };
            *slot = collect(written(field, raw.get()), &mut faults).unwrap_or(Value::Null);
        } else {
            echo.take(schema, &name, raw, &mut faults);
        }
    }
    Ok(Replacement { echo, values: finish(schema, values, faults)? })
}

/// Reads the body of a patch.
///
/// # Errors
/// See [`BodyError`].
pub fn parse_patch(schema: &Schema, body: &[u8]) -> Result<Patch, BodyError> {
    let mut faults = Vec::new();
    let mut echo = Echo::default();
    let mut parts = Vec::new();
    for (name, raw) in members(body, &mut faults)? {
        if let Place::Field(index) = place_of(schema, &name) {
            let Some(field) = schema.fields.get(index) else { continue };
            if let Some(part) = collect(part_of(field, raw.get()), &mut faults) {
                parts.push((index, part));
            }
        } else {
            echo.take(schema, &name, raw, &mut faults);
        }
    }
    if faults.is_empty() { Ok(Patch { echo, parts }) } else { Err(invalid(faults)) }
}

impl Echo {
    /// Checks that the client sent back no other key than the one it speaks of.
    ///
    /// # Errors
    /// The key's fault.
    pub fn check_key(&self, schema: &Schema, key: &Key) -> Result<(), FieldFault> {
        match &self.key {
            Some(other) if other != key => {
                Err(FieldFault::new(&schema.key, "must be the key of the path, or left out"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the times and read-only fields that the client sent back against the record. (The version
    /// guards the write.)
    ///
    /// # Errors
    /// Each field that differs.
    pub fn check(&self, schema: &Schema, record: &Record) -> Result<(), Vec<FieldFault>> {
        let current = |name: &str| match name {
            "created_at" => Value::Time(record.created_at),
            "updated_at" => Value::Time(record.updated_at),
            _ => schema
                .index_of(name)
                .and_then(|index| record.values.0.get(index))
                .cloned()
                .unwrap_or(Value::Null),
        };
        let differs = |(name, value): &&(String, Value)| current(name) != *value;
        let fault = |(name, _): &(String, Value)| {
            FieldFault::new(name, "is set by the server: leave it out, or send it as it was read")
        };
        let faults: Vec<FieldFault> = self.values.iter().filter(differs).map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn take(&mut self, schema: &Schema, name: &str, raw: &RawValue, faults: &mut Vec<FieldFault>) {
        let value = match place_of(schema, name) {
            Place::Key => {
                self.key = collect(key_of(name, raw.get()), faults);
                return;
            }
            Place::Time => time_of(name, raw.get()),
            Place::ReadOnly(index) => match schema.fields.get(index) {
                Some(field) => value_of(field, raw.get()),
                None => return,
            },
            Place::Version => match raw.get().parse::<u64>() {
                Ok(version) => {
                    self.version = Some(Version(version));
                    return;
                }
                Err(_) => Err(FieldFault::new(name, "must be a whole number from 1")),
            },
            Place::Field(_) | Place::Nowhere => Err(unknown(name)),
        };
        if let Some(value) = collect(value, faults) {
            self.values.push((name.to_owned(), value));
        }
    }
}

impl Patch {
    /// The fields that it says something of, by their places in the schema.
    pub fn fields(&self) -> Vec<usize> {
        self.parts.iter().map(|(field, _)| *field).collect()
    }

    /// The values that the patch makes of a record's.
    ///
    /// # Errors
    /// Every fault of the result.
    pub fn apply(&self, schema: &Schema, current: &Row) -> Result<Row, BodyError> {
        let mut faults = Vec::new();
        let mut values = current.0.clone();
        values.resize(schema.fields.len(), Value::Null);
        let touches = |name: &str| {
            self.parts
                .iter()
                .any(|(index, _)| schema.fields.get(*index).is_some_and(|field| field.name == name))
        };
        for (slot, field) in values.iter_mut().zip(&schema.fields) {
            if field.follows.is_some_and(touches) {
                *slot = Value::Null;
            }
        }
        for (index, part) in &self.parts {
            let Some((slot, field)) = values.get_mut(*index).zip(schema.fields.get(*index)) else { continue };
            *slot = match part {
                Part::Set(value) => value.clone(),
                Part::Merge(patch) => {
                    let mut tree = if let Value::Json(json) = &*slot { json.to_value() } else { Tree::Null };
                    merge(&mut tree, patch);
                    collect(json_value(field, &tree), &mut faults).unwrap_or(Value::Null)
                }
            };
        }
        // a fault that the record had before, in what the patch leaves alone, is not the patch's
        let before = (schema.rules)(schema, current);
        finish_but(schema, values, faults, |fault| before.contains(fault) && !touches(root_of(&fault.field)))
    }
}

impl Schema {
    /// A key that a new record may have. Those of the service's own entities stand in paths, events and
    /// messages as they are.
    ///
    /// # Errors
    /// It is not plain, and must be.
    pub fn may_create(&self, key: Key) -> Result<Key, FieldFault> {
        match Key::plain_fault(key.as_str()).filter(|_| !self.any_key) {
            Some(why) => Err(FieldFault::new(&self.key, why)),
            None => Ok(key),
        }
    }

    /// What is wrong with a whole row: missing values, then the entity's own rules.
    pub fn faults_of(&self, row: &Row) -> Vec<FieldFault> {
        let missing = |(field, value): &(&Field, &Value)| field.required && value.is_null();
        let faults: Vec<FieldFault> = self
            .fields
            .iter()
            .zip(&row.0)
            .filter(missing)
            .map(|(field, _)| FieldFault::new(&field.name, "is required"))
            .collect();
        if faults.is_empty() { (self.rules)(self, row) } else { faults }
    }
}

/// Where a body's member belongs.
enum Place {
    Key,
    Version,
    Time,
    ReadOnly(usize),
    Field(usize),
    Nowhere,
}

fn place_of(schema: &Schema, name: &str) -> Place {
    match name {
        _ if name == schema.key => Place::Key,
        "version" => Place::Version,
        "created_at" | "updated_at" => Place::Time,
        _ => match schema.index_of(name) {
            Some(index) if schema.fields.get(index).is_some_and(|field| field.read_only) => {
                Place::ReadOnly(index)
            }
            Some(index) => Place::Field(index),
            None => Place::Nowhere,
        },
    }
}

/// The members of a body's object. A repeated name is a fault, its first value counts.
///
/// # Errors
/// `Malformed` where it is no object.
pub fn members<'a>(
    body: &'a [u8],
    faults: &mut Vec<FieldFault>,
) -> Result<Vec<(String, &'a RawValue)>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        BodyError::Malformed(format!("the body is not UTF-8: byte {} is wrong", error.valid_up_to()))
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader
        .deserialize_map(Members)
        .and_then(|found| reader.end().map(|()| found))
        .map_err(|error| BodyError::Malformed(format!("the body is not a JSON object: {error}")))?;
    let mut members: Vec<(String, &RawValue)> = Vec::with_capacity(found.len().min(64));
    let mut seen = HashSet::with_capacity(found.len().min(64));
    for (name, raw) in found {
        if seen.insert(name.clone()) {
            members.push((name, raw));
        } else {
            faults.push(FieldFault::new(shorten(&name), "is given twice"));
        }
    }
    Ok(members)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            members.push(entry);
        }
        Ok(members)
    }
}

fn collect<T>(result: Result<T, FieldFault>, faults: &mut Vec<FieldFault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn unknown(name: &str) -> FieldFault {
    FieldFault::new(shorten(name), "is not a field of this entity")
}

fn invalid(mut faults: Vec<FieldFault>) -> BodyError {
    faults.truncate(FAULTS_MAX);
    BodyError::Invalid(faults)
}

/// Fills in defaults and checks the whole. A field that is faulty already is not reported as missing too.
fn finish(schema: &Schema, values: Vec<Value>, faults: Vec<FieldFault>) -> Result<Row, BodyError> {
    finish_but(schema, values, faults, |_| false)
}

/// The same, but for faults of the whole that are forgiven.
fn finish_but(
    schema: &Schema,
    values: Vec<Value>,
    mut faults: Vec<FieldFault>,
    forgiven: impl Fn(&FieldFault) -> bool,
) -> Result<Row, BodyError> {
    let filled = schema
        .fields
        .iter()
        .zip(values)
        .map(|(field, value)| if value.is_null() { field.default.clone() } else { value });
    let row = Row(filled.collect());
    let known: HashSet<String> = faults.iter().map(|fault| root_of(&fault.field).to_owned()).collect();
    let further = schema.faults_of(&row).into_iter().filter(|fault| !forgiven(fault));
    faults.extend(further.filter(|fault| !known.contains(root_of(&fault.field))));
    if faults.is_empty() { Ok(row) } else { Err(invalid(faults)) }
}

/// The field that a path starts with.
fn root_of(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or_default()
}

fn part_of(field: &Field, raw: &str) -> Result<Part, FieldFault> {
    match &field.kind {
        Kind::Json { .. } if raw.starts_with('{') => strict::parse(&field.name, raw).map(Part::Merge),
        _ => written(field, raw).map(Part::Set),
    }
}

/// RFC 7396: objects are merged, null removes, everything else replaces.
fn merge(target: &mut Tree, patch: &Tree) {
    let Tree::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Tree::Object(serde_json::Map::new());
    }
    let Tree::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Tree::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
