//! The values of single fields from the text of JSON values: kinds, forms and bounds.

use std::borrow::Cow;

use serde_json::Value as Tree;

use super::{
    fault::FieldFault,
    key::Key,
    schema::{Field, Form, Kind, Shape},
    strict::{self, DOUBLE_MAX, decimal_of, number_fault},
    value::{Json, Timestamp, Value},
};

/// The value of a field from the text of a JSON value; null for `null`.
///
/// # Errors
/// What is wrong with it.
pub fn value_of(field: &Field, raw: &str) -> Result<Value, FieldFault> {
    if raw == "null" {
        return Ok(Value::Null);
    }
    let fault = |message: String| FieldFault::new(&field.name, message);
    match &field.kind {
        Kind::Text { max, form } => {
            let text = text_of(&field.name, raw)?;
            text_fault(&text, *max, *form, field.required)
                .map_or(Ok(Value::Text(text.into_owned())), |m| Err(fault(m)))
        }
        Kind::Int { min, max } => {
            let text = if raw.starts_with('"') { text_of(&field.name, raw)? } else { Cow::Borrowed(raw) };
            match int_of(&text, *min, *max) {
                Err(why) => {
                    let wide =
                        (field.kind.is_unbounded() && is_whole(&text)).then(|| Value::whole(&text)).flatten();
                    wide.ok_or_else(|| fault(why))
                }
                Ok(value) => Ok(Value::Int(value)),
            }
        }
        Kind::Decimal { min, max, scale } => {
            let text = if raw.starts_with('"') { text_of(&field.name, raw)? } else { Cow::Borrowed(raw) };
            let value = match decimal_of(&text) {
                Ok(value) => value,
                Err(why) if field.kind.is_unbounded() => return wide_of(&text).ok_or_else(|| fault(why)),
                Err(why) => return Err(fault(why)),
            };
            number_fault(value, *min, *max, *scale).map_or(Ok(Value::Decimal(value)), |m| Err(fault(m)))
        }
        Kind::Bool => match raw {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(fault("must be true or false".to_owned())),
        },
        Kind::Json { .. } => json_value(field, &strict::parse(&field.name, raw)?),
        Kind::Time => time_of(&field.name, raw),
        Kind::Choice(words) => {
            let text = text_of(&field.name, raw)?;
            if words.contains(&&*text) {
                Ok(Value::Text(text.into_owned()))
            } else {
                Err(fault(format!("must be one of {}", words.join(", "))))
            }
        }
    }
}

/// The value that a field is to get, from the text of a JSON value: as [`value_of`], and such as every reader
/// can be shown.
///
/// # Errors
/// What is wrong with it.
pub fn written(field: &Field, raw: &str) -> Result<Value, FieldFault> {
    let value = value_of(field, raw)?;
    if field.is_beyond_doubles(&value) {
        let message = format!(
            "must be from -{DOUBLE_MAX} to {DOUBLE_MAX}: many readers of JSON round other numbers. \
             A pool whose field says `json: String` takes and shows any 64 bits, as text"
        );
        return Err(FieldFault::new(&field.name, message));
    }
    Ok(value)
}

/// A key from the text of a JSON value.
///
/// # Errors
/// What is wrong with it.
pub fn key_of(name: &str, raw: &str) -> Result<Key, FieldFault> {
    text_of(name, raw)?.parse().map_err(|message: String| FieldFault::new(name, message))
}

/// A point in time from the text of a JSON value.
///
/// # Errors
/// What is wrong with it.
pub fn time_of(name: &str, raw: &str) -> Result<Value, FieldFault> {
    let time: Timestamp =
        text_of(name, raw)?.parse().map_err(|message: String| FieldFault::new(name, message))?;
    // The years 1000 to 9999 are what every store can hold.
    if !(-30_610_224_000_000..253_402_300_800_000).contains(&time.0) {
        return Err(FieldFault::new(name, "must be a time from the year 1000 to 9999"));
    }
    Ok(Value::Time(time))
}

fn text_of<'a>(name: &str, raw: &'a str) -> Result<Cow<'a, str>, FieldFault> {
    if !raw.starts_with('"') {
        return Err(FieldFault::new(name, "must be text"));
    }
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_str(raw)
        .map_err(|_| FieldFault::new(name, "holds an escape that is no character"))?;
    Ok(Cow::Owned(text))
}

fn text_fault(text: &str, max: usize, form: Form, required: bool) -> Option<String> {
    if text.contains('\0') {
        return Some("holds a NUL character".to_owned());
    }
    if required && text.is_empty() {
        return Some("must not be empty".to_owned());
    }
    if text.chars().count() > max {
        return Some(format!("must have at most {max} characters"));
    }
    match form {
        Form::Any => None,
        Form::Email => (!is_email(text)).then(|| "must be an e-mail address".to_owned()),
        Form::Currency => (text.len() != 3 || !text.bytes().all(|byte| byte.is_ascii_uppercase()))
            .then(|| "must be a currency code of ISO 4217: three capital letters".to_owned()),
        Form::Key => Key::plain_fault(text),
    }
}

/// One `@` between a local part and a domain of at least two labels; no white space. Whether it can be
/// reached only mail can tell.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\\\"@".contains(c);
    (1..=64).contains(&local.chars().count())
        && text.chars().filter(|c| *c != '@').all(plain)
        && local.chars().all(plain)
        && domain.contains('.')
        && domain.split('.').all(label)
}

/// A decimal that 28 digits do not hold. The text of a JSON number or of the same form.
fn wide_of(text: &str) -> Option<Value> {
    let sound = text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit());
    Value::exact(text).filter(|_| sound)
}

/// Digits, perhaps after a minus sign.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn int_of(raw: &str, min: i64, max: i64) -> Result<i64, String> {
    if !is_whole(raw) {
        return Err("must be a whole number".to_owned());
    }
    raw.parse()
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| format!("must be from {min} to {max}"))
}

/// A JSON field's value from a tree.
///
/// # Errors
/// It has not the field's shape or is too long.
pub fn json_value(field: &Field, tree: &Tree) -> Result<Value, FieldFault> {
    let Kind::Json { max, shape } = field.kind else { return Ok(Value::Null) };
    let fault = |message: String| Err(FieldFault::new(&field.name, message));
    let fits = match shape {
        Shape::Any => !tree.is_null(),
        Shape::Object => tree.is_object(),
        Shape::List => tree.is_array(),
        Shape::Strings => tree.as_array().is_some_and(|list| list.iter().all(Tree::is_string)),
    };
    if !fits {
        return fault(match shape {
            Shape::Any => "must not be null".to_owned(),
            Shape::Object => "must be an object".to_owned(),
            Shape::List => "must be a list".to_owned(),
            Shape::Strings => "must be a list of strings".to_owned(),
        });
    }
    let json = Json::from_value(tree);
    if json.as_str().len() > max {
        return fault(format!("must have at most {max} bytes as JSON"));
    }
    Ok(Value::Json(json))
}
