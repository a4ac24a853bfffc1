//! A canary: where pods serve, one pod takes each change that replaces pods first. It runs beside the others, with its own settings, and is judged by
//! its figures against theirs. Until it has passed, the others and their settings stay as they are; so where it fails there is nothing to roll back but it.
//!
//! What has been seen of it is kept in an annotation of its Deployment, so that the operator may die meanwhile.

use crds::{annotations::RESTARTED_AT, settings::Settings};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Component, Target, config_map, deployment, digest, last_good::Former};
use crate::{
    child::{Child, ChildKind, ChildRef, Live, annotation, label},
    observe::{ObservedPod, report::RequestsReport},
    validate::Group,
};

mod judge;
#[cfg(test)]
mod tests;

use judge::Figures;

/// For how long a canary is watched once it is ready.
const WATCHED: SignedDuration = SignedDuration::from_secs(15);
/// How much longer it may take where the pod is not ready at the end of that.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// How long it may take to start: longer than a warm-up.
const START_MAX: SignedDuration = SignedDuration::from_secs(150);
/// How long it may look as if it could never start.
const FAILING_MAX: SignedDuration = SignedDuration::from_secs(20);

/// What a change that replaces pods has come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// Its canary starts, or is watched. What it is.
    Running(String),
    /// Its canary did worse than the others: how.
    Failed(String),
    /// It may go on. What its canary did.
    Passed(String),
}

/// The trial of a change, and the children that it needs.
pub(super) struct Canary {
    pub trial: Trial,
    pub children: Vec<Child>,
}

/// What has been seen of a canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    /// Since when it is watched, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// What the others had counted then.
    others: Figures,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// The canary of the change; none where no pod that serves would be replaced.
pub(super) fn canary(target: &Target<'_>) -> Option<Canary> {
    let group = target.validated.groups.iter().find(|group| needs_canary(target, group))?;
    let key = key(target);
    let former = tried(target, group, &key).map(record).unwrap_or_default();
    let (record, trial) = step(target, group, &key, former);
    let children = vec![settings(target, group), pods(target, group, &key, &record)];
    Some(Canary { trial, children })
}

/// Whether the object is part of a canary.
pub fn is_canary(live: &Live) -> bool {
    live.object.labels().contains_key(label::CANARY)
}

/// Identifies the pods of a Deployment: a change of it replaces them. A wish to restart them is no change of what they run.
pub(super) fn identity(template: &Value) -> String {
    let mut template = template.clone();
    if let Some(annotations) = template.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(RESTARTED_AT);
    }
    digest(&template)
}

/// Whether the group's pods would be replaced by others, and one of them serves, or would if somebody had not taken their Deployment away; what has been
/// tried stays so whatever becomes of them. A group that has the canary's name goes without, and so does a change to TLS or from it: clients speak to all
/// pods in one way, so one of the other kind would fail its part of them.
fn needs_canary(target: &Target<'_>, group: &Group) -> bool {
    let running = target.observed.running.as_ref().and_then(|running| running.settings.as_ref());
    if running.is_some_and(|running| is_over_tls(running) != is_over_tls(target.settings())) {
        return false;
    }
    let Some(former) = Former::of(target, group) else { return false };
    let changes = former.identity.is_some() && former.differs(target, group);
    let taken = target.validated.groups.iter().any(|other| other.name == format!("{}-canary", group.name));
    let counts = || target.serves(group) || former.is_gone || tried(target, group, &key(target)).is_some();
    changes && !taken && counts()
}

/// The canary's Deployment, where it is there for this change.
fn tried<'a>(target: &Target<'a>, group: &Group, key: &str) -> Option<&'a Live> {
    let reference = reference(target, group);
    let live = target.observed.children.iter().find(|live| live.reference == reference)?;
    (live.annotation(annotation::CANARY) == Some(key)).then_some(live)
}

fn is_over_tls(settings: &Settings) -> bool {
    settings.security.tls_secret.is_some()
}

/// Identifies the change: of all groups' pods, and of the wish to try it again.
fn key(target: &Target<'_>) -> String {
    let settings = super::settings_name(target.name());
    let templates =
        target.validated.groups.iter().map(|group| identity(&deployment::template(target, group, &settings)));
    let again = target.observed.service.annotations().get(RESTARTED_AT);
    digest(&json!([templates.collect::<Vec<_>>(), again]))
}

fn record(live: &Live) -> Record {
    live.annotation(annotation::CANARY_RECORD).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The pods of the group that run on.
pub(super) fn others<'a>(target: &Target<'a>, group: &Group) -> impl Iterator<Item = &'a ObservedPod> {
    let name = group.name.clone();
    let pods = target.observed.pods.iter();
    pods.filter(move |pod| pod.group.as_ref() == Some(&name) && pod.canary.is_none() && !pod.terminating)
}

fn figures<'a>(pods: impl Iterator<Item = &'a ObservedPod>) -> Figures {
    let reports = pods.filter_map(|pod| Some(pod.report.as_ref()?.requests));
    reports.fold(Figures::default(), |sum, RequestsReport { total, errors, seconds }| Figures {
        requests: sum.requests + total,
        errors: sum.errors + errors,
        seconds: sum.seconds + seconds,
    })
}

/// What the canary shows now, after what was seen before.
fn step(target: &Target<'_>, group: &Group, key: &str, former: Record) -> (Record, Trial) {
    let (now, name) = (target.observed.at, &group.name);
    let mine = |pod: &&ObservedPod| pod.canary.as_deref() == Some(key) && !pod.terminating;
    let pod = target.observed.pods.iter().find(mine);
    let fail = |record: Record, why: String| {
        (Record { failed: Some(why.clone()), ..record }, Trial::Failed(format!("the canary of group {name} {why}")))
    };
    let running = |record: Record, what: &str| (record, Trial::Running(format!("the canary of group {name} {what}")));
    if let Some(why) = former.failed.clone() {
        return fail(former, why);
    }
    let ready = pod.filter(|pod| pod.ready && pod.report.is_some());
    let Some(since) = former.since else {
        return match (ready, pod.and_then(|pod| hopeless(pod, now))) {
            (Some(_), _) => {
                let others = figures(others(target, group));
                running(Record { since: Some(now.as_second()), others, failed: None }, "is watched")
            }
            (None, Some(why)) => fail(former, why),
            (None, None) => running(former, "starts"),
        };
    };
    let watched = now.duration_since(Timestamp::from_second(since).unwrap_or(now));
    let Some(pod) = ready else {
        let late = watched > WATCHED + PATIENCE;
        return if late { fail(former, "did not stay ready".to_owned()) } else { running(former, "is watched") };
    };
    let (mine, theirs) = (figures([pod].into_iter()), figures(others(target, group)).since(&former.others));
    match judge::worse(&mine, &theirs) {
        Some(how) => fail(former, how),
        None if watched < WATCHED => running(former, "is watched"),
        None => {
            let passed = format!("the canary of group {name} answered {}", mine.told());
            (former, Trial::Passed(passed))
        }
    }
}

/// Why waiting longer would not help; none where it may.
fn hopeless(pod: &ObservedPod, now: Timestamp) -> Option<String> {
    let age = now.duration_since(pod.created);
    match &pod.waiting {
        Some(reason) if age > FAILING_MAX && pod.is_failing() => Some(format!("does not start: {reason}")),
        _ if age > START_MAX => Some(format!("was not ready within {} s", START_MAX.as_secs())),
        _ => None,
    }
}

fn reference(target: &Target<'_>, group: &Group) -> ChildRef {
    ChildRef { kind: ChildKind::Deployment, name: target.name_of(&format!("{}-canary", group.name)) }
}

fn settings_name(target: &Target<'_>, group: &Group) -> String {
    super::settings_name(&target.name_of(&format!("{}-canary", group.name)))
}

/// The settings that the canary runs by, beside those of the others.
fn settings(target: &Target<'_>, group: &Group) -> Child {
    let labels = json!({ label::CANARY: "true" });
    config_map::named(target, settings_name(target, group), &labels, None)
}

/// One pod like those that the change would lead to; none once it has failed.
fn pods(target: &Target<'_>, group: &Group, key: &str, record: &Record) -> Child {
    let component = Component::Group(&group.name);
    let mut selector = target.selector(component);
    selector.insert(label::CANARY.to_owned(), "true".into());
    let mut template = deployment::template(target, group, &settings_name(target, group));
    template["metadata"]["labels"][label::CANARY] = "true".into();
    template["metadata"]["annotations"][annotation::CANARY] = key.into();
    let content = json!({ "spec": {
        "replicas": u32::from(record.failed.is_none()),
        "revisionHistoryLimit": 0,
        "selector": { "matchLabels": selector },
        "strategy": { "type": "Recreate" },
        "template": template,
    }});
    // A record is plain data: its serialisation cannot fail.
    let text = serde_json::to_string(record).unwrap_or_default();
    let annotations = json!({ annotation::CANARY: key, annotation::CANARY_RECORD: text });
    let labels = json!({ label::CANARY: "true" });
    target.labelled(ChildKind::Deployment, reference(target, group).name, component, &labels, annotations, content)
}
