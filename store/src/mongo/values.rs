//! Values as BSON that people can query, and back without loss.
//!
//! JSON becomes BSON of the same shape. What would not come back as the same text (keys that are empty or
//! hold `.` or a leading `$`, numbers beyond 64 bits, null at the top) is kept as text in `{_json: …}`.

use bson::{Binary, Bson, DateTime, Decimal128, Document, RawBson, RawDocument, spec::BinarySubtype};
use rust_decimal::Decimal;
use serde_json::{Map, Number, Value as Tree};

use super::super::{
    apply::normalised,
    odd::{Odd, short_decimal},
};
use model::{
    schema::Kind,
    value::{Json, Timestamp, Value},
    wide::Wide,
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
        // what has more than 34 digits is not written, and so only compared
        Value::Wide(value) => match value.to_string().parse::<Decimal128>() {
            Ok(exact) => Bson::Decimal128(exact),
            Err(_) => Bson::Double(value.to_string().parse().unwrap_or(f64::NAN)),
        },
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

/// Whether a document holds the value exactly: a number of at most 34 digits.
pub fn is_held(value: &Value) -> bool {
    !matches!(value, Value::Wide(wide) if wide.to_string().parse::<Decimal128>().is_err())
}

/// The double that stands for the same short decimal, as other programs store it.
pub fn double_of(value: &Value) -> Option<f64> {
    let Value::Decimal(decimal) = value else { return None };
    let double = decimal.to_string().parse().ok()?;
    (short_decimal(double).as_ref() == Some(value)).then_some(double)
}

/// The value in a field of a kind.
///
/// # Errors
/// What the field holds instead. A floating-point number is the short decimal that it stands for, if it
/// stands for one.
pub fn from_bson(kind: &Kind, bson: Option<&Bson>) -> Result<Value, Odd> {
    let Some(bson) = bson else { return Ok(Value::Null) };
    if let Some(length) = unreadable_bytes(bson) {
        return Err(Odd::new("text that is not UTF-8", length));
    }
    let value = match (kind, bson) {
        (Kind::Json { .. }, bson) => json_from_bson(bson).map(Value::Json),
        (_, Bson::Null) => Some(Value::Null),
        (Kind::Text { .. } | Kind::Choice(_), Bson::String(text)) => Some(Value::Text(text.clone())),
        (Kind::Int { .. }, bson) => whole_of(bson),
        (Kind::Decimal { .. }, Bson::Decimal128(value)) => Value::exact(&value.to_string()),
        (Kind::Decimal { .. }, Bson::Double(value)) => short_decimal(*value),
        (Kind::Decimal { .. }, bson) => int_of(bson).map(|value| Value::Decimal(value.into())),
        (Kind::Bool, Bson::Boolean(value)) => Some(Value::Bool(*value)),
        (Kind::Time, Bson::DateTime(time)) => Timestamp::checked(time.timestamp_millis()).map(Value::Time),
        _ => None,
    };
    value.map(normalised).ok_or_else(|| odd(bson))
}

/// What a field holds that has no exact meaning there.
pub fn odd(bson: &Bson) -> Odd {
    let length = match bson {
        Bson::String(text) | Bson::Symbol(text) => text.len() as u64,
        Bson::Binary(binary) => binary.bytes.len() as u64,
        Bson::Int32(_) => 4,
        Bson::ObjectId(_) => 12,
        Bson::Decimal128(_) => 16,
        Bson::Boolean(_) => 1,
        Bson::Double(_) | Bson::Int64(_) | Bson::DateTime(_) | Bson::Timestamp(_) => 8,
        other => {
            bson::serialize_to_vec(&bson::doc! { "": other.clone() }).map_or(0, |bytes| bytes.len() as u64)
        }
    };
    Odd::new(&format!("{:?}", bson.element_type()), length)
}

/// A whole number of either width, or one that is exact in another type of number.
pub fn int_of(bson: &Bson) -> Option<i64> {
    match whole_of(bson)? {
        Value::Int(value) => Some(value),
        _ => None,
    }
}

fn whole_of(bson: &Bson) -> Option<Value> {
    match bson {
        Bson::Int64(value) => Some(Value::Int(*value)),
        Bson::Int32(value) => Some(Value::Int((*value).into())),
        Bson::Double(value) => Value::whole(&whole_text(&format!("{:e}", value))?),
        Bson::Decimal128(value) => Value::whole(&whole_text(&value.to_string())?),
        _ => None,
    }
}

fn whole_text(text: &str) -> Option<String> {
    Wide::parse(text).filter(Wide::is_whole).map(|whole| whole.to_string())
}

/// Marks what stands in the place of text that is not UTF-8, or of what holds such text.
const UNREADABLE: BinarySubtype = BinarySubtype::UserDefined(0xEF);

fn unreadable_bytes(bson: &Bson) -> Option<u64> {
    match bson {
        Bson::Binary(binary) if binary.subtype == UNREADABLE => Some(binary.bytes.len() as u64),
        _ => None,
    }
}

/// The document of bytes that another program may have written: what cannot be read of it takes no other
/// field away.
pub fn document_of(raw: &RawDocument) -> Document {
    if let Ok(whole) = Document::try_from(raw) {
        return whole;
    }
    let mut document = Document::new();
    for element in raw.iter_elements().map_while(Result::ok) {
        let read = element.value().ok().and_then(|value| Bson::try_from(value).ok());
        let name = element.key().to_string();
        let bytes = || vec![0; element.value_utf8_lossy().map_or(0, |value| lossy_len(&value))];
        document.insert(
            name,
            read.unwrap_or_else(|| Bson::Binary(Binary { subtype: UNREADABLE, bytes: bytes() })),
        );
    }
    document
}

/// About how many bytes a value has that was read with other characters in the place of wrong bytes.
fn lossy_len(value: &RawBson) -> usize {
    match value {
        RawBson::String(text) => text.len(),
        RawBson::Document(document) => document.as_bytes().len(),
        RawBson::Array(items) => items.as_bytes().len(),
        _ => 0,
    }
}

fn json_to_bson(json: &Json) -> Bson {
    let plain = tree_to_bson(&json.to_value(), 0).filter(|bson| *bson != Bson::Null);
    match plain.filter(|bson| json_from_bson(bson).as_ref() == Some(json)) {
        Some(plain) => plain,
        None => Bson::Document(Document::from_iter([(
            WRAPPER.to_owned(),
            Bson::String(json.as_str().to_owned()),
        )])),
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
    use model::schema::Shape;

    #[test]
    fn json_comes_back_byte_for_byte() {
        let kind = Kind::json(Shape::Any);
        let deep = "[".repeat(120) + &"]".repeat(120);
        let plain = [
            r#"{"a":[1,2.5,"x",null,true,{"b":-0.0}]}"#,
            "[]",
            "{}",
            "0.1",
            "1e300",
            "\"\"",
            "-9223372036854775808",
        ];
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
    fn decimals_are_exact_and_floats_are_what_they_stand_for() {
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
        assert_eq!(from_bson(&kind, Some(&Bson::Double(0.1))), Ok(Value::Decimal("0.1".parse().unwrap())));
        for none in [f64::NAN, f64::INFINITY, 0.1 + 0.2] {
            assert_eq!(from_bson(&kind, Some(&Bson::Double(none))), Err(Odd::new("Double", 8)));
        }
    }

    #[test]
    fn whole_numbers_are_read_from_every_type_of_number() {
        let kind = Kind::Int { min: i64::MIN, max: i64::MAX };
        let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
        for (bson, text) in [
            (Bson::Int32(5), "5"),
            (Bson::Double(5.0), "5"),
            (Bson::Double(-0.0), "0"),
            (Bson::Double(9_007_199_254_740_992.0), "9007199254740992"),
            (decimal("5.00"), "5"),
            (decimal("1E+3"), "1000"),
            (decimal("18446744073709551615"), "18446744073709551615"),
        ] {
            assert_eq!(from_bson(&kind, Some(&bson)), Ok(Value::whole(text).unwrap()), "{bson:?}");
        }
        for none in [Bson::Double(5.5), Bson::Double(1e300), decimal("0.1"), decimal("NaN"), "5".into()] {
            assert!(from_bson(&kind, Some(&none)).is_err(), "{none:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_takes_only_itself_away() {
        let mut bytes = bson::serialize_to_vec(
            &bson::doc! { "_id": "k", "title": "xyz", "n": { "a": "xyz" }, "size": 7 },
        )
        .unwrap();
        for at in 0..bytes.len() - 2 {
            if &bytes[at..at + 3] == b"xyz" {
                bytes[at] = 0xff;
            }
        }
        let document = document_of(RawDocument::from_bytes(&bytes).unwrap());
        assert_eq!(document.get("_id"), Some(&Bson::String("k".to_owned())));
        assert_eq!(document.get("size"), Some(&Bson::Int32(7)));
        for (name, kind) in [("title", Kind::text(10)), ("n", Kind::json(Shape::Any))] {
            let odd = from_bson(&kind, document.get(name)).unwrap_err();
            assert_eq!(odd.kind, "text that is not UTF-8");
            assert!(odd.length > 0);
        }
    }
}
