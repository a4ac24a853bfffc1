//! Notifications of pods: their settings or Secrets have changed. The kubelet looks at what is mounted at
//! once when an annotation of its pod changes, and otherwise up to a minute and a half later. It may look
//! before it has heard of the change itself, so a pod that goes on lagging is told again, a few times.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::model::{
    notice::{Edition, Notice, Notification, Subject},
    observed::Observed,
};

/// After these, the kubelet's own rhythm has come by.
const ATTEMPTS_MAX: u32 = 6;
/// The same for Secrets: what is in them nobody compares, so a pod is told each time. The last is 14 seconds
/// after the first.
const SECRETS_ATTEMPTS: u32 = 4;

/// The pods that report another configuration than the wanted one. Pods that are about to be replaced are
/// left out: what they mount is not for them.
pub(super) fn lagging(observed: &Observed, configuration: &str, rolling: &str) -> Vec<Notification> {
    let pods = observed.pods.iter().filter(|pod| !pod.terminating && pod.canary.is_none());
    let pods = pods.filter(|pod| pod.rolling.as_deref() == Some(rolling));
    pods.filter(|pod| pod.report.as_ref().is_some_and(|report| report.configuration != configuration))
        .filter_map(|pod| {
            let notice = next(pod.notice.as_ref(), configuration, ATTEMPTS_MAX, observed.at)?;
            Some(Notification { pod: pod.name.clone(), subject: Subject::Settings, notice })
        })
        .collect()
}

/// The pods that were there before the Secrets changed.
pub(super) fn unaware(observed: &Observed, secrets: Option<&str>) -> Vec<Notification> {
    // the first to see them writes it down, and tells with its next look
    let seen = observed.running.as_ref().and_then(|running| running.secrets.as_ref());
    let Some(Edition { version, since }) = seen.filter(|seen| Some(seen.version.as_str()) == secrets) else {
        return Vec::new();
    };
    let pods = observed.pods.iter().filter(|pod| !pod.terminating && pod.created < *since);
    pods.filter_map(|pod| {
        let notice = next(pod.secrets_notice.as_ref(), version, SECRETS_ATTEMPTS, observed.at)?;
        Some(Notification { pod: pod.name.clone(), subject: Subject::Secrets, notice })
    })
    .collect()
}

fn next(last: Option<&Notice>, edition: &str, attempts_max: u32, now: Timestamp) -> Option<Notice> {
    let attempt = match last {
        Some(last) if last.edition == edition => {
            let pause = SignedDuration::from_secs(1 << last.attempt.min(attempts_max));
            let due = last.attempt < attempts_max && now.duration_since(last.at) >= pause;
            due.then_some(last.attempt + 1)?
        }
        _ => 1,
    };
    Some(Notice { edition: edition.to_owned(), attempt, at: now })
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
                if let Some(notice) = next(last.as_ref(), "h", attempts_max, time) {
                    told_at.push(second);
                    last = Some(Notice::parse(&notice.edition, Some(&notice.record())));
                }
            }
            assert_eq!(told_at, expected);
            assert_eq!(next(last.as_ref(), "other", attempts_max, now()).unwrap().attempt, 1);
        }
    }
}
