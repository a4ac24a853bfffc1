//! Whether a pool or a tier is ready: the same question for both.

use std::{collections::BTreeSet, sync::Arc};

use crds::conditions::{ConditionType, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;

use super::{
    conditions::{Draft, find},
    service::causes::unreachable,
};
use crate::model::update::StatusUpdate;

/// Services that a message names.
const NAMED_MAX: usize = 8;

/// Why a service with ready pods serves nothing all the same: the reasons of its own condition.
pub const FAILING: [Reason; 2] = [Reason::RequestsFailing, Reason::Overloaded];

/// Which of the services that serve a resource have to acknowledge what it is now, before it is ready: their
/// pods may still run by what it was.
#[derive(Clone, Copy, PartialEq)]
pub enum Acknowledgement {
    /// None: it is as it was when it was last said to be served.
    None,
    /// One of them: it was not served since, or never.
    One,
    /// All of them: it has changed since.
    All,
}

impl Acknowledgement {
    /// From what was last said of it.
    pub fn of<K: Resource<DynamicType = ()>>(
        object: &K,
        said: Option<i64>,
        conditions: &[Condition],
    ) -> Self {
        let reason = find(conditions, ConditionType::Ready).and_then(|ready| Reason::parse(&ready.reason));
        match reason {
            _ if said != object.meta().generation => Self::All,
            Some(Reason::Pending) => Self::All,
            Some(Reason::Serving) => Self::None,
            _ => Self::One,
        }
    }
}

/// Says of a service whether it may serve the resource by what that was before: it has not seen this
/// generation yet, or has not applied what it saw.
pub fn is_late(resource: &str, generation: Option<i64>) -> impl Fn(&StatusUpdate) -> bool {
    move |update| update.seen.get(resource).copied() < generation || !update.applied
}

/// Which of these backends the service's pods cannot reach, and why.
fn away(update: &StatusUpdate, needs: &[String]) -> Option<(Reason, String)> {
    let backends = update.reports.iter().flat_map(|report| &report.backends);
    let lost = backends.filter(|one| !one.reachable && one.owned_by.is_none() && needs.contains(&one.name));
    unreachable(lost.map(|one| (one.name.as_str(), one.problem.as_ref())).collect())
}

/// Whether the resource is in use: `backends` says without which a service cannot serve it; none where its
/// pods do not run by it.
pub fn ready(
    resource: &str,
    updates: &[Arc<StatusUpdate>],
    (needed, is_late): (Acknowledgement, impl Fn(&StatusUpdate) -> bool),
    backends: impl Fn(&StatusUpdate) -> Option<Vec<String>>,
) -> Draft {
    let draft = |holds: bool, reason: Reason, message: String| {
        Draft::new(ConditionType::Ready, holds.into(), reason, message)
    };
    if updates.is_empty() {
        return draft(false, Reason::NotReferenced, "no service serves it".to_owned());
    }
    let faults: BTreeSet<String> = updates
        .iter()
        .flat_map(|update| &update.faults)
        .filter(|fault| fault.resource == resource)
        .map(|fault| format!("{}: {}", fault.path, fault.message))
        .collect();
    if !faults.is_empty() {
        return draft(false, Reason::InvalidConfiguration, faults.into_iter().collect::<Vec<_>>().join("; "));
    }
    // it has pods, but requests fail in them
    let fails = |update: &StatusUpdate| FAILING.iter().any(|reason| reason.as_str() == update.trouble);
    let runs = |update: &StatusUpdate| backends(update).is_some_and(|needs| away(update, &needs).is_none());
    let serving = updates.iter().filter(|update| update.available && runs(update) && !fails(update));
    let serving: Vec<&Arc<StatusUpdate>> = serving.collect();
    let late: Vec<&Arc<StatusUpdate>> = serving.iter().copied().filter(|update| is_late(update)).collect();
    let pending = match needed {
        Acknowledgement::None => false,
        Acknowledgement::One => late.len() == serving.len(),
        Acknowledgement::All => true,
    };
    if pending && !late.is_empty() {
        let why = |update: &&Arc<StatusUpdate>| match update.trouble.as_str() {
            "" => update.service.clone(),
            trouble => format!("{} ({trouble})", update.service),
        };
        let late: Vec<String> = late.iter().map(why).collect();
        return draft(false, Reason::Pending, format!("served as it was before by {}", some(&late)));
    }
    let serving: Vec<&str> = serving.iter().map(|update| update.service.as_str()).collect();
    if !serving.is_empty() {
        return draft(true, Reason::Serving, format!("served by {}", some(&serving)));
    }
    let lost = updates.iter().find_map(|update| away(update, &backends(update)?));
    if let Some((reason, message)) = lost {
        return draft(false, reason, message);
    }
    let waiting: Vec<String> =
        updates.iter().map(|update| format!("{} ({})", update.service, update.trouble)).collect();
    draft(false, Reason::ServiceNotReady, format!("not served by {}", some(&waiting)))
}

/// The first few by name, and how many there are besides.
fn some<S: AsRef<str>>(all: &[S]) -> String {
    let named: Vec<&str> = all.iter().take(NAMED_MAX).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
