//! Telling pods about changed settings and Secrets. The kubelet looks at what is mounted at once when an
//! annotation of its pod changes, and otherwise up to a minute and a half later. It may look before it has
//! heard of the change itself, so a pod that goes on lagging is told again, a few times.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::observe::Observed;

/// After these, the kubelet's own rhythm has come by.
const ATTEMPTS_MAX: u32 = 6;
/// The same for Secrets: what is in them nobody compares, so a pod is told each time. The last is 14 seconds
/// after the first.
const SECRETS_ATTEMPTS: u32 = 4;

/// What a pod has mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
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
pub struct Told {
    /// The hash of the settings, or the versions of the Secrets.
    pub edition: String,
    /// How often it was told of this one.
    pub attempt: u32,
    /// When the last time was.
    pub at: Timestamp,
}

/// A pod to tell.
#[derive(Debug, PartialEq)]
pub struct Tell {
    /// The pod's name.
    pub pod: String,
    /// Of what.
    pub of: Of,
    /// What to tell it.
    pub told: Told,
}

impl Told {
    /// From the two annotations of a pod.
    pub fn parse(edition: &str, telling: Option<&str>) -> Self {
        let parsed = telling.and_then(|telling| telling.split_once('@')).and_then(|(attempt, second)| {
            Some((attempt.parse().ok()?, Timestamp::from_second(second.parse().ok()?).ok()?))
        });
        let (attempt, at) = parsed.unwrap_or((1, Timestamp::UNIX_EPOCH));
        Self { edition: edition.to_owned(), attempt, at }
    }

    /// The second of the two annotations; the first is the edition.
    pub fn telling(&self) -> String {
        format!("{}@{}", self.attempt, self.at.as_second())
    }
}

/// The pods that report another configuration than the wanted one. Pods that are about to be replaced are
/// left out: what they mount is not for them.
pub(super) fn lagging(observed: &Observed, configuration: &str, rolling: &str) -> Vec<Tell> {
    let pods = observed.pods.iter().filter(|pod| !pod.terminating && pod.canary.is_none());
    let pods = pods.filter(|pod| pod.rolling.as_deref() == Some(rolling));
    pods.filter(|pod| pod.report.as_ref().is_some_and(|report| report.configuration != configuration))
        .filter_map(|pod| {
            let told = next(pod.told.as_ref(), configuration, ATTEMPTS_MAX, observed.at)?;
            Some(Tell { pod: pod.name.clone(), of: Of::Settings, told })
        })
        .collect()
}

/// The pods that were there before the Secrets changed.
pub(super) fn unaware(observed: &Observed, secrets: Option<&str>) -> Vec<Tell> {
    // the first to see them writes it down, and tells with its next look
    let seen = observed.running.as_ref().and_then(|running| running.secrets.as_ref());
    let Some(Edition { version, since }) = seen.filter(|seen| Some(seen.version.as_str()) == secrets) else {
        return Vec::new();
    };
    let pods = observed.pods.iter().filter(|pod| !pod.terminating && pod.created < *since);
    pods.filter_map(|pod| {
        let told = next(pod.told_secrets.as_ref(), version, SECRETS_ATTEMPTS, observed.at)?;
        Some(Tell { pod: pod.name.clone(), of: Of::Secrets, told })
    })
    .collect()
}

/// The edition of the Secrets to write down: a new one from now on, the same as before where they did not
/// change or one is missing.
pub fn edition(observed: &Observed, secrets: Option<&str>) -> Option<Edition> {
    let before = observed.running.as_ref().and_then(|running| running.secrets.clone());
    match secrets {
        Some(version) if before.as_ref().is_none_or(|before| before.version != version) => {
            Some(Edition { version: version.to_owned(), since: observed.at })
        }
        _ => before,
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

fn next(told: Option<&Told>, edition: &str, attempts_max: u32, now: Timestamp) -> Option<Told> {
    let attempt = match told {
        Some(told) if told.edition == edition => {
            let pause = SignedDuration::from_secs(1 << told.attempt.min(attempts_max));
            let due = told.attempt < attempts_max && now.duration_since(told.at) >= pause;
            due.then_some(told.attempt + 1)?
        }
        _ => 1,
    };
    Some(Told { edition: edition.to_owned(), attempt, at: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::now;

    #[test]
    fn a_pod_is_told_again_with_growing_pauses_and_then_no_more() {
        for (attempts_max, expected) in
            [(ATTEMPTS_MAX, vec![0, 2, 6, 14, 30, 62]), (SECRETS_ATTEMPTS, vec![0, 2, 6, 14])]
        {
            let (mut last, mut told_at) = (None, Vec::new());
            for second in 0..600 {
                let time = now() + SignedDuration::from_secs(second);
                if let Some(told) = next(last.as_ref(), "h", attempts_max, time) {
                    told_at.push(second);
                    last = Some(Told::parse(&told.edition, Some(&told.telling())));
                }
            }
            assert_eq!(told_at, expected);
            assert_eq!(next(last.as_ref(), "other", attempts_max, now()).unwrap().attempt, 1);
        }
    }

    #[test]
    fn annotations_that_somebody_else_wrote_do_no_harm() {
        for telling in [None, Some(""), Some("x@y"), Some("1@999999999999999999")] {
            assert_eq!(Told::parse("h", telling).attempt, 1, "{telling:?}");
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
