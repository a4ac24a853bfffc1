//! Filters, orders and cursors as MongoDB's queries. A missing field and one that is null are the same.

use bson::{Bson, Document, doc, oid::ObjectId};

use super::{
    super::pattern::{self, Piece},
    document::{DELETED_AT, Documents, KeyForm},
    values::{double_of, time_to_bson, to_bson},
};
use model::{
    query::{Comparison, Direction, Filter, Position, Query, Start},
    schema::FieldRef,
    value::{Timestamp, Value},
};

/// The documents that a query finds, from its start on where that is a position.
pub fn condition(documents: &Documents, query: &Query) -> Document {
    let mut parts = vec![doc! { DELETED_AT: { "$exists": false } }, filter(documents, &query.filter)];
    if let Start::After(position) = &query.start {
        parts.push(after(documents, &query.order, position));
    }
    doc! { "$and": parts }
}

/// The order of a query, ties broken by the key.
pub fn order(documents: &Documents, order: &[(FieldRef, Direction)]) -> Document {
    let mut sort = Document::new();
    for (field, direction) in order {
        let name = name(documents, *field);
        // a field that is named twice is already sorted by
        if !sort.contains_key(&name) {
            sort.insert(name, if *direction == Direction::Ascending { 1 } else { -1 });
        }
    }
    if !sort.contains_key("_id") {
        sort.insert("_id", 1);
    }
    sort
}

fn filter(documents: &Documents, wanted: &Filter) -> Document {
    match wanted {
        Filter::All => all(),
        Filter::And(parts) if parts.is_empty() => all(),
        Filter::Or(parts) if parts.is_empty() => none(),
        Filter::And(parts) => doc! { "$and": list(documents, parts) },
        Filter::Or(parts) => doc! { "$or": list(documents, parts) },
        Filter::Not(part) => doc! { "$nor": [filter(documents, part)] },
        Filter::Compare(field, comparison, value) => compared(documents, *field, *comparison, value),
        Filter::In(field, values) => {
            let doubles = values.iter().filter_map(double_of).map(Bson::Double);
            let exact = values.iter().filter_map(|value| operand(documents, *field, value));
            let values: Vec<Bson> = exact.chain(doubles).collect();
            doc! { name(documents, *field): { "$in": values } }
        }
        Filter::Like(field, like) => {
            doc! { name(documents, *field): { "$regex": to_regex(like), "$options": "s" } }
        }
        Filter::Holds(field, part) => {
            doc! { name(documents, *field): { "$regex": pattern::regex_of_part(part), "$options": "s" } }
        }
        Filter::Same(field, text) => {
            doc! { name(documents, *field): { "$regex": pattern::regex_of_text(text), "$options": "s" } }
        }
        Filter::Between(field, low, high) => doc! { "$and": [
            compared(documents, *field, Comparison::Gte, low),
            compared(documents, *field, Comparison::Lte, high),
        ] },
        Filter::IsNull(field) => is_null(documents, *field),
    }
}

fn list(documents: &Documents, parts: &[Filter]) -> Vec<Document> {
    parts.iter().map(|part| filter(documents, part)).collect()
}

fn all() -> Document {
    doc! { "_id": { "$exists": true } }
}

fn none() -> Document {
    doc! { "_id": { "$in": [] } }
}

fn is_null(documents: &Documents, field: FieldRef) -> Document {
    match field {
        FieldRef::Field(_) => doc! { name(documents, field): Bson::Null },
        // keys, versions and times of a record are never null, whatever the document lacks
        _ => none(),
    }
}

/// Comparisons in MongoDB are false for another type, and so for null; but `$ne` is true for it.
fn compared(documents: &Documents, field: FieldRef, comparison: Comparison, value: &Value) -> Document {
    let double = double_of(value);
    let Some(value) = operand(documents, field, value) else { return none() };
    let name = name(documents, field);
    if let Some(double) = double {
        return compared_with_double(&name, comparison, value, double);
    }
    match comparison {
        Comparison::Eq => doc! { name: { "$eq": value } },
        Comparison::Ne => doc! { name: { "$nin": [value, Bson::Null] } },
        Comparison::Lt => doc! { name: { "$lt": value } },
        Comparison::Lte => doc! { name: { "$lte": value } },
        Comparison::Gt => doc! { name: { "$gt": value } },
        Comparison::Gte => doc! { name: { "$gte": value } },
    }
}

/// A double is shown as the short decimal that it stands for, but the server compares it as the binary number
/// that it is: it counts as equal to that decimal here.
fn compared_with_double(name: &str, comparison: Comparison, value: Bson, double: f64) -> Document {
    match comparison {
        Comparison::Eq => doc! { name: { "$in": [value, double] } },
        Comparison::Ne => doc! { name: { "$nin": [value, double, Bson::Null] } },
        Comparison::Lt => doc! { name: { "$lt": value, "$ne": double } },
        Comparison::Gt => doc! { name: { "$gt": value, "$ne": double } },
        Comparison::Lte => doc! { "$or": [{ name: { "$lte": value } }, { name: double }] },
        Comparison::Gte => doc! { "$or": [{ name: { "$gte": value } }, { name: double }] },
    }
}

/// None for null, and for a key that the collection cannot have: nothing compares with those.
fn operand(documents: &Documents, field: FieldRef, value: &Value) -> Option<Bson> {
    match (field, value) {
        (FieldRef::Key, Value::Text(key)) if documents.key != KeyForm::Text => documents.id(key),
        _ => to_bson(value),
    }
}

/// The name of a field in documents.
fn name(documents: &Documents, field: FieldRef) -> String {
    match field {
        FieldRef::Key => "_id".to_owned(),
        FieldRef::Version => documents.version.clone(),
        FieldRef::CreatedAt => "created_at".to_owned(),
        FieldRef::UpdatedAt => "updated_at".to_owned(),
        FieldRef::Field(index) => {
            documents.collection.schema.fields.get(index).map(|field| field.name.clone()).unwrap_or_default()
        }
    }
}

/// The documents that come after a place in an order, nulls first where it ascends.
fn after(documents: &Documents, order: &[(FieldRef, Direction)], position: &Position) -> Document {
    let key = Value::Text(position.key.to_string());
    let behind = compared(documents, FieldRef::Key, Comparison::Gt, &key);
    // what other programs mixed in sorts behind, and compares only with its own type
    let any_object_id = doc! { "_id": { "$gte": ObjectId::from_bytes([0; 12]) } };
    let mut later = match documents.key {
        KeyForm::Text => doc! { "$or": [behind, any_object_id] },
        KeyForm::Int => doc! { "$or": [behind, { "_id": { "$gte": "" } }, any_object_id] },
        KeyForm::ObjectId => behind,
    };
    for ((field, direction), value) in order.iter().zip(&position.values).rev() {
        let name = name(documents, *field);
        let nothing = doc! { &name: Bson::Null };
        let (beyond, same) = match (is_nothing(*field, value), direction) {
            (true, Direction::Ascending) => (doc! { &name: { "$ne": Bson::Null } }, nothing),
            (true, Direction::Descending) => (none(), nothing),
            (false, direction) => {
                let comparison =
                    if *direction == Direction::Ascending { Comparison::Gt } else { Comparison::Lt };
                let mut beyond = vec![compared(documents, *field, comparison, value)];
                if let Some(place) = operand(documents, *field, value) {
                    beyond.extend(of_other_types(&name, &place, *direction));
                }
                if *direction == Direction::Descending {
                    beyond.push(nothing);
                }
                (doc! { "$or": beyond }, compared(documents, *field, Comparison::Eq, value))
            }
        };
        later = doc! { "$or": [beyond, { "$and": [same, later] }] };
    }
    later
}

/// What sorts beyond a value since it is of another type, as other programs may have written it. Comparisons
/// see their own type alone, but the place of a cursor counts what was given after it: it all must be found
/// again.
fn of_other_types(name: &str, place: &Bson, direction: Direction) -> Vec<Document> {
    // each type as it is sorted, after null; an array is sorted by what it holds
    const TYPES: [&str; 10] =
        ["number", "string", "object", "binData", "objectId", "bool", "date", "timestamp", "regex", "maxKey"];
    let own = match place {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "number",
        Bson::String(_) => "string",
        Bson::Document(_) => "object",
        Bson::ObjectId(_) => "objectId",
        Bson::Boolean(_) => "bool",
        Bson::DateTime(_) => "date",
        _ => return Vec::new(),
    };
    let at = TYPES.iter().position(|kind| *kind == own).unwrap_or_default();
    let kinds = match direction {
        Direction::Ascending => TYPES[at + 1..].to_vec(),
        Direction::Descending => TYPES[..at].to_vec(),
    };
    let mut others = Vec::new();
    if !kinds.is_empty() {
        others.push(doc! { name: { "$type": kinds } });
    }
    // it sorts below all numbers, but is not less than any
    if own == "number" && direction == Direction::Descending {
        others.push(doc! { name: f64::NAN });
    }
    others
}

/// A pattern as a regular expression over the whole text, for the option `s`.
fn to_regex(like: &str) -> String {
    let body = pattern::write(like, |piece, out| match piece {
        Piece::Many => out.push_str(".*"),
        Piece::One => out.push('.'),
        Piece::Just(plain) if plain.is_alphanumeric() || !plain.is_ascii() => out.push(plain),
        Piece::Just(special) => out.extend(['\\', special]),
    });
    format!(r"^{body}\z")
}

/// A record without a time shows 1970, but its document sorts as one without it.
fn is_nothing(field: FieldRef, value: &Value) -> bool {
    let is_time = matches!(field, FieldRef::CreatedAt | FieldRef::UpdatedAt);
    value.is_null() || (is_time && to_bson(value) == Some(time_to_bson(Timestamp(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_type_comes_after_a_place_too() {
        let beyond = |place: Bson, direction| of_other_types("f", &place, direction);
        let kinds = |kinds: &[&str]| doc! { "f": { "$type": kinds.to_vec() } };
        let (up, down) = (Direction::Ascending, Direction::Descending);
        assert_eq!(beyond(true.into(), up), [kinds(&["date", "timestamp", "regex", "maxKey"])]);
        assert_eq!(
            beyond(true.into(), down),
            [kinds(&["number", "string", "object", "binData", "objectId"])]
        );
        assert_eq!(beyond("x".into(), down), [kinds(&["number"])]);
        let below = beyond(7_i64.into(), down);
        assert!(matches!(&below[..], [nan] if nan.get_f64("f").is_ok_and(f64::is_nan)), "{below:?}");
    }

    #[test]
    fn a_pattern_takes_its_characters_as_they_are() {
        assert_eq!(to_regex(r"a%_\%*[|.\"), r"^a.*.\%\*\[\|\.\\\z");
    }
}
