//! The third step, its first half: every child as it should be once nothing holds it back. Pure: from the
//! validated service to complete objects, one file a kind.

use crate::{
    children::target::Target,
    model::{
        child::{Child, Live, annotation},
        observed::Observed,
        validated::Validated,
    },
};

mod autoscaler;
mod certificate;
pub mod config_map;
pub mod deployment;
mod disruption_budget;
mod gateway;
mod network_policy;
pub mod pod;
mod pod_template;
mod service;
mod service_account;
pub mod target;
#[cfg(test)]
mod tests;

/// All children, in the order of their application.
pub fn children(target: &Target<'_>) -> Vec<Child> {
    let mut children =
        vec![service_account::child(target), config_map::child(target), service::front(target)];
    let issuer = target.validated.issuer.as_ref().filter(|_| target.observed.cert_manager);
    children.extend(issuer.and_then(|issuer| certificate::child(target, issuer)));
    children.extend(target.validated.groups.iter().flat_map(|group| {
        [
            service::of_group(target, group),
            deployment::child(target, group),
            disruption_budget::of_group(target, group),
        ]
    }));
    if let Some(pods) = &target.validated.gateway {
        children.extend([gateway::child(target, pods), disruption_budget::of_gateway(target)]);
    }
    children.extend(target.validated.autoscaling.as_ref().map(|auto| autoscaler::child(target, auto)));
    children.extend(
        target.validated.network_policy.then(|| network_policy::children(target)).into_iter().flatten(),
    );
    children.sort_by(|a, b| a.reference.cmp(&b.reference));
    children
}

/// The Deployments that are not yet as they should be, among the children as they are now. Whatever holds
/// them back, the author waits for them.
pub fn behind(observed: &Observed, validated: &Validated, children: &[Live]) -> Vec<String> {
    let target = Target { observed, validated };
    let groups = validated.groups.iter().map(|group| deployment::child(&target, group));
    let gateway = validated.gateway.as_ref().map(|pods| gateway::child(&target, pods));
    let is_there = |wanted: &Child| {
        let live = children.iter().find(|live| live.reference == wanted.reference);
        live.is_some_and(|live| live.annotation(annotation::APPLIED) == Some(&wanted.hash))
    };
    groups.chain(gateway).filter(|wanted| !is_there(wanted)).map(|wanted| wanted.reference.name).collect()
}
