//! What the status is made of: pods and rollouts counted, configurations compared. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    conditions::Reason,
    fault::Fault,
    pool::Entity,
    service::security::IssuerRef,
    settings::{BackendKind, PoolSettings, Settings},
    tier::WriteStrategy,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    children::behind,
    model::{
        applied::Applied,
        cause::Cause,
        child::{ChildKind, Live, annotation, label, settings_name},
        observed::{Observed, ObservedPod},
        plan::{Held, Migration, Plan, Trial},
        report::{BackendReport, ProblemReport, Trouble, UnavailableReport},
        validated::{MissingSecret, Validated},
    },
};

/// A pod that is not ready for longer is not just starting.
const START_MAX: SignedDuration = SignedDuration::from_secs(60);
/// How long a pod may wait for a place before it is said to have none.
const PLACED_MAX: SignedDuration = SignedDuration::from_secs(10);
/// An autoscaler that knows nothing for longer does not just wait for the first figures.
const MEASURED_MAX: SignedDuration = SignedDuration::from_secs(120);

/// What is known of a service after a reconcile.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What is wrong with the resources.
    pub faults: &'a [Fault],
    /// What is wrong with them from the next release on.
    pub warnings: &'a [Fault],
    /// The issuer of a certificate that is wanted, where cert-manager is not installed.
    pub unissued: Option<&'a IssuerRef>,
    /// Secrets that are missing.
    pub missing: &'a [MissingSecret],
    /// Why children were left as they are.
    pub held: Option<Held>,
    /// What has become of the stores' migration to another image.
    pub migration: Option<&'a Migration>,
    /// What has become of a change that one pod takes first.
    pub trial: Option<&'a Trial>,
    /// Why the autoscaler cannot work, in its own word.
    pub unscaled: Option<&'a str>,
    /// What the API server refused to take.
    pub refused: Option<String>,
    /// What could not be done otherwise: it is tried again.
    pub failed: Option<String>,
    /// Deployments that are not yet as they should be.
    pub behind: Vec<String>,
    /// Whether some of them wait until others have taken over what they serve.
    pub waiting: bool,
    /// The groups of pods.
    pub groups: Vec<Workload>,
    /// The gateway's pods.
    pub gateway: Option<Workload>,
    /// The data plane's pods, without those that end.
    pub pods: Vec<&'a ObservedPod>,
    /// The gateway's pods, without those that end.
    pub gateway_pods: Vec<&'a ObservedPod>,
    /// Pods that were told to end and finish what they began, the gateway's included.
    pub ending: usize,
    /// The hash of the configuration that is wanted; none while it has faults.
    pub wanted: Option<&'a str>,
    /// The hash of the configuration that pods find mounted.
    pub applied: Option<String>,
    /// The settings behind it.
    pub settings: Option<&'a Settings>,
}

/// Pods of one Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// The group's name, or `gateway`.
    pub name: String,
    /// Pods that are wanted.
    pub wanted: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods in all, without those that end.
    pub pods: u32,
    /// Whether every pod is of the newest template.
    pub rolled_out: bool,
    /// Whether the rollout makes no progress.
    pub stuck: bool,
    /// Why pods are not there or will not become ready by waiting, each with its pod.
    pub failing: Vec<Cause>,
}

/// How far the configuration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Every ready pod runs it.
    Everywhere,
    /// Some ready pods run another.
    Lagging,
    /// Some ready pods do not say what they run.
    Silent,
}

/// Counts.
pub fn gather<'a>(
    observed: &'a Observed,
    verdict: &'a Result<Validated, Vec<Fault>>,
    plan: &'a Plan,
    applied: &'a Applied,
) -> Facts<'a> {
    let validated = verdict.as_ref().ok();
    let pods: Vec<&ObservedPod> =
        observed.pods.iter().filter(|pod| !pod.terminating && pod.canary.is_none()).collect();
    let map = applied.children.iter().find(|live| {
        live.reference.kind == ChildKind::ConfigMap && live.reference.name == settings_name(&observed.name)
    });
    let hash = map.and_then(|live| live.annotation(annotation::CONFIGURATION)).map(str::to_owned);
    let current =
        validated.filter(|validated| hash.as_ref() == Some(&validated.hash)).map(|one| &one.settings);
    let before = observed.running.as_ref().and_then(|running| running.settings.as_deref());
    let wanted = validated.filter(|_| plan.held != Some(Held::Paused));
    let (groups, gateway) = workloads(wanted, &applied.children, &pods, observed.at);
    let (pods, gateway_pods) = pods.into_iter().partition(|pod| pod.group.is_some());
    let (refused, failed) = match &applied.outcome {
        Ok(()) => (None, None),
        Err(error) if error.is_refusal() => (Some(error.to_string()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Facts {
        faults: verdict.as_ref().err().map(Vec::as_slice).unwrap_or_default(),
        warnings: validated.map(|validated| validated.warnings.as_slice()).unwrap_or_default(),
        unissued: validated
            .and_then(|validated| validated.issuer.as_ref())
            .filter(|_| !observed.cert_manager),
        missing: validated.map(|validated| validated.missing.as_slice()).unwrap_or_default(),
        held: plan.held,
        migration: plan.migration.as_ref(),
        trial: plan.trial.as_ref(),
        unscaled: unscaled(&applied.children, &observed.pods, observed.at),
        refused,
        failed,
        behind: validated.map(|validated| behind(observed, validated, &applied.children)).unwrap_or_default(),
        waiting: !plan.waiting.is_empty(),
        groups,
        gateway,
        pods,
        gateway_pods,
        ending: observed.pods.iter().filter(|pod| pod.terminating).count(),
        wanted: validated.map(|validated| validated.hash.as_str()),
        applied: hash,
        settings: current.or(before),
    }
}

/// What is wanted is what the author wants, also where it could not be written. Of other Deployments it is
/// what they say: of those that nobody wants any more, and of all while there is no `validated` service or
/// they stay as they are.
fn workloads(
    validated: Option<&Validated>,
    children: &[Live],
    pods: &[&ObservedPod],
    now: Timestamp,
) -> (Vec<Workload>, Option<Workload>) {
    let mut groups: BTreeMap<String, Workload> = BTreeMap::new();
    let blank = |name: &str, wanted: u32, pods: Vec<&&ObservedPod>| Workload {
        name: name.to_owned(),
        wanted,
        ..counted(&pods, now)
    };
    for group in validated.iter().flat_map(|validated| &validated.groups) {
        let own = pods.iter().filter(|pod| pod.group.as_ref() == Some(&group.name)).collect();
        groups.insert(group.name.clone(), blank(&group.name, group.replicas, own));
    }
    let wanted_gateway = validated.and_then(|validated| Some(validated.gateway.as_ref()?.replicas));
    let gateway_pods = || pods.iter().filter(|pod| pod.group.is_none()).collect();
    let mut gateway = wanted_gateway.map(|replicas| blank("gateway", replicas, gateway_pods()));
    let deployments = children.iter().filter(|live| live.reference.kind == ChildKind::Deployment);
    for live in deployments.filter(|live| !live.is_canary()) {
        let labels = live.object.metadata.labels.as_ref();
        let group = labels.and_then(|labels| labels.get(label::GROUP));
        let workload = match group {
            Some(name) => {
                let own = || pods.iter().filter(|pod| pod.group.as_ref() == Some(name)).collect();
                groups.entry(name.clone()).or_insert_with(|| blank(name, 0, own()))
            }
            None => gateway.get_or_insert_with(|| blank("gateway", 0, gateway_pods())),
        };
        let is_wanted = match group {
            Some(name) => {
                validated.is_some_and(|validated| validated.groups.iter().any(|one| one.name == *name))
            }
            None => wanted_gateway.is_some(),
        };
        rollout(workload, &live.object.data, live.object.metadata.generation, is_wanted);
        let is_short = workload.ready < workload.wanted;
        workload.failing.extend(Cause::of_deployment(&live.object.data).filter(|_| is_short));
    }
    (groups.into_values().collect(), gateway)
}

/// Why the autoscaler has not been able to tell how many pods are needed, for longer than the newest pod
/// takes to be measured. It rests where none are wanted.
fn unscaled<'a>(children: &'a [Live], pods: &[ObservedPod], now: Timestamp) -> Option<&'a str> {
    let mut children = children.iter();
    let live = children.find(|live| live.reference.kind == ChildKind::HorizontalPodAutoscaler)?;
    let conditions = live.object.data.pointer("/status/conditions")?.as_array()?;
    let active = conditions.iter().find(|one| one["type"] == "ScalingActive" && one["status"] == "False")?;
    let since: Timestamp = active["lastTransitionTime"].as_str()?.parse().ok()?;
    let reason = active["reason"].as_str().filter(|reason| *reason != "ScalingDisabled")?;
    let since = pods.iter().map(|pod| pod.created).chain([since]).max()?;
    (now.duration_since(since) > MEASURED_MAX).then_some(reason)
}

fn counted(pods: &[&&ObservedPod], now: Timestamp) -> Workload {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Workload {
        ready: count(pods.iter().filter(|pod| pod.ready).count()),
        pods: count(pods.len()),
        failing: pods.iter().filter_map(|pod| failure(pod, now)).collect(),
        ..Workload::default()
    }
}

fn failure(pod: &ObservedPod, now: Timestamp) -> Option<Cause> {
    let ObservedPod { name, ready, waiting, cause, created, .. } = pod;
    let age = now.duration_since(*created);
    let told = |reason: Reason, why: &str| Some(Cause { reason, message: format!("{name}: {why}") });
    match (cause, waiting.as_deref()) {
        _ if *ready => None,
        (Some(cause), _) if cause.reason != Reason::Unschedulable || age > PLACED_MAX => {
            told(cause.reason, &cause.message)
        }
        (None, Some(reason)) if pod.is_failing() => told(Reason::PodsFailing, reason),
        _ if age > START_MAX => told(Reason::PodsFailing, "not ready"),
        _ => None,
    }
}

/// Reads the Deployment's own view of its rollout, and how many pods it should have unless that is known to
/// be wanted otherwise.
fn rollout(workload: &mut Workload, deployment: &Value, generation: Option<i64>, is_wanted: bool) {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let wanted = number("/spec/replicas");
    if !is_wanted {
        workload.wanted = u32::try_from(wanted).unwrap_or(0);
    }
    workload.rolled_out = number("/status/observedGeneration") >= generation.unwrap_or(0)
        && number("/status/updatedReplicas") == wanted
        && number("/status/replicas") == wanted;
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice);
    workload.stuck = conditions
        .unwrap_or_default()
        .iter()
        .any(|one| one["type"] == "Progressing" && one["reason"] == "ProgressDeadlineExceeded");
}

impl Facts<'_> {
    /// The groups and the gateway.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.groups.iter().chain(&self.gateway)
    }

    /// Whether no pod is wanted.
    pub fn is_stopped(&self) -> bool {
        self.groups.iter().all(|group| group.wanted == 0)
    }

    /// Pods that run the applied configuration.
    pub fn current_pods(&self) -> usize {
        self.pods.iter().filter(|pod| self.runs_current(pod)).count()
    }

    /// How far the applied configuration has come among the ready pods. A gateway that says nothing is of a
    /// former version.
    pub fn spread(&self) -> Spread {
        let mut ready = self.pods.iter().filter(|pod| pod.ready);
        let gateways = self.gateway_pods.iter().filter(|pod| pod.ready);
        if ready.clone().chain(gateways).any(|pod| pod.report.is_some() && !self.runs_current(pod)) {
            Spread::Lagging
        } else if ready.any(|pod| pod.report.is_none()) {
            Spread::Silent
        } else {
            Spread::Everywhere
        }
    }

    fn runs_current(&self, pod: &ObservedPod) -> bool {
        pod.report.as_ref().is_some_and(|report| Some(&report.configuration) == self.applied.as_ref())
    }

    /// Backends that some pod cannot reach, each with why, where a pod knows it.
    pub fn unreachable(&self) -> BTreeMap<&str, Option<&ProblemReport>> {
        let mut all = BTreeMap::new();
        for lost in self.backends().filter(|backend| !backend.reachable && backend.owned_by.is_none()) {
            let told = all.entry(lost.name.as_str()).or_insert(None);
            *told = told.or(lost.problem.as_ref());
        }
        all
    }

    /// Backends in which another owner has what the service would keep there, each with that owner.
    pub fn owned_by_others(&self) -> BTreeMap<&str, &str> {
        self.backends()
            .filter_map(|backend| Some((backend.name.as_str(), backend.owned_by.as_deref()?)))
            .collect()
    }

    fn backends(&self) -> impl Iterator<Item = &BackendReport> {
        self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.backends)
    }

    /// Backends that have no room left, each with why.
    pub fn full_backends(&self) -> BTreeMap<&str, &str> {
        let backends =
            self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.backends);
        backends
            .filter_map(|backend| Some((backend.name.as_str(), backend.storage_full.as_deref()?)))
            .collect()
    }

    /// Settings of backends by which an acknowledged write can be lost.
    pub fn risks(&self) -> BTreeSet<(&str, &str)> {
        let backends =
            self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.backends);
        backends
            .flat_map(|one| one.durability.iter().map(|risk| (one.name.as_str(), risk.as_str())))
            .collect()
    }

    /// Backends whose passwords some pod sends without TLS, where the spec does not say that it may.
    pub fn plaintext(&self) -> BTreeSet<&str> {
        self.backends()
            .filter(|backend| backend.plaintext_password)
            .map(|backend| backend.name.as_str())
            .collect()
    }

    /// Pools that some pod cannot serve because of their collections, each with why.
    pub fn unavailable_pools(&self) -> BTreeMap<&str, &UnavailableReport> {
        let pools = self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.pools);
        pools.filter_map(|pool| Some((pool.name.as_str(), pool.unavailable.as_ref()?))).collect()
    }

    /// Secrets whose content some pod cannot use, each with why: it goes on with the former one.
    pub fn unusable_secrets(&self) -> BTreeMap<&str, &str> {
        let secrets =
            self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.secrets);
        secrets.filter_map(|secret| Some((secret.name.as_str(), secret.problem.as_deref()?))).collect()
    }

    /// Fields in which pods read numbers that readers of JSON numbers round, as `pool.field`.
    pub fn inexact_numbers(&self) -> BTreeSet<String> {
        let pools = self.pods.iter().filter_map(|pod| pod.report.as_ref()).flat_map(|report| &report.pools);
        pools
            .flat_map(|pool| pool.inexact_numbers.iter().map(|field| format!("{}.{field}", pool.name)))
            .collect()
    }

    /// Pods most of whose requests come to nothing in this way.
    pub fn in_trouble(&self, trouble: Trouble) -> Vec<&str> {
        let is_in =
            |pod: &&&ObservedPod| pod.report.as_ref().is_some_and(|report| report.trouble == Some(trouble));
        self.pods.iter().chain(&self.gateway_pods).filter(is_in).map(|pod| pod.name.as_str()).collect()
    }

    /// Whether requests fail without the backend: a cache that is away is a miss, and a broker that is away
    /// is a delay, but for what is accepted into it.
    pub fn is_vital(&self, backend: &str) -> bool {
        let Some(settings) = self.settings else { return false };
        settings.backends.iter().filter(|one| one.name == backend).any(|one| match one.kind {
            BackendKind::Mysql { .. } | BackendKind::Mongodb { .. } => true,
            BackendKind::Kafka { .. } => settings.pools.iter().any(is_accepted_by_broker),
            BackendKind::Redis {} => false,
        })
    }
}

/// Whether something of the pool is acknowledged as soon as the broker has it: events from outside, or writes
/// that the store gets later.
fn is_accepted_by_broker(pool: &PoolSettings) -> bool {
    let takes_events = pool.entity == Entity::Product && pool.source.version.is_some();
    takes_events || pool.tiers.iter().any(|tier| tier.write == WriteStrategy::WriteBehind)
}
