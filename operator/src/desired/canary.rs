//! A canary: where pods serve, one pod takes each change that replaces pods first. It runs beside the others,
//! with its own settings, and is judged by its figures against theirs. Until it has passed, the others and
//! their settings stay as they are; so where it fails there is nothing to roll back but it.
//!
//! What has been seen of it is kept in an annotation of its Deployment, so that the operator may die
//! meanwhile.

use crds::{annotations::RESTARTED_AT, settings::Settings};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Component, Target, config_map, deployment, digest, last_good::Former};
use crate::{
    child::{Child, ChildKind, ChildRef, Live, annotation, label},
    observe::ObservedPod,
    validate::Group,
};

mod judge;
#[cfg(test)]
mod tests;
mod watch;

use watch::Record;

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

/// The canary of the change; none where no pod that serves would be replaced. Each group that it would
/// replace pods of has its own, one after the other.
pub(super) fn canary(target: &Target<'_>) -> Option<Canary> {
    let key = key(target);
    let (mut children, mut passed) = (Vec::new(), Vec::new());
    for group in target.validated.groups.iter().filter(|group| needs_canary(target, group)) {
        let reference = reference(target, group);
        let live = target.observed.children.iter().find(|live| live.reference == reference);
        let (record, trial) = watch::step(target, group, &key, live);
        children.extend([settings(target, group), pods(target, group, &key, &record)]);
        match trial {
            Trial::Passed(what) => passed.push(what),
            trial => return Some(Canary { trial, children }),
        }
    }
    (!passed.is_empty()).then(|| Canary { trial: Trial::Passed(passed.join("; ")), children })
}

/// Whether the object is part of a canary.
pub fn is_canary(live: &Live) -> bool {
    live.object.labels().contains_key(label::CANARY)
}

/// Identifies the pods of a Deployment: a change of it replaces them. A wish to restart them is no change of
/// what they run.
pub(super) fn identity(template: &Value) -> String {
    let mut template = template.clone();
    if let Some(annotations) = template.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(RESTARTED_AT);
    }
    digest(&template)
}

/// Whether the group's pods would be replaced by others, and one of them serves, or would if somebody had not
/// taken their Deployment away; what has been tried stays so whatever becomes of them. A group that has the
/// canary's name goes without, and so does a change to TLS or from it: clients speak to all pods in one way,
/// so one of the other kind would fail its part of them.
fn needs_canary(target: &Target<'_>, group: &Group) -> bool {
    let running = target.observed.running.as_ref().and_then(|running| running.settings.as_ref());
    if running.is_some_and(|running| is_over_tls(running) != is_over_tls(target.settings())) {
        return false;
    }
    let taken = target.validated.groups.iter().any(|other| other.name == format!("{}-canary", group.name));
    let tried = || tried(target, group, &key(target)).is_some();
    let needs = match Former::of(target, group) {
        Some(former) => {
            let changes = former.identity.is_some() && former.differs(target, group);
            changes && (target.serves(group) || former.is_gone || tried())
        }
        // it comes in the place of groups that go: it has another name, or they go up in it
        None => unwanted(target).any(|pod| pod.ready) || tried(),
    };
    needs && !taken
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

/// The pods of the group that run on.
pub(super) fn others<'a>(target: &Target<'a>, group: &Group) -> impl Iterator<Item = &'a ObservedPod> {
    let name = group.name.clone();
    let pods = target.observed.pods.iter();
    pods.filter(move |pod| pod.group.as_ref() == Some(&name) && pod.canary.is_none() && !pod.terminating)
}

/// The pods of groups that nobody wants any more.
pub(super) fn unwanted<'a>(target: &Target<'a>) -> impl Iterator<Item = &'a ObservedPod> {
    let is_wanted = |name: &String| target.validated.groups.iter().any(|group| group.name == *name);
    let pods = target.observed.pods.iter().filter(|pod| pod.canary.is_none() && !pod.terminating);
    pods.filter(move |pod| pod.group.as_ref().is_some_and(|name| !is_wanted(name)))
}

/// Whom the group's canary is compared with: the pods of the group that run on, and of a new group those that
/// it replaces.
fn rest<'a>(target: &Target<'a>, group: &Group) -> Vec<&'a ObservedPod> {
    let own: Vec<_> = others(target, group).collect();
    if own.is_empty() { unwanted(target).collect() } else { own }
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

/// One pod like those that the change would lead to; none once it has passed or failed.
fn pods(target: &Target<'_>, group: &Group, key: &str, record: &Record) -> Child {
    let component = Component::Group(&group.name);
    let mut selector = target.selector(component);
    selector.insert(label::CANARY.to_owned(), "true".into());
    let mut template = deployment::template(target, group, &settings_name(target, group));
    template["metadata"]["labels"][label::CANARY] = "true".into();
    template["metadata"]["annotations"][annotation::CANARY] = key.into();
    let content = json!({ "spec": {
        "replicas": u32::from(!record.is_over()),
        "revisionHistoryLimit": 0,
        "selector": { "matchLabels": selector },
        "strategy": { "type": "Recreate" },
        "template": template,
    }});
    // A record is plain data: its serialisation cannot fail.
    let text = serde_json::to_string(record).unwrap_or_default();
    let annotations = json!({ annotation::CANARY: key, annotation::CANARY_RECORD: text });
    let labels = json!({ label::CANARY: "true" });
    target.labelled(
        ChildKind::Deployment,
        reference(target, group).name,
        component,
        &labels,
        annotations,
        content,
    )
}
