//! The body of a batch: `{atomic, operations: [{op, id?, version?, data?}]}`.

use serde_json::value::RawValue;

use super::{
    fault::FieldFault,
    field::key_of,
    json::{BodyError, members},
    key::{Key, Version},
    strict::shorten,
};

/// The most operations of one batch.
pub const OPERATIONS_MAX: usize = 1_000;

/// Some operations on one collection.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Whether all are done or none.
    pub atomic: bool,
    /// The operations, in order.
    pub operations: Vec<Operation<'a>>,
}

/// One operation.
#[derive(Debug)]
pub struct Operation<'a> {
    /// What is done.
    pub op: Op,
    /// To which record; a create may leave it out.
    pub key: Option<Key>,
    /// The version that the record must have.
    pub version: Option<Version>,
    /// The body of a create, update or patch, as JSON.
    pub data: &'a str,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// As POST.
    Create,
    /// As PUT.
    Update,
    /// As PATCH.
    Patch,
    /// As DELETE.
    Delete,
}

impl Op {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Reads the body of a batch. What is wrong within `data` is left to each operation.
///
/// # Errors
/// See [`BodyError`].
pub fn parse_batch(body: &[u8]) -> Result<Batch<'_>, BodyError> {
    let mut faults = Vec::new();
    let (mut atomic, mut operations) = (false, None);
    for (name, raw) in members(body, &mut faults)? {
        match name.as_str() {
            "atomic" => match raw.get() {
                "true" => atomic = true,
                "false" => (),
                _ => faults.push(FieldFault::new(name, "must be true or false")),
            },
            "operations" => operations = Some(list(raw.get(), &mut faults)),
            _ => faults.push(FieldFault::new(
                shorten(&name),
                "is not a field of a batch: it has atomic, operations",
            )),
        }
    }
    let known = faults.iter().any(|fault| fault.field.starts_with("operations"));
    if operations.is_none() && !known {
        faults.push(FieldFault::new("operations", "is required"));
    }
    match (faults.is_empty(), operations) {
        (true, Some(operations)) => Ok(Batch { atomic, operations }),
        _ => {
            faults.truncate(100);
            Err(BodyError::Invalid(faults))
        }
    }
}

fn list<'a>(raw: &'a str, faults: &mut Vec<FieldFault>) -> Vec<Operation<'a>> {
    let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(raw) else {
        faults.push(FieldFault::new("operations", "must be a list of objects"));
        return Vec::new();
    };
    if items.is_empty() || items.len() > OPERATIONS_MAX {
        faults.push(FieldFault::new("operations", format!("must have 1 to {OPERATIONS_MAX} operations")));
        return Vec::new();
    }
    items.iter().enumerate().filter_map(|(index, item)| operation(index, item.get(), faults)).collect()
}

fn operation<'a>(index: usize, raw: &'a str, faults: &mut Vec<FieldFault>) -> Option<Operation<'a>> {
    let at = |name: &str| format!("operations[{index}].{name}");
    let mut own = Vec::new();
    let Ok(found) = members(raw.as_bytes(), &mut own) else {
        faults.push(FieldFault::new(format!("operations[{index}]"), "must be an object"));
        return None;
    };
    let (mut op, mut key, mut version, mut data) = (None, None, None, None);
    for (name, raw) in found {
        let raw = raw.get();
        match name.as_str() {
            "op" => match raw {
                r#""create""# => op = Some(Op::Create),
                r#""update""# => op = Some(Op::Update),
                r#""patch""# => op = Some(Op::Patch),
                r#""delete""# => op = Some(Op::Delete),
                _ => own.push(FieldFault::new("op", "must be create, update, patch or delete")),
            },
            "id" => match key_of("id", raw) {
                Ok(found) => key = Some(found),
                Err(fault) => own.push(fault),
            },
            "version" => match raw.parse() {
                Ok(number) => version = Some(Version(number)),
                Err(_) => own.push(FieldFault::new("version", "must be a whole number")),
            },
            "data" => data = Some(raw),
            _ => own.push(FieldFault::new(
                shorten(&name),
                "is not a field of an operation: op, id, version, data are",
            )),
        }
    }
    own.extend(missing(op, key.is_some(), version.is_some(), data.is_some(), &own));
    if own.is_empty() {
        return Some(Operation { op: op?, key, version, data: data.unwrap_or_default() });
    }
    faults.extend(own.into_iter().map(|fault| FieldFault::new(at(&fault.field), fault.message)));
    None
}

/// What an operation lacks, or has too much of.
fn missing(op: Option<Op>, key: bool, version: bool, data: bool, known: &[FieldFault]) -> Vec<FieldFault> {
    let is_known = |name: &str| known.iter().any(|fault| fault.field == name);
    let Some(op) = op else {
        return if is_known("op") { Vec::new() } else { vec![FieldFault::new("op", "is required")] };
    };
    let mut faults = Vec::new();
    if op != Op::Create && !key && !is_known("id") {
        faults.push(FieldFault::new("id", "is required"));
    }
    if op == Op::Create && version {
        faults.push(FieldFault::new("version", "is set by the server: leave it out of a create"));
    }
    match (op, data) {
        (Op::Delete, true) => faults.push(FieldFault::new("data", "is not for a delete: leave it out")),
        (Op::Create | Op::Update | Op::Patch, false) => faults.push(FieldFault::new("data", "is required")),
        _ => (),
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_read() {
        let body = br#"{"atomic":true,"operations":[{"op":"create","data":{"price":1.10}},{"op":"delete","id":"a","version":3}]}"#;
        let batch = parse_batch(body).unwrap();
        assert!(batch.atomic);
        assert_eq!((batch.operations[0].op, batch.operations[0].data), (Op::Create, r#"{"price":1.10}"#));
        let last = &batch.operations[1];
        assert_eq!(
            (last.op, last.key.as_ref().unwrap().as_str(), last.version),
            (Op::Delete, "a", Some(Version(3)))
        );
    }

    #[test]
    fn faults_say_where_they_are() {
        for (body, field) in [
            ("{}", "operations"),
            (r#"{"operations":[]}"#, "operations"),
            (r#"{"operations":7}"#, "operations"),
            (r#"{"operations":[1]}"#, "operations[0]"),
            (r#"{"operations":[{"op":"create","data":{}}],"atomic":1}"#, "atomic"),
            (r#"{"operations":[{"op":"create","data":{}}],"mode":1}"#, "mode"),
            (r#"{"operations":[{"op":"create","op":"create","data":{}}]}"#, "operations[0].op"),
            (r#"{"operations":[{"op":"merge","data":{}}]}"#, "operations[0].op"),
            (r#"{"operations":[{"data":{}}]}"#, "operations[0].op"),
            (r#"{"operations":[{"op":"patch","data":{}}]}"#, "operations[0].id"),
            (r#"{"operations":[{"op":"patch","id":"a\u0000b","data":{}}]}"#, "operations[0].id"),
            (r#"{"operations":[{"op":"patch","id":"a"}]}"#, "operations[0].data"),
            (r#"{"operations":[{"op":"delete","id":"a","data":{}}]}"#, "operations[0].data"),
            (r#"{"operations":[{"op":"delete","id":"a","version":-1}]}"#, "operations[0].version"),
            (r#"{"operations":[{"op":"create","version":1,"data":{}}]}"#, "operations[0].version"),
            (r#"{"operations":[{"op":"delete","id":"a","colour":1}]}"#, "operations[0].colour"),
        ] {
            let Err(BodyError::Invalid(faults)) = parse_batch(body.as_bytes()) else { panic!("{body}") };
            assert_eq!(
                faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
                [field],
                "{body}"
            );
        }
        let many = format!(r#"{{"operations":[{}]}}"#, vec![r#"{"op":"delete","id":"a"}"#; 1_001].join(","));
        assert!(parse_batch(many.as_bytes()).is_err());
    }
}
