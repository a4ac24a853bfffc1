//! Strict reading of JSON values: no duplicate keys, no NUL, bounded depth, and no number that would be kept
//! inexactly.

use std::{cell::RefCell, fmt};

use rust_decimal::Decimal;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Tree};

use crate::fault::FieldFault;

/// The greatest whole number up to which a double holds each: 2^53 - 1.
pub const DOUBLE_MAX: i64 = (1 << 53) - 1;

/// The deepest nesting of lists and objects in a value. Document stores end at 100.
pub const DEPTH_MAX: usize = 64;

/// Reads a JSON value; `field` is what faults are called by.
///
/// # Errors
/// The first fault, with the path to it below `field`.
pub fn parse(field: &str, text: &str) -> Result<Tree, FieldFault> {
    let path = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_str(text);
    let tree = Seed { depth: 0, path: &path }.deserialize(&mut reader).map_err(|error| {
        let mut name = field.to_owned();
        for part in path.borrow().iter().rev() {
            name.push_str(part);
        }
        FieldFault::new(name, message_of(&error))
    })?;
    match inexact_number(text) {
        Some(number) => Err(FieldFault::new(
            field,
            format!("holds the number {number}, which cannot be kept exactly: send it as text"),
        )),
        None => Ok(tree),
    }
}

/// The exact decimal of a JSON number's text, trailing zeros trimmed.
///
/// # Errors
/// It is no number, or has more than 28 digits.
pub fn decimal_of(text: &str) -> Result<Decimal, String> {
    let no_number = || "must be a decimal number as in 19.99".to_owned();
    let too_long = || "has more than 28 digits".to_owned();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| no_number())?),
        None => (text, 0),
    };
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let sound = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !sound(whole) || !sound(fraction) {
        return Err(no_number());
    }
    let mut value = Decimal::from_str_exact(mantissa).map_err(|_| too_long())?.normalize();
    if exponent < 0 && !value.is_zero() {
        let scale = exponent.unsigned_abs().checked_add(value.scale()).ok_or_else(too_long)?;
        value.set_scale(scale).map_err(|_| too_long())?;
    }
    // Each step multiplies by ten: a number of 28 digits bears no more of them, and zero stays zero.
    let steps = if value.is_zero() { 0 } else { exponent.max(0) };
    for _ in 0..steps {
        value = value.checked_mul(Decimal::TEN).ok_or_else(too_long)?;
    }
    Ok(value.normalize())
}

/// What is wrong with a number, given its bounds and the most digits after its point.
pub fn number_fault(value: Decimal, min: Decimal, max: Decimal, scale: u32) -> Option<String> {
    if value < min || value > max {
        return Some(format!("must be from {} to {}", min.normalize(), max.normalize()));
    }
    (value.scale() > scale).then(|| format!("must have at most {scale} digits after the point"))
}

/// The parser's message without its position, which counts within the value only.
fn message_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// The first number that text storage, 64-bit integers and doubles would not all keep as it is. The text is
/// valid JSON.
fn inexact_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|b| b"+-.eE0123456789".contains(b)).count();
                let number = &text[at..at + length];
                if !is_exact(number) {
                    return Some(number.get(..40).unwrap_or(number));
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// The place after the string that starts at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn is_exact(number: &str) -> bool {
    if !number.contains(['.', 'e', 'E']) {
        return number.parse::<i64>().is_ok();
    }
    let double = number.parse::<f64>().ok().and_then(Number::from_f64);
    double.is_some_and(|double| significand(number) == significand(&double.to_string()))
}

/// A number's digits without zeros at either end, and the power of ten of the last one.
fn significand(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    if kept.trim_start_matches('0').is_empty() {
        return (String::new(), 0);
    }
    let power = exponent.parse::<i64>().unwrap_or(i64::MAX / 2) - fraction.len() as i64
        + (digits.len() - kept.len()) as i64;
    (kept.trim_start_matches('0').to_owned(), power)
}

/// Reads one value at a depth, and leaves the path to a fault, innermost part first.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    path: &'a RefCell<Vec<String>>,
}

impl Seed<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format!("is nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        without_nul(value)?;
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(below) {
                Ok(Some(item)) => list.push(item),
                Ok(None) => return Ok(Tree::Array(list)),
                Err(error) => {
                    self.path.borrow_mut().push(format!("[{}]", list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let below = self.below()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            without_nul(&key)?;
            if object.contains_key(&key) {
                self.path.borrow_mut().push(format!(".{}", shorten(&key)));
                return Err(A::Error::custom("is given twice"));
            }
            match entries.next_value_seed(below) {
                Ok(value) => object.insert(key, value),
                Err(error) => {
                    self.path.borrow_mut().push(format!(".{}", shorten(&key)));
                    return Err(error);
                }
            };
        }
        Ok(Tree::Object(object))
    }
}

/// A client's name as a message may repeat it: at most 64 characters.
pub fn shorten(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn without_nul<E: Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(E::custom("holds a NUL character")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let fault = parse("f", text).unwrap_err();
        format!("{} {}", fault.field, fault.message)
    }

    #[test]
    fn faults_name_their_path() {
        assert_eq!(fault(r#"{"a":1,"a":2}"#), "f.a is given twice");
        assert_eq!(fault(r#"{"a":[{"b":1},{"b":1,"b":2}]}"#), "f.a[1].b is given twice");
        assert_eq!(fault("[\"a\\u0000b\"]"), "f[0] holds a NUL character");
        assert_eq!(fault("{\"a\\u0000b\":1}"), "f holds a NUL character");
        assert!(fault("\"\\ud800\"").starts_with("f "));
        assert!(fault("1e400").contains("out of range"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse("f", &nested(DEPTH_MAX)).is_ok());
        assert!(fault(&nested(DEPTH_MAX + 1)).contains("deeper"));
        assert!(fault(&nested(100_000)).contains("deeper"));
    }

    #[test]
    fn numbers_are_kept_exactly_or_refused() {
        for good in [
            "0",
            "-1",
            "9223372036854775807",
            "0.1",
            "19.90",
            "0.30000000000000004",
            "1e20",
            "1E-7",
            "0.0",
            "-0.0",
        ] {
            assert!(parse("f", good).is_ok(), "{good}");
            assert!(parse("f", &format!("{{\"a 1.\":[{good}]}}")).is_ok(), "{good}");
        }
        for bad in [
            "9223372036854775808",
            "0.10000000000000000001",
            "3.14159265358979323846",
            "[1,12345678901234567890.5]",
        ] {
            assert!(fault(bad).contains("exactly"), "{bad}");
        }
        assert!(parse("f", r#""0.10000000000000000001""#).is_ok());
    }

    #[test]
    fn decimals_are_exact_and_trimmed() {
        for (text, value) in [
            ("19.90", "19.9"),
            ("1e2", "100"),
            ("1.25E-2", "0.0125"),
            ("-0", "0"),
            ("007", "7"),
            ("0e999999", "0"),
        ] {
            assert_eq!(decimal_of(text).unwrap().to_string(), value, "{text}");
        }
        for bad in [
            "",
            "-",
            "+1",
            ".5",
            "5.",
            "1_000",
            "0x1",
            "NaN",
            "1e",
            "1e999999999999",
            "1e400",
            "1e-400",
            &"9".repeat(40),
        ] {
            assert!(decimal_of(bad).is_err(), "{bad}");
        }
    }
}
