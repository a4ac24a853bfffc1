//! Specifications as JSON: `{field, op, value}`, joined by `and`, `or` and `not`, read into typed filters.
//! Fields come from the schema: what is not one, is encrypted, or is JSON, is refused by the path to it.

use serde_json::{Map, Value as Tree};

use super::{
    fault::FieldFault,
    field::value_of,
    json::{BodyError, members},
    query::{Comparison, Direction, Filter},
    schema::{Field, FieldRef, Form, Kind, Schema},
    strict::{self, shorten},
    value::Value,
};

/// The deepest nesting of `and`, `or` and `not`.
const DEPTH_MAX: usize = 16;
/// The most comparisons, joints and listed values.
const NODES_MAX: usize = 1_000;
/// The longest text to compare with, in characters.
const TEXT_MAX: usize = 4_096;
/// The longest pattern, in characters, and the most `%` in it: each multiplies the work.
const PATTERN_MAX: usize = 256;
const WILDCARDS_MAX: usize = 8;
/// The most fields of an order.
const ORDER_MAX: usize = 8;

/// A search as JSON gives it, but for `where` and `order_by`, which need the schema.
#[derive(Debug, Default)]
pub struct Search {
    /// Of which collection: a pool or an entity.
    pub repository: String,
    /// The most records; none for the usual.
    pub limit: Option<u64>,
    /// Where the page starts.
    pub cursor: Option<String>,
    /// Whether only the number is wanted.
    pub count_only: bool,
    filter: Option<Tree>,
    order: Option<Tree>,
}

/// Reads the body of a search.
///
/// # Errors
/// See [`BodyError`].
pub fn parse_search(body: &[u8]) -> Result<Search, BodyError> {
    let mut faults = Vec::new();
    let (mut search, mut named) = (Search::default(), false);
    for (name, raw) in members(body, &mut faults)? {
        let known = ["repository", "where", "order_by", "limit", "cursor", "count_only"];
        if !known.contains(&name.as_str()) {
            let message = format!("is not a field of a search: there are {}", known.join(", "));
            faults.push(FieldFault::new(shorten(&name), message));
            continue;
        }
        let tree = match strict::parse(&name, raw.get()) {
            Ok(tree) => tree,
            Err(fault) => {
                named |= name == "repository";
                faults.push(fault);
                continue;
            }
        };
        let fault = |message: &str| FieldFault::new(&name, message);
        match (name.as_str(), tree) {
            ("repository", Tree::String(text)) => (search.repository, named) = (text, true),
            ("repository", _) => {
                named = true;
                faults.push(fault("must be the name of a pool or an entity"));
            }
            ("where", tree) => search.filter = Some(tree),
            ("order_by", tree) => search.order = Some(tree),
            ("limit", tree) => match tree.as_u64() {
                Some(limit) => search.limit = Some(limit),
                None => faults.push(fault("must be a whole number")),
            },
            ("cursor", Tree::String(text)) => search.cursor = Some(text),
            ("cursor", Tree::Null) => (),
            ("cursor", _) => faults.push(fault("must be text")),
            (_, Tree::Bool(count_only)) => search.count_only = count_only,
            _ => faults.push(fault("must be true or false")),
        }
    }
    if !named {
        faults.push(FieldFault::new("repository", "is required"));
    }
    if faults.is_empty() { Ok(search) } else { Err(BodyError::Invalid(faults)) }
}

/// Reads the specification of a field `where`: all records where it is null.
///
/// # Errors
/// The first fault of the specification, with the path to it.
pub fn read_filter(tree: &Tree, schema: &Schema) -> Result<Filter, FieldFault> {
    match tree {
        Tree::Null => Ok(Filter::All),
        tree => Reader { schema, nodes: 0 }.filter("where", tree, 0),
    }
}

impl Search {
    /// Which records are wanted; all where nothing is said.
    ///
    /// # Errors
    /// The first fault of the specification, with the path to it.
    pub fn filter(&self, schema: &Schema) -> Result<Filter, FieldFault> {
        self.filter.as_ref().map_or(Ok(Filter::All), |tree| read_filter(tree, schema))
    }

    /// In which order.
    ///
    /// # Errors
    /// The first fault, with the path to it.
    pub fn order(&self, schema: &Schema) -> Result<Vec<(FieldRef, Direction)>, FieldFault> {
        let items = match &self.order {
            None | Some(Tree::Null) => return Ok(Vec::new()),
            Some(Tree::Array(items)) if items.len() <= ORDER_MAX => items,
            Some(_) => {
                let message =
                    format!("must be a list of at most {ORDER_MAX} fields, as in [\"name\", \"-price\"]");
                return Err(FieldFault::new("order_by", message));
            }
        };
        let mut order: Vec<(FieldRef, Direction)> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("order_by[{index}]");
            let text = item
                .as_str()
                .ok_or_else(|| FieldFault::new(&path, "must be the name of a field, or -name"))?;
            let (name, direction) = match text.strip_prefix('-') {
                Some(name) => (name, Direction::Descending),
                None => (text, Direction::Ascending),
            };
            let (field, _) = field_of(schema, &path, name)?;
            if order.iter().any(|(known, _)| *known == field) {
                return Err(FieldFault::new(path, "is given twice"));
            }
            order.push((field, direction));
        }
        Ok(order)
    }
}

/// Reads one specification.
struct Reader<'a> {
    schema: &'a Schema,
    nodes: usize,
}

impl Reader<'_> {
    fn filter(&mut self, path: &str, tree: &Tree, depth: usize) -> Result<Filter, FieldFault> {
        self.count(path, 1)?;
        if depth > DEPTH_MAX {
            return Err(FieldFault::new("where", format!("is nested deeper than {DEPTH_MAX} levels")));
        }
        let Tree::Object(object) = tree else {
            return Err(FieldFault::new(path, "must be an object: {field, op, value}, {and}, {or} or {not}"));
        };
        for joint in ["and", "or", "not"] {
            let Some(part) = object.get(joint) else { continue };
            if let Some(other) = object.keys().find(|key| *key != joint) {
                let message = format!("cannot stand beside {joint}");
                return Err(FieldFault::new(format!("{path}.{}", shorten(other)), message));
            }
            let path = format!("{path}.{joint}");
            if joint == "not" {
                return Ok(Filter::Not(Box::new(self.filter(&path, part, depth + 1)?)));
            }
            let Tree::Array(parts) = part else { return Err(FieldFault::new(path, "must be a list")) };
            let parts = parts.iter().enumerate();
            let read = parts.map(|(index, part)| self.filter(&format!("{path}[{index}]"), part, depth + 1));
            let parts = read.collect::<Result<Vec<_>, _>>()?;
            return Ok(if joint == "and" { Filter::And(parts) } else { Filter::Or(parts) });
        }
        self.leaf(path, object)
    }

    fn leaf(&mut self, path: &str, object: &Map<String, Tree>) -> Result<Filter, FieldFault> {
        let at = |name: &str| format!("{path}.{name}");
        if let Some(other) = object.keys().find(|key| !["field", "op", "value"].contains(&key.as_str())) {
            return Err(FieldFault::new(
                at(&shorten(other)),
                "is not part of a specification: field, op, value are",
            ));
        }
        let text = |name: &str| {
            let found = object.get(name).ok_or_else(|| FieldFault::new(at(name), "is required"))?;
            found.as_str().ok_or_else(|| FieldFault::new(at(name), "must be text"))
        };
        let (field, kind) = field_of(self.schema, &at("field"), text("field")?)?;
        let op = text("op")?;
        let comparison = match op {
            "eq" => Comparison::Eq,
            "ne" => Comparison::Ne,
            "lt" => Comparison::Lt,
            "lte" => Comparison::Lte,
            "gt" => Comparison::Gt,
            "gte" => Comparison::Gte,
            "is_null" => return is_null(&at("value"), field, object.get("value")),
            "in" | "between" | "like" => {
                let value = object.get("value").ok_or_else(|| FieldFault::new(at("value"), "is required"))?;
                return self.wide(&at("value"), op, field, &kind, value);
            }
            _ => {
                let known = "eq, ne, lt, lte, gt, gte, in, like, between, is_null";
                return Err(FieldFault::new(at("op"), format!("must be one of {known}")));
            }
        };
        let value = object.get("value").ok_or_else(|| FieldFault::new(at("value"), "is required"))?;
        Ok(Filter::Compare(field, comparison, operand(&at("value"), &kind, value)?))
    }

    /// The operators whose value is not one value of the field.
    fn wide(
        &mut self,
        path: &str,
        op: &str,
        field: FieldRef,
        kind: &Kind,
        value: &Tree,
    ) -> Result<Filter, FieldFault> {
        let fault = |message: &str| FieldFault::new(path, message);
        if op == "like" {
            if !matches!(kind, Kind::Text { .. }) {
                return Err(fault("can be like a pattern only where the field is text"));
            }
            let pattern =
                value.as_str().ok_or_else(|| fault("must be a pattern: % is any text, _ one character"))?;
            let wildcards = pattern.chars().filter(|c| *c == '%').count();
            if pattern.chars().count() > PATTERN_MAX || wildcards > WILDCARDS_MAX || pattern.contains('\0') {
                let message =
                    format!("must have at most {PATTERN_MAX} characters and {WILDCARDS_MAX} %, and no NUL");
                return Err(FieldFault::new(path, message));
            }
            return Ok(Filter::Like(field, pattern.to_owned()));
        }
        let Tree::Array(values) = value else { return Err(fault("must be a list")) };
        self.count(path, values.len())?;
        let values = values.iter().enumerate();
        let read = values.map(|(index, value)| operand(&format!("{path}[{index}]"), kind, value));
        let values: Vec<Value> = read.collect::<Result<_, _>>()?;
        if op == "in" {
            return Ok(Filter::In(field, values));
        }
        match <[Value; 2]>::try_from(values) {
            Ok([low, high]) => Ok(Filter::Between(field, low, high)),
            Err(_) => Err(fault("must be a list of two values: the least and the greatest")),
        }
    }

    fn count(&mut self, path: &str, nodes: usize) -> Result<(), FieldFault> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(FieldFault::new(
                path,
                format!("is one part too many: a search has at most {NODES_MAX}"),
            ));
        }
        Ok(())
    }
}

fn is_null(path: &str, field: FieldRef, value: Option<&Tree>) -> Result<Filter, FieldFault> {
    match value {
        None | Some(Tree::Bool(true)) => Ok(Filter::IsNull(field)),
        Some(Tree::Bool(false)) => Ok(Filter::Not(Box::new(Filter::IsNull(field)))),
        Some(_) => Err(FieldFault::new(path, "must be true or false, or left out")),
    }
}

/// A field by its name, and the kind of values that it compares with.
fn field_of(schema: &Schema, path: &str, name: &str) -> Result<(FieldRef, Kind), FieldFault> {
    let text = Kind::Text { max: TEXT_MAX, form: Form::Any };
    match name {
        _ if name == schema.key => return Ok((FieldRef::Key, text)),
        "version" => return Ok((FieldRef::Version, Kind::Int { min: i64::MIN, max: i64::MAX })),
        "created_at" => return Ok((FieldRef::CreatedAt, Kind::Time)),
        "updated_at" => return Ok((FieldRef::UpdatedAt, Kind::Time)),
        _ => (),
    }
    let found = schema.index_of(name).and_then(|index| Some((index, schema.fields.get(index)?)));
    let Some((index, field)) = found else {
        return Err(FieldFault::new(path, format!("must be a field of {}", schema.collection)));
    };
    if field.encrypted {
        return Err(FieldFault::new(path, format!("cannot be searched: {name} is encrypted")));
    }
    let kind = match &field.kind {
        Kind::Json { .. } => {
            return Err(FieldFault::new(path, format!("cannot be searched: {name} is JSON")));
        }
        Kind::Text { .. } | Kind::Choice(_) => text,
        Kind::Int { .. } => Kind::Int { min: i64::MIN, max: i64::MAX },
        Kind::Decimal { .. } => {
            use rust_decimal::Decimal;
            Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: Decimal::MAX_SCALE }
        }
        Kind::Bool => Kind::Bool,
        Kind::Time => Kind::Time,
    };
    Ok((FieldRef::Field(index), kind))
}

fn operand(path: &str, kind: &Kind, value: &Tree) -> Result<Value, FieldFault> {
    value_of(&Field::new(path, kind.clone()), &value.to_string())
}

#[cfg(test)]
mod tests;
