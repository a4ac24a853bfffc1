//! The pods of a service by what they still are to it.

use crate::{
    children::target::Target,
    model::{observed::ObservedPod, validated::Group},
};

/// The pods of the group that run on.
pub fn others<'a>(target: &Target<'a>, group: &Group) -> impl Iterator<Item = &'a ObservedPod> {
    let name = group.name.clone();
    let pods = target.observed.pods.iter();
    pods.filter(move |pod| pod.group.as_ref() == Some(&name) && pod.canary.is_none() && !pod.terminating)
}

/// The pods of groups that nobody wants any more.
pub fn unwanted<'a>(target: &Target<'a>) -> impl Iterator<Item = &'a ObservedPod> {
    let is_wanted = |name: &String| target.validated.groups.iter().any(|group| group.name == *name);
    let pods = target.observed.pods.iter().filter(|pod| pod.canary.is_none() && !pod.terminating);
    pods.filter(move |pod| pod.group.as_ref().is_some_and(|name| !is_wanted(name)))
}

/// Whom the group's canary is compared with: the pods of the group that run on, and of a new group those that
/// it replaces.
pub fn rest<'a>(target: &Target<'a>, group: &Group) -> Vec<&'a ObservedPod> {
    let own: Vec<_> = others(target, group).collect();
    if own.is_empty() { unwanted(target).collect() } else { own }
}

/// Whether all pods of the group serve by the wanted settings.
pub fn is_whole(target: &Target<'_>, group: &Group) -> bool {
    let wanted = Some(&target.validated.rolling);
    let new = others(target, group).filter(|pod| pod.ready && pod.rolling.as_ref() == wanted).count();
    new >= group.replicas as usize
}

/// Whether the pods of the gateway, where there is to be one, run by the wanted settings: which groups
/// there are they only know from their start.
pub fn has_new_gateway(target: &Target<'_>) -> bool {
    let wanted = Some(&target.validated.rolling);
    let pods = target.observed.pods.iter().filter(|pod| pod.group.is_none() && pod.ready && !pod.terminating);
    let new = pods.filter(|pod| pod.rolling.as_ref() == wanted).count();
    target.validated.gateway.as_ref().is_none_or(|gateway| new >= gateway.replicas as usize)
}

/// Whether a pod of the group serves.
pub fn serves(target: &Target<'_>, group: &Group) -> bool {
    others(target, group).any(|pod| pod.ready)
}
