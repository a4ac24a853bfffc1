//! What is to be taken away: children that nobody wants any more, once nobody relies on them.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{
    migration::is_migration,
    pods::{has_new_gateway, is_whole, unwanted},
};
use crate::{
    children::target::Target,
    model::{
        child::{Child, ChildRef, Live, label},
        plan::Held,
    },
};

/// What nobody wants. While pods are left as they are so is everything that they may need; a canary or a
/// migration of another change is not. The pods of a group that is gone serve until there are others.
pub fn superfluous(
    target: &Target<'_>,
    wanted: &[Child],
    held: Option<Held>,
    waiting: &[ChildRef],
) -> Vec<ChildRef> {
    let wanted: BTreeSet<&ChildRef> = wanted.iter().map(|child| &child.reference).chain(waiting).collect();
    let may_go = |live: &Live| match held {
        None => !is_relied_on(target, live),
        Some(Held::Migration | Held::MigrationFailed | Held::Canary | Held::CanaryFailed) => {
            live.is_canary() || is_migration(live)
        }
        Some(Held::Faults | Held::Paused | Held::CertManager | Held::Secrets) => false,
    };
    let children = target.observed.children.iter();
    let mut left: Vec<ChildRef> = children
        .filter(|live| live.object.metadata.deletion_timestamp.is_none() && !wanted.contains(&live.reference))
        .filter(|live| may_go(live))
        .map(|live| live.reference.clone())
        .collect();
    left.sort();
    left
}

/// Whether an object is of a group that nobody wants any more while pods of it serve and a wanted group,
/// or the gateway, has fewer pods than it should that run by the wanted settings: a group that gets
/// another name, or goes up in another, must not leave clients without pods, nor with too few.
fn is_relied_on(target: &Target<'_>, live: &Live) -> bool {
    let Some(group) = live.object.labels().get(label::GROUP).filter(|_| !live.is_canary()) else {
        return false;
    };
    let serves = unwanted(target).any(|pod| pod.ready && pod.group.as_ref() == Some(group));
    serves && !(target.validated.groups.iter().all(|one| is_whole(target, one)) && has_new_gateway(target))
}
