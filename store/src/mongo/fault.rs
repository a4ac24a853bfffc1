//! What can go wrong with a command, and which `StoreError` it means.
//!
//! A write whose connection broke may have happened: `Unknown`. So may one that the primary took, but that
//! too few members acknowledged. Where no server was found, or one refused, nothing happened: `Unavailable`.

use std::future::{Future, IntoFuture};

use bson::Document;
use mongodb::error::{Error, ErrorKind, WriteFailure};
use tokio::time::{Instant, timeout_at};

use super::StoreError;
use crate::confined::{PoolFault, PoolReason};
use model::fault::FieldFault;

/// The error of a document that its collection's own rules do not allow.
const NOT_VALID: i32 = 121;

/// Why a command failed.
#[derive(Debug)]
pub enum Fault {
    /// A unique index has the value already: the index.
    Taken(String),
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Taken(index) => Self::Duplicate { field: index },
            Fault::Store(error) => error,
        }
    }
}

/// Waits for a command that reads, or whose loss does no harm.
pub async fn read<T>(
    deadline: Instant,
    command: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    settle(deadline, command.into_future(), false).await
}

/// Waits for a command that writes.
pub async fn write<T>(
    deadline: Instant,
    command: impl IntoFuture<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    settle(deadline, command.into_future(), true).await
}

async fn settle<T>(
    deadline: Instant,
    command: impl Future<Output = Result<T, Error>>,
    writes: bool,
) -> Result<T, Fault> {
    match timeout_at(deadline, command).await {
        Ok(result) => result.map_err(|error| of_driver(&error, writes)),
        Err(_) => Err(lost("MongoDB did not answer in time".to_owned(), writes)),
    }
}

fn lost(why: String, writes: bool) -> Fault {
    Fault::Store(if writes { StoreError::Unknown(why) } else { StoreError::Unavailable(why) })
}

/// What an error of the driver means. Messages of the server can carry values of records: only their codes
/// are told.
pub fn of_driver(error: &Error, writes: bool) -> Fault {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == NOT_VALID => {
            not_valid(error.details.as_ref())
        }
        ErrorKind::Write(WriteFailure::WriteError(error)) => of_code(error.code, &error.message, writes),
        ErrorKind::Command(error) => of_code(error.code, &error.message, writes),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
            lost(format!("too few members acknowledged the write (error {})", error.code), writes)
        }
        ErrorKind::InsertMany(error) => match error.write_errors.iter().flatten().next() {
            Some(error) => of_code(error.code, &error.message, writes),
            None => lost("too few members acknowledged the write".to_owned(), writes),
        },
        ErrorKind::Io(error) => lost(format!("the connection broke: {error}"), writes),
        ErrorKind::InvalidResponse { .. } => lost("MongoDB gave an answer that is none".to_owned(), writes),
        ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. } => {
            Fault::Store(StoreError::Unavailable("no MongoDB server can be reached".to_owned()))
        }
        ErrorKind::Authentication { .. } => {
            Fault::Store(StoreError::Unavailable("MongoDB does not accept the sign-in".to_owned()))
        }
        ErrorKind::InvalidArgument { message, .. } | ErrorKind::IncompatibleServer { message, .. } => {
            Fault::Store(StoreError::Unsupported(message.clone()))
        }
        ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_) => {
            Fault::Store(StoreError::Corrupt("a document cannot be read".to_owned()))
        }
        _ => lost("the driver of MongoDB gave up".to_owned(), writes),
    }
}

/// What a document is refused for that the collection's own rules (`validator`) do not allow: with each field
/// that the server names, and none of the values that are in its answer, too.
fn not_valid(details: Option<&Document>) -> Fault {
    let of = |document: &Document, list: &str| -> Vec<Document> {
        let entries = document.get_array(list).into_iter().flatten();
        entries.filter_map(|entry| entry.as_document().cloned()).collect()
    };
    let rules = details.and_then(|details| details.get_document("details").ok());
    let rules = rules.map(|rules| of(rules, "schemaRulesNotSatisfied")).unwrap_or_default();
    let fields = rules.iter().flat_map(|rule| {
        let missing = rule.get_array("missingProperties").into_iter().flatten();
        let missing: Vec<String> = missing.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let named = of(rule, "propertiesNotSatisfied").into_iter();
        named.filter_map(|property| property.get_str("propertyName").ok().map(str::to_owned)).chain(missing)
    });
    let why = "is not what the rules of its collection allow";
    let faults: Vec<FieldFault> = fields.map(|field| FieldFault::new(&field, why)).collect();
    Fault::Store(match faults.is_empty() {
        true => StoreError::Unsupported("the rules of the collection do not allow this record".to_owned()),
        false => StoreError::Invalid(faults),
    })
}

fn of_code(code: i32, message: &str, writes: bool) -> Fault {
    match code {
        11000 | 11001 => Fault::Taken(index_of(message).to_owned()),
        // out of disk space, writes blocked for want of it
        14031 | 371 => full(code),
        _ if message.contains("No space left on device") || message.contains("disk is full") => full(code),
        // shutting down or stepping down in the middle of it
        91 | 189 | 11600 | 11602 => lost(format!("MongoDB answers with error {code}"), writes),
        13 => {
            let why = "the account may not do this in the collection (error 13)";
            Fault::Store(StoreError::Unprepared(PoolFault::new(PoolReason::RightMissing, why)))
        }
        // other options of an index, another index of this name, keys that it cannot hold, no collection but
        // a view
        85 | 86 | 67 | 171 | 166 | 17280 => {
            let why = format!("the collection cannot be used as it is (error {code})");
            Fault::Store(StoreError::Unprepared(PoolFault::new(PoolReason::PoolUnavailable, why)))
        }
        NOT_VALID => not_valid(None),
        // too large, no such command
        17419 | 17420 | 10334 | 59 | 2 | 9 | 14 => {
            Fault::Store(StoreError::Unsupported(format!("MongoDB refuses (error {code})")))
        }
        _ => Fault::Store(StoreError::Unavailable(format!("MongoDB answers with error {code}"))),
    }
}

fn full(code: i32) -> Fault {
    Fault::Store(StoreError::Full(format!("the disk of MongoDB is full (error {code})")))
}

/// The index in `… index: email_unique dup key: { email: "x" }`.
fn index_of(message: &str) -> &str {
    let (_, rest) = message.split_once("index: ").unwrap_or_default();
    let name = rest.split_whitespace().next().unwrap_or_default();
    name.rsplit_once("$").map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told() {
        let full = [
            of_code(14031, "OutOfDiskSpace", true),
            of_code(8, "Error writing: No space left on device", true),
        ];
        assert!(full.iter().all(|fault| matches!(fault, Fault::Store(StoreError::Full(_)))), "{full:?}");
    }

    /// As a server says it: of a `validator` with bounds.
    #[test]
    fn what_a_collections_own_rules_refuse_is_told_with_its_field() {
        let details = bson::doc! {
            "failingDocumentId": "a",
            "details": { "operatorName": "$jsonSchema", "schemaRulesNotSatisfied": [
                { "operatorName": "properties", "propertiesNotSatisfied": [
                    { "propertyName": "size", "details": [ { "operatorName": "maximum", "consideredValue": 4711 } ] },
                ] },
                { "operatorName": "required", "specifiedAs": {}, "missingProperties": ["name"] },
            ] },
        };
        let Fault::Store(StoreError::Invalid(faults)) = not_valid(Some(&details)) else {
            panic!("{details}")
        };
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["size", "name"]);
        assert!(!faults.iter().any(|fault| format!("{fault:?}").contains("4711")), "{faults:?}");
        let unnamed = [not_valid(None), of_code(NOT_VALID, "Document failed validation", true)];
        assert!(
            unnamed.iter().all(|fault| matches!(fault, Fault::Store(StoreError::Unsupported(_)))),
            "{unnamed:?}"
        );
    }

    #[test]
    fn the_index_of_a_duplicate_is_found_before_a_hostile_value() {
        let message = r#"E11000 duplicate key error collection: shop.users index: email_unique dup key: { email: "index: x" }"#;
        assert_eq!(index_of(message), "email_unique");
        assert_eq!(index_of("E11000 duplicate key error index: shop.users.$_id_ dup key: { : 1 }"), "_id_");
        assert_eq!(index_of("something else"), "");
    }
}
