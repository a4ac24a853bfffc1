//! The status of a service in the situations that users meet.

use std::sync::Arc;

use crds::status::ServiceStatus;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{conditions::find, essence::Status, facts, service};
use crate::{
    fixture::{change_tier, live, now, observed, observed_with, settle},
    model::{
        applied::Applied,
        child::{ChildKind, Live, annotation},
        error::Error,
        notice::Subject,
        observed::{Observed, ObservedPod},
        report::{PodReport, PoolReport, SecretReport, TierReport, Trouble, UnavailableReport},
    },
    rollout::plan,
    validate::validate,
};

mod held;
mod readiness;
mod reports;
mod shared;

/// The status after a reconcile in which every apply succeeded.
fn status_of(observed: &Observed) -> ServiceStatus {
    status_after(observed, Ok(()))
}

fn status_after(observed: &Observed, outcome: Result<(), Error>) -> ServiceStatus {
    let verdict = validate(observed);
    let plan = plan(observed, &verdict);
    let mut children = observed.children.clone();
    if outcome.is_ok() {
        for child in &plan.children {
            if !children.iter().any(|live| live.reference == child.reference) {
                children.push(live(child));
            }
            if let Some(old) = children.iter_mut().find(|live| {
                live.reference == child.reference && live.annotation(annotation::APPLIED) != Some(&child.hash)
            }) {
                *old = live(child);
            }
        }
    }
    let applied = Applied { children, outcome, again: false, changed: false };
    let facts = facts::gather(observed, &verdict, &plan, &applied);
    service::status(&facts, observed, &[])
}

/// `Ready=True/Serving` and so on.
fn says(status: &ServiceStatus, kind: &str) -> String {
    let condition = find(&status.conditions, kind).unwrap();
    format!("{}/{}", condition.status, condition.reason)
}

fn settled() -> Observed {
    let mut observed = observed();
    settle(&mut observed);
    observed
}

fn with_pods(change: impl Fn(usize, &mut ObservedPod)) -> Observed {
    let mut observed = settled();
    observed.pods.iter_mut().enumerate().for_each(|(index, pod)| change(index, pod));
    observed
}
