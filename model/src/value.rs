//! The values of fields: exact, typed, and written to JSON in one way only.

use std::{cmp::Ordering, fmt, str::FromStr};

use rust_decimal::Decimal;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::wide::Wide;

/// One value of one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// No value.
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// An exact decimal number.
    Decimal(Decimal),
    /// An exact number that neither of the two holds: an unsigned one beyond 2^63, a decimal of more than 28
    /// digits.
    Wide(Wide),
    /// Text.
    Text(String),
    /// A point in time.
    Time(Timestamp),
    /// Any JSON value, in canonical form.
    Json(Json),
}

/// A point in time: milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A JSON value as canonical text: no white space, object keys sorted, so that equal values have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json(String);

/// The values of a record, in the order of its schema's fields.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Row(pub Vec<Value>);

impl Value {
    /// Appends the value as JSON.
    pub fn write_json(&self, out: &mut String) {
        use fmt::Write;
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => _ = write!(out, "{value}"),
            Self::Decimal(value) => _ = write!(out, "{value}"),
            Self::Wide(value) => _ = write!(out, "{value}"),
            Self::Text(value) => write_json_text(value, out),
            Self::Time(value) => _ = write!(out, "\"{value}\""),
            Self::Json(value) => out.push_str(value.as_str()),
        }
    }

    /// The whole number of a text: of 64 bits, with a sign or without.
    pub fn whole(text: &str) -> Option<Self> {
        if let Ok(narrow) = text.parse() {
            return Some(Self::Int(narrow));
        }
        text.parse::<u64>().ok()?;
        Wide::parse(text).map(Self::Wide)
    }

    /// Whether the number is written as this text, and not as `007` or `+7`.
    pub fn is_written(&self, text: &str) -> bool {
        self.written() == text
    }

    /// The value as JSON.
    pub fn written(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    /// The exact decimal number of a text, of at most 65 digits.
    pub fn exact(text: &str) -> Option<Self> {
        let wide = Wide::parse(text)?;
        Some(wide.narrow().map_or(Self::Wide(wide), Self::Decimal))
    }

    fn as_wide(&self) -> Option<Wide> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::Decimal(value) => Some((*value).into()),
            Self::Wide(value) => Some(value.clone()),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::Time(_) | Self::Json(_) => None,
        }
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, when it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The order that every store must agree on: null first, then by value; text by its UTF-8 bytes. Values
    /// of one field only.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Json(a), Self::Json(b)) => a.cmp(b),
            (a, b) => match (a.as_wide(), b.as_wide()) {
                (Some(a), Some(b)) => a.compare(&b),
                _ => a.rank().cmp(&b.rank()),
            },
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Decimal(_) | Self::Wide(_) => 3,
            Self::Text(_) => 4,
            Self::Time(_) => 5,
            Self::Json(_) => 6,
        }
    }
}

impl Timestamp {
    /// A time that can be written with a year of four digits.
    pub fn checked(ms: i64) -> Option<Self> {
        (-62_167_219_200_000..253_402_300_800_000).contains(&ms).then_some(Self(ms))
    }

    /// The system clock's time, to the millisecond.
    pub fn now() -> Self {
        Self((OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| Self(time.unix_timestamp_nanos().div_euclid(1_000_000) as i64))
            .map_err(|_| "must be a time as in 2026-01-31T12:00:00.000Z".to_owned())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&form).map_err(|_| fmt::Error)?)
    }
}

impl Json {
    /// Brings JSON text into canonical form. Nesting deeper than 128 levels is refused by the parser.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::from_value(&serde_json::from_str(text)?))
    }

    /// The canonical form of a value: `serde_json` keeps object keys sorted.
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self(value.to_string())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

/// Appends text as a JSON string.
pub fn write_json_text(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_milliseconds_in_utc() {
        let time: Timestamp = "2026-01-31T13:00:00.5+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.500Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert!("2026-13-01T00:00:00Z".parse::<Timestamp>().is_err());
    }

    #[test]
    fn equal_json_has_equal_bytes() {
        let a = Json::parse(r#"{ "b": [1, 2.50], "a": "é" }"#).unwrap();
        let b = Json::parse(r#"{"a":"\u00e9","b":[1,2.5]}"#).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.as_str(), r#"{"a":"é","b":[1,2.5]}"#);
    }

    #[test]
    fn decimals_keep_their_digits() {
        let mut out = String::new();
        Value::Decimal("19.90".parse().unwrap()).write_json(&mut out);
        assert_eq!(out, "19.90");
    }
}
