//! A canary: where pods serve, one pod takes each change that replaces pods first. It runs beside the others,
//! with its own settings, and is judged by its figures against theirs. Until it has passed, the others and
//! their settings stay as they are; so where it fails there is nothing to roll back but it.
//!
//! What has been seen of it is kept in an annotation of its Deployment, so that the operator may die
//! meanwhile.

use crds::{annotations::RESTARTED_AT, settings::Settings};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use kube::ResourceExt;
use serde_json::json;

use super::{
    last_good::Former,
    pods::{serves, unwanted},
};
use crate::{
    children::{
        config_map, deployment,
        target::{self, Component, Target, digest, labels, matching},
    },
    model::{
        child::{Child, ChildKind, ChildRef, Live, annotation, label, settings_name},
        plan::Trial,
        validated::Group,
    },
};

mod analysis;
mod judge;
#[cfg(test)]
mod tests;

use analysis::Record;

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
        let (record, trial) = analysis::step(target, group, &key, live);
        children.extend([settings(target, group), pods(target, group, &key, &record)]);
        match trial {
            Trial::Passed(what) => passed.push(what),
            trial => return Some(Canary { trial, children }),
        }
    }
    (!passed.is_empty()).then(|| Canary { trial: Trial::Passed(passed.join("; ")), children })
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
            changes && (serves(target, group) || former.is_gone || tried())
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
    let settings = settings_name(target.name());
    let templates = target
        .validated
        .groups
        .iter()
        .map(|group| deployment::identity(&deployment::template(target, group, &settings)));
    let again = target.observed.service.annotations().get(RESTARTED_AT);
    digest(&json!([templates.collect::<Vec<_>>(), again]))
}

fn reference(target: &Target<'_>, group: &Group) -> ChildRef {
    ChildRef { kind: ChildKind::Deployment, name: target.name_of(&format!("{}-canary", group.name)) }
}

fn own_settings(target: &Target<'_>, group: &Group) -> String {
    settings_name(&target.name_of(&format!("{}-canary", group.name)))
}

/// The settings that the canary runs by, beside those of the others.
fn settings(target: &Target<'_>, group: &Group) -> Child {
    config_map::named(target, own_settings(target, group), labels([(label::CANARY, "true")]), None)
}

/// One pod like those that the change would lead to; none once it has passed or failed.
fn pods(target: &Target<'_>, group: &Group, key: &str, record: &Record) -> Child {
    let component = Component::Group(&group.name);
    let mut selector = target.selector(component);
    selector.insert(label::CANARY.to_owned(), "true".to_owned());
    let mut template = deployment::template(target, group, &own_settings(target, group));
    let marked = template.metadata.get_or_insert_default();
    marked.labels.get_or_insert_default().insert(label::CANARY.to_owned(), "true".to_owned());
    marked.annotations.get_or_insert_default().insert(annotation::CANARY.to_owned(), key.to_owned());
    let spec = DeploymentSpec {
        replicas: Some(i32::from(!record.is_over())),
        revision_history_limit: Some(0),
        selector: matching(selector),
        strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
        template,
        ..DeploymentSpec::default()
    };
    // A record is plain data: its serialisation cannot fail.
    let text = serde_json::to_string(record).unwrap_or_default();
    let mut metadata = target.metadata(reference(target, group).name, component);
    metadata.labels.get_or_insert_default().insert(label::CANARY.to_owned(), "true".to_owned());
    metadata.annotations = Some(labels([(annotation::CANARY, key), (annotation::CANARY_RECORD, &text)]));
    target::child(ChildKind::Deployment, &Deployment { metadata, spec: Some(spec), ..Deployment::default() })
}
