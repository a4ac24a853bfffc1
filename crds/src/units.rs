//! Durations and byte quantities as users write them (`60s`, `256Mi`), parsed once into types that cannot be
//! wrong.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// A length of time, written as a whole number and a unit: `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// A number of bytes, written plain or with `Ki`, `Mi`, `Gi`, `Ti` (powers of 1024) or `K`, `M`, `G`, `T` or
/// `KB`, `MB`, `GB`, `TB` (powers of 1000; `k` and `kB` are `K` and `KB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

const SPAN_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: [(&str, u64); 14] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Span {
    /// Milliseconds, saturating.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Whole seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("\"{text}\" is not a duration: write a whole number and ms, s, m, h or d, as in 60s");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
        let (number, unit) = text.split_at(digits);
        let factor = SPAN_UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(fault)?.1;
        let number: u64 = number.parse().map_err(|_| fault())?;
        number.checked_mul(factor).map(Self::from_millis).ok_or_else(fault)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let (unit, factor) = SPAN_UNITS
            .iter()
            .rev()
            .find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor))
            .unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", ms / factor)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "\"{text}\" is not a size: write a whole number of bytes, or one with a unit as in 256Mi or 1GB"
            )
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| fault())?;
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let factor = BYTE_UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(fault)?.1;
        number.checked_mul(factor).map(Self).ok_or_else(fault)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            BYTE_UNITS[..4].iter().rev().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A type is written and read as the text of its `Display` and `FromStr`, with this schema.
macro_rules! text_form {
    ($type:ident, $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = deserializer.deserialize_any($crate::units::Text)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "kube")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(crate) use text_form;

text_form!(Span, { "type": "string", "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$", "maxLength": 24 });
// What passes the schema must be read: one object that cannot be would stop the watch of all of its kind.
text_form!(Bytes, {
    "x-kubernetes-int-or-string": true,
    "pattern": "^([0-9]{1,15}|[0-9]{1,7}([KMGT]i|[kKMGT]B?))$",
    "maxLength": 24,
    "minimum": 0,
    "maximum": 1_000_000_000_000_000_u64,
});

/// A string, or a whole number as its digits: YAML gives a number where a user leaves the quotes out.
pub(crate) struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a whole number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// Quantities of a pod's `resources` by their names, each a string or a whole number.
///
/// # Errors
/// What is neither.
pub(crate) fn quantities<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Quantity(String);
    impl<'de> Deserialize<'de> for Quantity {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Text).map(Self)
        }
    }
    let quantities = BTreeMap::<String, Quantity>::deserialize(deserializer)?;
    Ok(quantities.into_iter().map(|(name, Quantity(text))| (name, text)).collect())
}

/// The schema of [`quantities`].
#[cfg(feature = "kube")]
pub(crate) fn quantities_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": { "x-kubernetes-int-or-string": true, "maxLength": 32, "minimum": 0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip_in_their_largest_whole_unit() {
        for (text, ms) in [("60s", 60_000), ("1500ms", 1_500), ("10m", 600_000), ("2h", 7_200_000), ("0s", 0)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), ms);
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        assert_eq!(Span::from_secs(60).to_string(), "1m");
        for bad in ["", "s", "10", "1.5s", "-1s", "10 s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_largest_that_the_schemas_allow_can_be_read() {
        for text in ["999999999d", "999999999ms"] {
            assert!(text.parse::<Span>().is_ok(), "{text}");
        }
        for text in ["9999999Ti", "9999999T", "9999999TB", "999999999999999"] {
            assert!(text.parse::<Bytes>().is_ok(), "{text}");
        }
    }

    #[test]
    fn sizes_know_both_kinds_of_unit() {
        for (text, bytes) in [("256Mi", 256 << 20), ("1k", 1_000), ("0", 0), ("7", 7), ("1Gi", 1 << 30)] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string().parse::<Bytes>().unwrap(), size);
        }
        assert_eq!(serde_json::from_str::<Bytes>("1048576").unwrap(), Bytes(1 << 20), "without quotes");
        assert!(serde_json::from_str::<Span>("60").is_err(), "a time needs its unit");
        for (unit, bytes) in [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)]
        {
            for text in [format!("3{unit}"), format!("3{unit}B"), format!("3{}B", unit.to_uppercase())] {
                assert_eq!(text.parse::<Bytes>(), Ok(Bytes(3 * bytes)), "{text}");
            }
        }
        for bad in ["", "Mi", "1.5Gi", "-1", "1 Mi", "1m", "1B", "1MiB", "1Bi", "99999999999Ti"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
