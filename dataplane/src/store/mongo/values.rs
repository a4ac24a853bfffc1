//! Values as BSON that people can query, and back without loss.
//!
//! JSON becomes BSON of the same shape. What would not come back as the same text (keys that are empty or hold `.`
//! or a leading `$`, numbers beyond 64 bits, null at the top) is kept as text in `{_json: …}`.

use bson::{Bson, DateTime, Decimal128, Document};
use rust_decimal::Decimal;
use serde_json::{Map, Number, Value as Tree};

use super::super::apply::normalised;
use crate::domain::{
    schema::Kind,
    value::{Json, Timestamp, Value},
};

/// The only key of a document that holds JSON as text.
const WRAPPER: &str = "_json";
/// MongoDB takes 100 levels, and the record itself is some.
const DEPTH_MAX: usize = 90;

/// A value as BSON; none for null, which is not stored.
pub fn to_bson(value: &Value) -> Option<Bson> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Bson::Boolean(*value),
        Value::Int(value) => Bson::Int64(*value),
        Value::Decimal(value) => decimal_to_bson(*value),
        Value::Text(value) => Bson::String(value.clone()),
        Value::Time(value) => time_to_bson(*value),
        Value::Json(value) => json_to_bson(value),
    })
}

/// A time as BSON.
pub fn time_to_bson(time: Timestamp) -> Bson {
    Bson::DateTime(DateTime::from_millis(time.0))
}

/// Every decimal of 28 digits is one of 34.
fn decimal_to_bson(value: Decimal) -> Bson {
    let text = value.normalize().to_string();
    text.parse::<Decimal128>().map_or(Bson::String(text), Bson::Decimal128)
}

/// The value in a field of a kind.
///
/// # Errors
/// What the field holds instead. A floating-point number is no decimal: it would not compare as the digits that it shows.
pub fn from_bson(kind: &Kind, bson: Option<&Bson>) -> Result<Value, String> {
    let Some(bson) = bson else { return Ok(Value::Null) };
    let value = match (kind, bson) {
        (Kind::Json { .. }, bson) => json_from_bson(bson).map(Value::Json),
        (_, Bson::Null) => Some(Value::Null),
        (Kind::Text { .. } | Kind::Choice(_), Bson::String(text)) => Some(Value::Text(text.clone())),
        (Kind::Int { .. }, bson) => int_of(bson).map(Value::Int),
        (Kind::Decimal { .. }, Bson::Decimal128(value)) => decimal_of(&value.to_string()).map(Value::Decimal),
        (Kind::Decimal { .. }, bson) => int_of(bson).map(|value| Value::Decimal(value.into())),
        (Kind::Bool, Bson::Boolean(value)) => Some(Value::Bool(*value)),
        (Kind::Time, Bson::DateTime(time)) => Some(Value::Time(Timestamp(time.timestamp_millis()))),
        _ => None,
    };
    value.map(normalised).ok_or_else(|| format!("it holds a BSON {:?}", bson.element_type()))
}

/// A whole number of either width.
pub fn int_of(bson: &Bson) -> Option<i64> {
    match bson {
        Bson::Int64(value) => Some(*value),
        Bson::Int32(value) => Some((*value).into()),
        _ => None,
    }
}

fn decimal_of(text: &str) -> Option<Decimal> {
    text.parse().ok().or_else(|| Decimal::from_scientific(text).ok())
}

fn json_to_bson(json: &Json) -> Bson {
    let plain = tree_to_bson(&json.to_value(), 0).filter(|bson| *bson != Bson::Null);
    match plain.filter(|bson| json_from_bson(bson).as_ref() == Some(json)) {
        Some(plain) => plain,
        None => Bson::Document(Document::from_iter([(WRAPPER.to_owned(), Bson::String(json.as_str().to_owned()))])),
    }
}

fn json_from_bson(bson: &Bson) -> Option<Json> {
    if let Some(text) = wrapped(bson) {
        return Json::parse(text).ok();
    }
    Some(Json::from_value(&tree_from_bson(bson)))
}

fn wrapped(bson: &Bson) -> Option<&str> {
    let document = bson.as_document().filter(|document| document.len() == 1)?;
    document.get(WRAPPER)?.as_str()
}

/// None where a part has no BSON that stands for it.
fn tree_to_bson(tree: &Tree, depth: usize) -> Option<Bson> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match tree {
        Tree::Null => Bson::Null,
        Tree::Bool(value) => Bson::Boolean(*value),
        Tree::Number(number) => match number.as_i64() {
            Some(value) => Bson::Int64(value),
            None => Bson::Double(number.as_f64().filter(|_| number.is_f64())?),
        },
        Tree::String(text) => Bson::String(text.clone()),
        Tree::Array(items) => {
            Bson::Array(items.iter().map(|item| tree_to_bson(item, depth + 1)).collect::<Option<_>>()?)
        }
        Tree::Object(members) => {
            let mut document = Document::new();
            for (name, member) in members {
                if name.is_empty() || name.starts_with('$') || name.contains(['.', '\0']) {
                    return None;
                }
                document.insert(name, tree_to_bson(member, depth + 1)?);
            }
            Bson::Document(document)
        }
    })
}

/// What other programs wrote in types that JSON does not have is shown as text.
fn tree_from_bson(bson: &Bson) -> Tree {
    match bson {
        Bson::Null | Bson::Undefined => Tree::Null,
        Bson::Boolean(value) => Tree::Bool(*value),
        Bson::Int32(value) => Tree::from(*value),
        Bson::Int64(value) => Tree::from(*value),
        Bson::Double(value) => Number::from_f64(*value).map_or(Tree::Null, Tree::Number),
        Bson::String(text) => Tree::String(text.clone()),
        Bson::Array(items) => Tree::Array(items.iter().map(tree_from_bson).collect()),
        Bson::Document(document) => {
            let members = document.iter().map(|(name, member)| (name.clone(), tree_from_bson(member)));
            Tree::Object(members.collect::<Map<_, _>>())
        }
        Bson::DateTime(time) => Tree::String(Timestamp(time.timestamp_millis()).to_string()),
        Bson::ObjectId(id) => Tree::String(id.to_hex()),
        Bson::Decimal128(value) => Tree::String(value.to_string()),
        other => Tree::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schema::Shape;

    #[test]
    fn json_comes_back_byte_for_byte() {
        let kind = Kind::json(Shape::Any);
        let deep = "[".repeat(120) + &"]".repeat(120);
        let plain =
            [r#"{"a":[1,2.5,"x",null,true,{"b":-0.0}]}"#, "[]", "{}", "0.1", "1e300", "\"\"", "-9223372036854775808"];
        let odd = [
            "null",
            "18446744073709551615",
            r#"{"a.b":1}"#,
            r#"{"$set":1}"#,
            r#"{"":1}"#,
            r#"[{"x":{"a.b":1}}]"#,
            r#"{"_json":"{}"}"#,
            &deep,
        ];
        for (texts, is_plain) in [(&plain[..], true), (&odd[..], false)] {
            for text in texts {
                let value = Value::Json(Json::parse(text).unwrap());
                let bson = to_bson(&value).unwrap();
                assert_eq!(wrapped(&bson).is_none(), is_plain, "{text}");
                assert_eq!(from_bson(&kind, Some(&bson)), Ok(value), "{text}");
            }
        }
    }

    #[test]
    fn decimals_are_exact_and_floats_are_none() {
        let kind = Kind::money(0);
        for text in ["0", "19.9", "-0.0001", "99999999999.9999", "100"] {
            let value = Value::Decimal(text.parse().unwrap());
            let bson = to_bson(&value).unwrap();
            assert!(matches!(bson, Bson::Decimal128(_)));
            assert_eq!(from_bson(&kind, Some(&bson)), Ok(value));
        }
        assert_eq!(from_bson(&kind, Some(&Bson::Int32(7))), Ok(Value::Decimal(7.into())));
        let exponent = Bson::Decimal128("1E+2".parse().unwrap());
        assert_eq!(from_bson(&kind, Some(&exponent)), Ok(Value::Decimal(100.into())));
        assert!(from_bson(&kind, Some(&Bson::Double(0.1))).is_err());
    }
}
