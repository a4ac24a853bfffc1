//! What is seen of a canary, from when it is asked for until it has passed or failed.

use std::collections::BTreeMap;

use crds::settings::BackendKind;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judge::{Figures, Verdict, judge};
use crate::{
    children::target::Target,
    model::{
        child::{Live, annotation},
        observed::ObservedPod,
        plan::Trial,
        report::{PodReport, RequestsReport, UnavailableReport},
        validated::Group,
    },
    rollout::pods::rest,
};

/// For how long a canary is watched once it is ready.
const WATCHED: SignedDuration = SignedDuration::from_secs(15);
/// The same where its figures prove nothing: it fails requests, but so do the others, or there is nobody to
/// compare it with.
const WATCHED_MAX: SignedDuration = SignedDuration::from_secs(105);
/// How much longer it may take where the pod is not ready.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// How long it may take to start, its pod being made included: longer than a warm-up.
const START_MAX: SignedDuration = SignedDuration::from_secs(150);
/// While the stores are away from all pods alike, how often its time begins anew.
const POSTPONED: SignedDuration = SignedDuration::from_secs(30);
/// How long it may look as if it could never start.
const FAILING_MAX: SignedDuration = SignedDuration::from_secs(20);
/// As many other pods as it is compared with: what they had counted must fit in an annotation.
const OTHERS_MAX: usize = 200;

/// What has been seen of a canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    /// When it was asked for, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<i64>,
    /// Since when it is watched, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// What it and each of the others had counted then, by the pods' names.
    baselines: BTreeMap<String, Figures>,
    /// How often its containers had been started again then.
    restarts: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    /// What it did, once it has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed: Option<String>,
}

impl Record {
    /// Whether its pod is needed no more.
    pub fn is_over(&self) -> bool {
        self.failed.is_some() || self.passed.is_some()
    }

    fn of(live: &Live) -> Self {
        live.annotation(annotation::CANARY_RECORD)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// The same with what the pods have counted by now.
    fn counted(self, canary: &ObservedPod, others: &[&ObservedPod]) -> Self {
        let pods = others.iter().copied().take(OTHERS_MAX).chain([canary]);
        Self { baselines: pods.filter_map(|pod| Some((pod.name.clone(), figures(pod)?))).collect(), ..self }
    }

    /// What the others have answered since; none where nobody can be compared: of one who came, went, is
    /// silent or began anew nothing is known.
    fn theirs(&self, others: &[&ObservedPod]) -> Option<Figures> {
        let since = |pod: &&ObservedPod| figures(pod)?.since(self.baselines.get(&pod.name)?);
        others.iter().filter_map(since).reduce(Figures::plus)
    }

    /// What the canary has answered since.
    fn its(&self, canary: &ObservedPod) -> Figures {
        let (now, before) = (figures(canary).unwrap_or_default(), self.baselines.get(&canary.name));
        before.and_then(|before| now.since(before)).unwrap_or(now)
    }

    fn fail(self, name: &str, why: String) -> (Self, Trial) {
        (
            Self { failed: Some(why.clone()), ..self },
            Trial::Failed(format!("the canary of group {name} {why}")),
        )
    }
}

/// What the canary shows now, after what was seen before.
pub(super) fn step(target: &Target<'_>, group: &Group, key: &str, live: Option<&Live>) -> (Record, Trial) {
    let (now, name) = (target.observed.at, &group.name);
    let ours = live.filter(|live| live.annotation(annotation::CANARY) == Some(key));
    let mut record = ours.map(Record::of).unwrap_or_default();
    record.asked.get_or_insert(now.as_second());
    let running =
        |record: Record, what: &str| (record, Trial::Running(format!("the canary of group {name} {what}")));
    if let Some(why) = record.failed.clone() {
        return record.fail(name, why);
    }
    if let Some(what) = record.passed.clone() {
        return (record, Trial::Passed(what));
    }
    let mine = |pod: &&ObservedPod| pod.canary.as_deref() == Some(key) && pod.group.as_ref() == Some(name);
    let pod = target.observed.pods.iter().find(|pod| mine(pod) && !pod.terminating);
    let ready = pod.filter(|pod| pod.ready && pod.report.is_some());
    let rest = rest(target, group);
    let stores_away = ready.is_none() && lack_a_store(target, &rest);
    if stores_away && passed(record.asked, now) > POSTPONED {
        // No pod could become ready now: that is not the change's fault, and it begins anew when they are
        // back.
        record = Record { asked: Some(now.as_second()), ..Record::default() };
    }
    if let Some(pod) = pod.filter(|pod| pod.ready && is_out_of_sight(pod, &rest)) {
        return unseen(record, name, pod, now);
    }
    if record.since.is_none() {
        return match (ready, hopeless(pod, ours, passed(record.asked, now), now)) {
            (Some(pod), _) => {
                let record = Record { since: Some(now.as_second()), restarts: pod.restarts, ..record };
                running(record.counted(pod, &rest), "is watched")
            }
            (None, Some(why)) => record.fail(name, why),
            (None, None) if stores_away => {
                running(record, "starts, as soon as stores are back that the others cannot reach either")
            }
            (None, None) => running(record, "starts"),
        };
    }
    let watched = passed(record.since, now);
    if pod.is_some_and(|pod| pod.restarts > record.restarts) {
        return record.fail(name, "ended, and was started again".to_owned());
    }
    let Some(pod) = ready else {
        let late = watched > WATCHED + PATIENCE && !stores_away;
        return if late {
            record.fail(name, "did not stay ready".to_owned())
        } else {
            running(record, "is watched")
        };
    };
    if let Some(why) = lost_pool(pod, &rest) {
        return record.fail(name, why);
    }
    let (its, theirs) = (record.its(pod), record.theirs(&rest));
    let long = watched >= WATCHED_MAX;
    match judge(&its, &theirs.unwrap_or_default()) {
        Verdict::Worse(how) if theirs.is_some() || long => record.fail(name, how),
        Verdict::NoWorse if watched >= WATCHED => pass(record, name, &its),
        Verdict::Unclear if long => pass(record, name, &its),
        _ if theirs.is_none() && rest.iter().any(|pod| pod.report.is_some()) => {
            running(record.counted(pod, &rest), "is watched")
        }
        _ => running(record, "is watched"),
    }
}

/// Whether neither the canary nor any other pod answers the operator: it is cut off from them, which says
/// nothing of the change.
fn is_out_of_sight(pod: &ObservedPod, others: &[&ObservedPod]) -> bool {
    pod.report.is_none() && !others.is_empty() && others.iter().all(|pod| pod.report.is_none())
}

/// Judges a canary that cannot be asked, by what the cluster says of it alone.
fn unseen(record: Record, name: &str, pod: &ObservedPod, now: Timestamp) -> (Record, Trial) {
    let since = record.since.unwrap_or(now.as_second());
    if record.since.is_some() && pod.restarts > record.restarts {
        return record.fail(name, "ended, and was started again".to_owned());
    }
    let restarts = if record.since.is_none() { pod.restarts } else { record.restarts };
    let record = Record { since: Some(since), restarts, ..record };
    if passed(record.since, now) >= WATCHED_MAX {
        let what = format!(
            "the canary of group {name} stayed ready for {} s; no pod could be asked for figures",
            WATCHED_MAX.as_secs()
        );
        return (Record { passed: Some(what.clone()), ..record }, Trial::Passed(what));
    }
    let what = format!(
        "the canary of group {name} is ready, and is watched for {} s by that alone: no pod answers the \
         operator at port 9090 (a NetworkPolicy or a mesh may keep it out)",
        WATCHED_MAX.as_secs()
    );
    (record, Trial::Running(what))
}

/// The pool that the canary cannot serve, while the others do: one that is new, or away everywhere, is not
/// the change's fault to the others.
fn lost_pool(canary: &ObservedPod, others: &[&ObservedPod]) -> Option<String> {
    let reports = || others.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.pools);
    let is_served = |name: &str| {
        reports().any(|pool| pool.name == name)
            && !reports().any(|pool| pool.name == name && pool.unavailable.is_some())
    };
    let mut lost = canary.report.iter().flat_map(|report| &report.pools).filter(|pool| is_served(&pool.name));
    lost.find_map(|pool| {
        let UnavailableReport { reason, message } = pool.unavailable.as_ref()?;
        Some(format!("cannot serve pool {}: {message} ({reason})", pool.name))
    })
}

fn pass(record: Record, name: &str, its: &Figures) -> (Record, Trial) {
    let what = format!("the canary of group {name} answered {}", its.told());
    (Record { passed: Some(what.clone()), ..record }, Trial::Passed(what))
}

fn figures(pod: &ObservedPod) -> Option<Figures> {
    let RequestsReport { total, errors, refused, seconds } = pod.report.as_ref()?.requests;
    Some(Figures { requests: total, errors, refused, seconds })
}

/// The time since then.
fn passed(since: Option<i64>, now: Timestamp) -> SignedDuration {
    now.duration_since(since.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(now))
}

/// Why waiting longer would not help; none where it may. Its pod may be one that nobody has a place for, or
/// not even be made, for want of quota.
fn hopeless(
    pod: Option<&ObservedPod>,
    live: Option<&Live>,
    waited: SignedDuration,
    now: Timestamp,
) -> Option<String> {
    let failing = pod.filter(|pod| now.duration_since(pod.created) > FAILING_MAX && pod.is_failing());
    if let Some(reason) = failing.and_then(|pod| pod.waiting.as_ref()) {
        let why = pod.and_then(|pod| pod.cause.as_ref()).map_or(reason, |cause| &cause.message);
        return Some(format!("does not start: {why}"));
    }
    let late = waited > START_MAX;
    let why = || match (pod, live.and_then(unmade)) {
        (None, Some(why)) => format!(": {why}"),
        (None, None) => ": it has no pod".to_owned(),
        (Some(_), _) => String::new(),
    };
    late.then(|| format!("was not ready within {} s{}", START_MAX.as_secs(), why()))
}

/// Whether none of these pods reaches some store, without which a pod does not become ready.
fn lack_a_store(target: &Target<'_>, pods: &[&ObservedPod]) -> bool {
    let reports: Vec<&PodReport> = pods.iter().filter_map(|pod| pod.report.as_ref()).collect();
    let is_away = |name: &str| {
        let lacks =
            |report: &&PodReport| report.backends.iter().any(|one| one.name == name && !one.reachable);
        !reports.is_empty() && reports.iter().all(lacks)
    };
    let is_store =
        |kind: &BackendKind| matches!(kind, BackendKind::Mysql { .. } | BackendKind::Mongodb { .. });
    target.settings().backends.iter().any(|backend| is_store(&backend.kind) && is_away(&backend.name))
}

/// Why the Deployment cannot make its pods.
fn unmade(live: &Live) -> Option<&str> {
    let conditions = live.object.data.pointer("/status/conditions")?.as_array()?;
    let failure = conditions.iter().find(|one| one["type"] == "ReplicaFailure" && one["status"] == "True")?;
    failure.get("message").and_then(Value::as_str)
}
