//! The third step: what should be there. Pure: from the validated service to complete objects, one file per
//! kind.

use std::collections::BTreeSet;

use crds::{fault::Fault, settings::Settings};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    child::{APP, Child, ChildKind, ChildRef, Live, MANAGER, annotation, label},
    desired::{
        canary::{Canary, Trial, is_canary},
        migration::{Migrating, Migration, is_migration},
        telling::{Tell, lagging, unaware},
    },
    observe::Observed,
    validate::{Group, Validated},
};

mod autoscaler;
pub mod canary;
mod certificate;
mod config_map;
pub mod deployment;
mod disruption_budget;
mod gateway;
mod giving;
mod last_good;
pub mod migration;
mod network_policy;
mod pod;
mod service;
mod service_account;
pub mod telling;
#[cfg(test)]
mod tests;

/// What to do to the cluster.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Why some or all children are left as they are.
    pub held: Option<Held>,
    /// The Secret with an encryption key to make.
    pub key_to_make: Option<String>,
    /// The total to begin autoscaling with.
    pub replicas_to_seed: Option<u32>,
    /// Children in the order of their application.
    pub children: Vec<Child>,
    /// While something is held back, the last good children in the place of those that it would change: they
    /// are applied first.
    pub restore: Vec<Child>,
    /// Children that nobody wants any more.
    pub prune: Vec<ChildRef>,
    /// Pods whose mounted settings lag behind.
    pub tell: Vec<Tell>,
    /// How many pods Deployments should have that are otherwise left as they are.
    pub resize: Vec<(ChildRef, u32)>,
    /// Deployments that are left as they are until others have taken over the pools that they give away, and
    /// the gateway's until it finds all groups whole.
    pub waiting: Vec<ChildRef>,
    /// What has become of the stores' migration to another image.
    pub migration: Option<Migration>,
    /// What has become of the change that replaces pods, where one takes it first.
    pub trial: Option<Trial>,
}

/// Why children are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The resources have faults: the last good configuration keeps running.
    Faults,
    /// The service is paused.
    Paused,
    /// A certificate is to be issued, but cert-manager is not installed: pods and their settings stay as they
    /// are.
    CertManager,
    /// A Secret is missing, and what should run next needs it: pods and their settings stay as they are.
    Secrets,
    /// A Job brings the stores up to another image: pods and their settings stay as they are until it has.
    Migration,
    /// That Job failed: they stay so, and it is tried again.
    MigrationFailed,
    /// One pod takes a change first: the others and their settings stay as they are.
    Canary,
    /// That pod did worse: they stay so until the resources change.
    CanaryFailed,
}

/// The service and what it should become.
#[derive(Clone, Copy)]
struct Target<'a> {
    observed: &'a Observed,
    validated: &'a Validated,
}

/// What to do to the cluster for this verdict.
pub fn plan(observed: &Observed, verdict: &Result<Validated, Vec<Fault>>) -> Plan {
    let Ok(validated) = verdict else {
        let restore = if observed.service.spec.paused { Vec::new() } else { last_good::children(observed) };
        return Plan { held: Some(Held::Faults), restore, ..Plan::default() };
    };
    if validated.paused {
        return Plan { held: Some(Held::Paused), ..Plan::default() };
    }
    let target = Target { observed, validated };
    let same_pods = observed.running.as_ref().is_some_and(|running| running.rolling == validated.rolling);
    let waits = match (target.has_no_issuer(), validated.missing.is_empty()) {
        _ if same_pods => None,
        (true, _) => Some(Held::CertManager),
        (false, false) => Some(Held::Secrets),
        (false, true) => None,
    };
    let migrating = if waits.is_some() { None } else { migration::migration(&target) };
    let waits = waits.or_else(|| match migrating.as_ref()?.migration {
        Migration::Running(_) => Some(Held::Migration),
        Migration::Failed(_) => Some(Held::MigrationFailed),
        Migration::Done => None,
    });
    let canary = if waits.is_some() { None } else { canary::canary(&target) };
    let held = waits.or_else(|| match canary.as_ref()?.trial {
        Trial::Running(_) => Some(Held::Canary),
        Trial::Failed(_) => Some(Held::CanaryFailed),
        Trial::Passed(_) => None,
    });
    let waiting = if held.is_some() { Vec::new() } else { giving::waiting(&target) };
    let mut children = target.children();
    let (mut restore, mut trial, mut migration) = (Vec::new(), None, None);
    let resize = if held.is_some() {
        restore = last_good::scaled(&target);
        children.retain(|child| target.may_change(child, waits.is_some(), &restore));
        restore.retain(|child| !is_among(&child.reference, &children));
        target.resize(|deployment, _| !is_among(deployment, &restore))
    } else {
        children.retain(|child| !waiting.contains(&child.reference));
        children.extend(last_good::child_beside(&target, &children, &waiting));
        // fewer only once others serve
        target.resize(|deployment, more| more && waiting.contains(deployment))
    };
    // what a change went through stays until all of it is done, or it would be gone through again
    let under_way = held.is_some() || !waiting.is_empty();
    if let Some(Migrating { migration: found, children: own }) = migrating {
        children.extend(under_way.then_some(own).into_iter().flatten());
        migration = Some(found);
    }
    if let Some(Canary { trial: found, children: own }) = canary {
        children.extend(under_way.then_some(own).into_iter().flatten());
        trial = Some(found);
    }
    children.sort_by(|a, b| a.reference.cmp(&b.reference));
    Plan {
        held,
        key_to_make: validated.key_to_make.clone(),
        replicas_to_seed: validated.replicas_to_seed,
        prune: target.superfluous(&children, held, &waiting),
        tell: match held {
            Some(_) => Vec::new(),
            None => {
                let mut tell = lagging(observed, &validated.hash, &validated.rolling);
                tell.extend(unaware(observed, validated.secrets.as_deref()));
                tell
            }
        },
        children,
        restore,
        resize,
        waiting,
        migration,
        trial,
    }
}

/// The name of the ConfigMap with the settings.
pub fn settings_name(service: &str) -> String {
    format!("{service}-settings")
}

impl Target<'_> {
    fn children(&self) -> Vec<Child> {
        let mut children = vec![service_account::child(self), config_map::child(self), service::front(self)];
        let issuer = self.validated.issuer.as_ref().filter(|_| self.observed.cert_manager);
        children.extend(issuer.and_then(|issuer| certificate::child(self, issuer)));
        children.extend(self.validated.groups.iter().flat_map(|group| {
            [
                service::of_group(self, group),
                deployment::child(self, group),
                disruption_budget::of_group(self, group),
            ]
        }));
        if let Some(replicas) = self.validated.gateway {
            children.extend([gateway::child(self, replicas), disruption_budget::of_gateway(self)]);
        }
        children.extend(self.validated.autoscaling.as_ref().map(|auto| autoscaler::child(self, auto)));
        children.extend(
            self.validated.network_policy.then(|| network_policy::children(self)).into_iter().flatten(),
        );
        children.sort_by(|a, b| a.reference.cmp(&b.reference));
        children
    }

    /// Whether a certificate is to be issued and nobody is there to do so.
    fn has_no_issuer(&self) -> bool {
        self.validated.issuer.is_some() && !self.observed.cert_manager
    }

    /// Whether the child may change while pods are left as they are. While they `wait`, the Services that
    /// lead to them stay, too: a change of the port or the protocol belongs to pods that are not there yet.
    fn may_change(&self, child: &Child, wait: bool, last_good: &[Child]) -> bool {
        let mut live = self.observed.children.iter();
        match child.reference.kind {
            ChildKind::ConfigMap | ChildKind::Deployment => false,
            ChildKind::Service => {
                !wait
                    || !(is_among(&child.reference, last_good)
                        || live.any(|live| live.reference == child.reference))
            }
            _ => true,
        }
    }

    /// Those of these Deployments of groups that have another number of pods than is wanted; `of` is told
    /// whether more are.
    fn resize(&self, of: impl Fn(&ChildRef, bool) -> bool) -> Vec<(ChildRef, u32)> {
        let groups = self.validated.groups.iter();
        let wrong = groups.filter_map(|group| {
            let reference = ChildRef { kind: ChildKind::Deployment, name: self.name_of(&group.name) };
            let live = self.observed.children.iter().find(|live| live.reference == reference)?;
            let replicas = live.object.data.pointer("/spec/replicas").and_then(Value::as_u64);
            let is_wrong = replicas != Some(group.replicas.into());
            let more = replicas < Some(group.replicas.into());
            (is_wrong && of(&reference, more)).then_some((reference, group.replicas))
        });
        wrong.collect()
    }

    /// What nobody wants. While pods are left as they are so is everything that they may need; a canary or a
    /// migration of another change is not. The pods of a group that is gone serve until there are others.
    fn superfluous(&self, wanted: &[Child], held: Option<Held>, waiting: &[ChildRef]) -> Vec<ChildRef> {
        let wanted: BTreeSet<&ChildRef> =
            wanted.iter().map(|child| &child.reference).chain(waiting).collect();
        let may_go = |live: &Live| match held {
            None => !self.is_relied_on(live),
            Some(Held::Migration | Held::MigrationFailed | Held::Canary | Held::CanaryFailed) => {
                is_canary(live) || is_migration(live)
            }
            Some(Held::Faults | Held::Paused | Held::CertManager | Held::Secrets) => false,
        };
        let children = self.observed.children.iter();
        let mut left: Vec<ChildRef> = children
            .filter(|live| {
                live.object.metadata.deletion_timestamp.is_none() && !wanted.contains(&live.reference)
            })
            .filter(|live| may_go(live))
            .map(|live| live.reference.clone())
            .collect();
        left.sort();
        left
    }

    /// Whether an object is of a group that nobody wants any more while pods of it serve and a wanted group,
    /// or the gateway, has fewer pods than it should that run by the wanted settings: a group that gets
    /// another name, or goes up in another, must not leave clients without pods, nor with too few.
    fn is_relied_on(&self, live: &Live) -> bool {
        let Some(group) = live.object.labels().get(label::GROUP).filter(|_| !is_canary(live)) else {
            return false;
        };
        let serves = canary::unwanted(self).any(|pod| pod.ready && pod.group.as_ref() == Some(group));
        serves && !(self.validated.groups.iter().all(|one| self.is_whole(one)) && self.has_new_gateway())
    }

    /// Whether all pods of the group serve by the wanted settings.
    fn is_whole(&self, group: &Group) -> bool {
        let wanted = Some(&self.validated.rolling);
        let new =
            canary::others(self, group).filter(|pod| pod.ready && pod.rolling.as_ref() == wanted).count();
        new >= group.replicas as usize
    }

    /// Whether the pods of the gateway, where there is to be one, run by the wanted settings: which groups
    /// there are they only know from their start.
    fn has_new_gateway(&self) -> bool {
        let wanted = Some(&self.validated.rolling);
        let pods =
            self.observed.pods.iter().filter(|pod| pod.group.is_none() && pod.ready && !pod.terminating);
        let new = pods.filter(|pod| pod.rolling.as_ref() == wanted).count();
        self.validated.gateway.is_none_or(|replicas| new >= replicas as usize)
    }

    /// Whether a pod of the group serves.
    fn serves(&self, group: &Group) -> bool {
        canary::others(self, group).any(|pod| pod.ready)
    }

    fn name(&self) -> &str {
        &self.observed.name
    }

    fn settings(&self) -> &Settings {
        &self.validated.settings
    }

    /// `<service>-<suffix>`.
    fn name_of(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name())
    }

    /// The labels that select pods: they never change.
    fn selector(&self, component: Component<'_>) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert(label::NAME.to_owned(), APP.into());
        labels.insert(label::INSTANCE.to_owned(), self.name().into());
        labels.insert(label::COMPONENT.to_owned(), component.name().into());
        if let Component::Group(group) = component {
            labels.insert(label::GROUP.to_owned(), group.into());
        }
        labels
    }

    fn labels(&self, component: Component<'_>) -> Map<String, Value> {
        let mut labels = self.selector(component);
        labels.insert(label::MANAGED_BY.to_owned(), MANAGER.into());
        labels
    }

    /// A complete child: identity, labels, annotations and owner around what is particular to it.
    fn child(
        &self,
        kind: ChildKind,
        name: String,
        component: Component<'_>,
        annotations: Value,
        content: Value,
    ) -> Child {
        self.labelled(kind, name, component, &json!({}), annotations, content)
    }

    /// The same with further labels.
    fn labelled(
        &self,
        kind: ChildKind,
        name: String,
        component: Component<'_>,
        more: &Value,
        annotations: Value,
        content: Value,
    ) -> Child {
        let resource = kind.resource();
        let mut labels = Value::Object(self.labels(component));
        merge(&mut labels, more.clone());
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": name,
                "namespace": self.observed.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [self.observed.service.controller_owner_ref(&())],
            },
        });
        merge(&mut body, content);
        seal(ChildRef { kind, name }, body)
    }
}

/// What a child is part of.
#[derive(Clone, Copy)]
enum Component<'a> {
    /// The data plane as a whole.
    Dataplane,
    /// One group of it.
    Group(&'a str),
    /// The gateway.
    Gateway,
    /// What prepares the stores for it.
    Migration,
}

impl Component<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Dataplane | Self::Group(_) => "dataplane",
            Self::Gateway => "gateway",
            Self::Migration => "migration",
        }
    }
}

/// The child with its hash, instead of another that it may carry.
fn seal(reference: ChildRef, mut body: Value) -> Child {
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(annotation::APPLIED);
    }
    let hash = digest(&body);
    body["metadata"]["annotations"][annotation::APPLIED] = hash.clone().into();
    Child { reference, body, hash }
}

fn is_among(reference: &ChildRef, children: &[Child]) -> bool {
    children.iter().any(|child| child.reference == *reference)
}

fn merge(body: &mut Value, content: Value) {
    if let (Value::Object(body), Value::Object(content)) = (body, content) {
        body.extend(content);
    }
}

fn digest(body: &Value) -> String {
    Sha256::digest(body.to_string()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
