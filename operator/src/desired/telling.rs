//! Telling pods about changed settings. The kubelet looks at a mounted ConfigMap at once when an annotation of its pod changes, and otherwise up to
//! a minute and a half later. It may look before it has heard of the change itself, so a pod that goes on lagging is told again, a few times.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::observe::{Observed, ObservedPod};

/// After these, the kubelet's own rhythm has come by.
const ATTEMPTS_MAX: u32 = 6;

/// What a pod was last told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The configuration: the hash of the settings.
    pub configuration: String,
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
    /// What to tell it.
    pub told: Told,
}

impl Told {
    /// From the two annotations of a pod.
    pub fn parse(configuration: &str, telling: Option<&str>) -> Self {
        let parsed = telling.and_then(|telling| telling.split_once('@')).and_then(|(attempt, second)| {
            Some((attempt.parse().ok()?, Timestamp::from_second(second.parse().ok()?).ok()?))
        });
        let (attempt, at) = parsed.unwrap_or((1, Timestamp::UNIX_EPOCH));
        Self { configuration: configuration.to_owned(), attempt, at }
    }

    /// The second of the two annotations; the first is the configuration.
    pub fn telling(&self) -> String {
        format!("{}@{}", self.attempt, self.at.as_second())
    }
}

/// The pods that report another configuration than the wanted one. Pods that are about to be replaced are left out: what they mount is not for them.
pub(super) fn lagging(observed: &Observed, configuration: &str, rolling: &str) -> Vec<Tell> {
    let pods = observed.pods.iter().filter(|pod| !pod.terminating && pod.canary.is_none());
    let pods = pods.filter(|pod| pod.rolling.as_deref() == Some(rolling));
    pods.filter(|pod| pod.report.as_ref().is_some_and(|report| report.configuration != configuration))
        .filter_map(|pod| Some(Tell { pod: pod.name.clone(), told: next(pod, configuration, observed.at)? }))
        .collect()
}

fn next(pod: &ObservedPod, configuration: &str, now: Timestamp) -> Option<Told> {
    let attempt = match &pod.told {
        Some(told) if told.configuration == configuration => {
            let pause = SignedDuration::from_secs(1 << told.attempt.min(ATTEMPTS_MAX));
            let due = told.attempt < ATTEMPTS_MAX && now.duration_since(told.at) >= pause;
            due.then_some(told.attempt + 1)?
        }
        _ => 1,
    };
    Some(Told { configuration: configuration.to_owned(), attempt, at: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::now;

    #[test]
    fn a_pod_is_told_again_with_growing_pauses_and_then_no_more() {
        let mut pod = ObservedPod::default();
        let mut told_at = Vec::new();
        for second in 0..600 {
            let time = now() + SignedDuration::from_secs(second);
            if let Some(told) = next(&pod, "h", time) {
                told_at.push(second);
                pod.told = Some(Told::parse(&told.configuration, Some(&told.telling())));
            }
        }
        assert_eq!(told_at, [0, 2, 6, 14, 30, 62]);
        assert_eq!(next(&pod, "other", now()).unwrap().attempt, 1);
    }

    #[test]
    fn annotations_that_somebody_else_wrote_do_no_harm() {
        for telling in [None, Some(""), Some("x@y"), Some("1@999999999999999999")] {
            assert_eq!(Told::parse("h", telling).attempt, 1, "{telling:?}");
        }
    }
}
