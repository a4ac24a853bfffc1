//! What one process may take: memory, and the time that a call waits for a connection.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Span, text_form};

/// What one process may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Limits {
    /// The most resident memory of a pod: a share of its container's limit such as 85%, or a size such as
    /// 512Mi or 1GB, which that limit bounds. Caches give back first, then writes are refused. Hot.
    #[serde(default)]
    pub memory: MemoryLimit,
    /// The share of that memory, such as "0.8", above which entries that nobody asks for are dropped, each
    /// `cleanup.interval` of their pool. Left out, they are dropped however little memory is in use. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_threshold: Option<Share>,
    /// How long a call waits for a connection to MySQL. Rolling.
    #[serde(default = "default_connection_timeout")]
    pub connection_timeout: Span,
}

/// The most resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many percent of what its container may have.
    Percent(u8),
    /// So many bytes.
    Size(Bytes),
}

/// A part of a whole: more than 0, and 1 at most, to seven decimal places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    parts: u32,
}

/// As many digits as a share has behind its point.
const PLACES: usize = 7;
const WHOLE: u32 = 10_000_000;

impl Limits {
    /// Whether nothing else is said than what holds where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl MemoryLimit {
    /// The bound, in bytes, of a process whose container may have so many; none where only a share of what
    /// nobody told is known.
    pub fn bytes(self, of_container: Option<u64>) -> Option<u64> {
        match self {
            // some is left for what the kernel does not count as the process's own
            Self::Percent(percent) => of_container.map(|bytes| bytes / 100 * u64::from(percent)),
            Self::Size(Bytes(size)) => Some(of_container.map_or(size, |most| most.min(size))),
        }
    }
}

impl Share {
    /// The share of so many bytes.
    pub fn of(self, bytes: u64) -> u64 {
        u64::try_from(u128::from(bytes) * u128::from(self.parts) / u128::from(WHOLE)).unwrap_or(bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: MemoryLimit::default(),
            cleanup_threshold: None,
            connection_timeout: default_connection_timeout(),
        }
    }
}

impl Default for MemoryLimit {
    fn default() -> Self {
        Self::Percent(85)
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("\"{text}\" is no bound: write a share as in 85%, or a size as in 512Mi or 1GB");
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(fault()),
            },
            None => match text.parse() {
                Ok(Bytes(0)) | Err(_) => Err(fault()),
                Ok(size) => Ok(Self::Size(size)),
            },
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Size(size) => size.fmt(f),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("\"{text}\" is no share: write one as in 0.8, more than 0 and 1 at most");
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !matches!(whole, "" | "0" | "1") || !(1..=PLACES).contains(&places.len()) || !are_digits(places) {
            return Err(fault());
        }
        let places: u32 = format!("{places:0<PLACES$}").parse().map_err(|_| fault())?;
        let parts = if whole == "1" { WHOLE + places } else { places };
        if (1..=WHOLE).contains(&parts) { Ok(Self { parts }) } else { Err(fault()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts == WHOLE {
            return f.write_str("1");
        }
        let places = format!("{:0PLACES$}", self.parts);
        write!(f, "0.{}", places.trim_end_matches('0'))
    }
}

text_form!(MemoryLimit, {
    "x-kubernetes-int-or-string": true,
    "pattern": "^([1-9][0-9]{0,14}|[1-9][0-9]{0,6}([KMGT]i|[kKMGT]B?)|([1-9][0-9]?|100)%)$",
    "maxLength": 24,
    "minimum": 1,
    "maximum": 1_000_000_000_000_000_u64,
});
text_form!(Share, {
    "x-kubernetes-int-or-string": true,
    "pattern": "^(0?[.][0-9]{0,5}[1-9][0-9]{0,5}|1([.]0{1,6})?)$",
    "maxLength": 8,
    "minimum": 1,
    "maximum": 1,
});

fn default_connection_timeout() -> Span {
    Span::from_secs(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_share_of_the_containers_or_a_size_within_it() {
        for (text, of_container, bytes) in [
            ("85%", Some(1_000), Some(850)),
            ("85%", None, None),
            ("100%", Some(1_000), Some(1_000)),
            ("1GB", None, Some(1_000_000_000)),
            ("1Gi", Some(2 << 30), Some(1 << 30)),
            ("1Gi", Some(1_000), Some(1_000)),
            ("1048576", None, Some(1 << 20)),
        ] {
            let limit: MemoryLimit = text.parse().unwrap();
            assert_eq!(limit.bytes(of_container), bytes, "{text}");
            assert_eq!(limit.to_string().parse::<MemoryLimit>().unwrap(), limit);
        }
        for bad in ["", "%", "0%", "101%", "8.5%", "-1%", "0", "0Mi", "much", "1 GB"] {
            assert!(bad.parse::<MemoryLimit>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<MemoryLimit>("1000").unwrap(), MemoryLimit::Size(Bytes(1_000)));
    }

    #[test]
    fn a_share_is_more_than_nothing_and_no_more_than_all() {
        for (text, of_a_thousand, shown) in [
            ("0.8", 800, "0.8"),
            (".8", 800, "0.8"),
            ("0.800000", 800, "0.8"),
            ("0.05", 50, "0.05"),
            ("1", 1_000, "1"),
            ("1.0", 1_000, "1"),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.of(1_000), share.to_string().as_str()), (of_a_thousand, shown), "{text}");
        }
        // what passes the schema must be read
        for text in [".1234567", ".0000001", "0.000001", "1.000000"] {
            assert!(text.len() <= 8 && text.parse::<Share>().is_ok(), "{text}");
        }
        assert_eq!("1".parse::<Share>().unwrap().of(u64::MAX), u64::MAX);
        for bad in
            ["", ".", "0", "0.0", "1.1", "2", "80%", "-0.8", "0.8.1", "0.+8", "0,8", "30m", "0.12345678"]
        {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_left_out_has_its_default_and_a_word_that_is_wrong_is_told() {
        let limits: Limits = serde_json::from_str("{}").unwrap();
        assert!(limits.is_default());
        let said = r#"{"memory":"1Gi","cleanupThreshold":"0.8","connectionTimeout":"30s"}"#;
        let limits: Limits = serde_json::from_str(said).unwrap();
        assert_eq!(serde_json::to_string(&limits).unwrap(), said);
        assert!(!limits.is_default());
        let wrong = serde_json::from_str::<Limits>(r#"{"cleanupThreshold":"30m"}"#).unwrap_err();
        assert!(wrong.to_string().contains("as in 0.8"), "{wrong}");
    }
}
