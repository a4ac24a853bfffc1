//! What pods are told of what they have mounted, and from which versions on.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

/// What a pod has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The ConfigMap with the settings.
    Settings,
    /// The Secrets.
    Secrets,
}

/// The versions of the Secrets, and when the operator first saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The hash of their resource versions.
    pub version: String,
    /// Pods that were created later have mounted them.
    pub since: Timestamp,
}

/// What a pod was last told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The hash of the settings, or the versions of the Secrets.
    pub edition: String,
    /// How often it was told of this one.
    pub attempt: u32,
    /// When the last time was.
    pub at: Timestamp,
}

/// A pod to tell.
#[derive(Debug, PartialEq)]
pub struct Notification {
    /// The pod's name.
    pub pod: String,
    /// Of what.
    pub subject: Subject,
    /// What to tell it.
    pub notice: Notice,
}

impl Notice {
    /// From the two annotations of a pod.
    pub fn parse(edition: &str, record: Option<&str>) -> Self {
        let parsed = record.and_then(|record| record.split_once('@')).and_then(|(attempt, second)| {
            Some((attempt.parse().ok()?, Timestamp::from_second(second.parse().ok()?).ok()?))
        });
        let (attempt, at) = parsed.unwrap_or((1, Timestamp::UNIX_EPOCH));
        Self { edition: edition.to_owned(), attempt, at }
    }

    /// The second of the two annotations; the first is the edition.
    pub fn record(&self) -> String {
        format!("{}@{}", self.attempt, self.at.as_second())
    }
}

impl Edition {
    /// From the annotation of the ConfigMap.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, since) = text.split_once('@')?;
        Some(Self { version: version.to_owned(), since: Timestamp::from_second(since.parse().ok()?).ok()? })
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.version, self.since.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::now;

    #[test]
    fn annotations_that_somebody_else_wrote_do_no_harm() {
        for telling in [None, Some(""), Some("x@y"), Some("1@999999999999999999")] {
            assert_eq!(Notice::parse("h", telling).attempt, 1, "{telling:?}");
        }
    }

    #[test]
    fn an_edition_is_read_as_it_was_written() {
        let edition = Edition { version: "1a2b".to_owned(), since: now() };
        assert_eq!(Edition::parse(&edition.to_string()), Some(edition));
        for text in ["", "1a2b", "1a2b@", "1a2b@999999999999999999"] {
            assert_eq!(Edition::parse(text), None, "{text}");
        }
    }
}
