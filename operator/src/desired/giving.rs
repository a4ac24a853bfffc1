//! Groups that give pools away. The gateway goes by what pods say they serve, so a pool that moves from one group to another is served without a gap if the
//! pods that give it away stay until those that take it are there.

use std::collections::BTreeSet;

use super::{Target, canary::others};
use crate::{
    child::{ChildKind, ChildRef},
    observe::ObservedPod,
    validate::Group,
};

/// The Deployments of groups with pods that serve a pool which is to be served by others, who have not all their pods for it yet.
pub(super) fn deployments(target: &Target<'_>) -> Vec<ChildRef> {
    let groups = &target.validated.groups;
    let giving: Vec<(&Group, BTreeSet<&str>)> =
        groups.iter().map(|group| (group, given(target, group))).filter(|(_, pools)| !pools.is_empty()).collect();
    // Groups that wait for each other would wait for ever: who waits for nobody goes on, and then who waits for those alone. The rest does not wait.
    let mut free: BTreeSet<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    giving.iter().for_each(|(group, _)| _ = free.remove(group.name.as_str()));
    loop {
        let goes_on = |(group, pools): &&(&Group, BTreeSet<&str>)| {
            let is_taken = |pool: &&str| takers(target, pool).any(|taker| free.contains(taker.name.as_str()));
            !free.contains(group.name.as_str()) && pools.iter().all(is_taken)
        };
        let Some((group, _)) = giving.iter().find(goes_on) else { break };
        free.insert(&group.name);
    }
    let waiting = giving.iter().filter(|(group, _)| free.contains(group.name.as_str()));
    let name = |group: &Group| ChildRef { kind: ChildKind::Deployment, name: target.name_of(&group.name) };
    waiting.map(|(group, _)| name(group)).collect()
}

/// The pools that pods of the group serve, that it shall serve no more, and that no other group serves yet with all its pods.
fn given<'a>(target: &Target<'a>, group: &Group) -> BTreeSet<&'a str> {
    let mine = others(target, group).filter(|pod| pod.ready).filter_map(|pod| pod.report.as_ref());
    let served = mine.flat_map(|report| &report.pools).map(|pool| pool.name.as_str());
    served.filter(|pool| !shall_serve(target, group, pool) && !is_taken(target, pool)).collect()
}

/// Whether another group serves the pool with all its pods; a pool that nobody shall serve any more is waited for by nobody.
fn is_taken(target: &Target<'_>, pool: &str) -> bool {
    let serves = |pod: &&ObservedPod| {
        pod.ready && pod.report.as_ref().is_some_and(|report| report.pools.iter().any(|one| one.name == pool))
    };
    let mut takers = takers(target, pool).peekable();
    takers.peek().is_none()
        || takers.any(|taker| others(target, taker).filter(serves).count() >= taker.replicas as usize)
}

fn takers<'a>(target: &Target<'a>, pool: &str) -> impl Iterator<Item = &'a Group> {
    target.validated.groups.iter().filter(move |group| shall_serve(target, group, pool))
}

fn shall_serve(target: &Target<'_>, group: &Group, pool: &str) -> bool {
    let mut groups = target.settings().groups.iter().filter(|one| one.name == group.name);
    groups.any(|one| one.pools.iter().any(|served| served == pool))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{
        child::{ChildKind, ChildRef},
        desired::{Plan, plan},
        fixture::{apply, now, observed_with, pass_canaries, settle},
        observe::{Observed, report::PoolReport},
        validate::validate,
    };
    use k8s_openapi::jiff::SignedDuration;

    fn groups(groups: &[(&str, &[&str])]) -> Value {
        let group = |(name, pools): &(&str, &[&str])| {
            let pools: Vec<Value> = pools.iter().map(|pool| json!({ "name": pool })).collect();
            json!({ "name": name, "replicas": 1, "poolRefs": pools })
        };
        groups.iter().map(group).collect()
    }

    /// Groups with these pools, behind a gateway, served by pods that say so.
    fn shop(of: &[(&str, &[&str])]) -> Observed {
        let mut observed = observed_with(|spec| {
            spec["gateway"] = json!({ "replicas": 1 });
            spec["replicaGroups"] = groups(of);
        });
        settle(&mut observed);
        of.iter().for_each(|(group, pools)| says(&mut observed, group, pools));
        observed
    }

    /// The pods of the group say that they serve these pools.
    fn says(observed: &mut Observed, group: &str, pools: &[&str]) {
        for pod in observed.pods.iter_mut().filter(|pod| pod.group.as_deref() == Some(group)) {
            let pool = |name: &&str| PoolReport { name: (*name).to_owned(), ..PoolReport::default() };
            pod.report.as_mut().unwrap().pools = pools.iter().map(pool).collect();
        }
    }

    /// The same pods, and other groups wanted; their canaries have passed.
    fn changed(mut observed: Observed, to: &[(&str, &[&str])]) -> Observed {
        observed.service = observed_with(|spec| {
            spec["gateway"] = json!({ "replicas": 1 });
            spec["replicaGroups"] = groups(to);
        })
        .service;
        pass_canaries(&mut observed);
        observed
    }

    fn look(observed: &mut Observed) -> Plan {
        let plan = plan(observed, &validate(observed));
        apply(observed, &plan);
        plan
    }

    fn waiting(plan: &Plan) -> Vec<&str> {
        assert_eq!(plan.held, None, "{:?}", plan.trial);
        plan.giving.iter().map(|deployment| deployment.name.as_str()).collect()
    }

    #[test]
    fn who_gives_a_pool_away_waits_for_who_takes_it() {
        let before = shop(&[("main", &["users"]), ("catalog", &["users", "products"])]);
        let mut observed = changed(before, &[("main", &["users", "products"]), ("catalog", &["users"])]);
        let plan = look(&mut observed);
        assert_eq!(waiting(&plan), ["shop-catalog"]);
        let is_written = |plan: &Plan, name: &str| {
            let deployment = ChildRef { kind: ChildKind::Deployment, name: name.to_owned() };
            plan.children.iter().any(|child| child.reference == deployment)
        };
        assert!(is_written(&plan, "shop-main") && !is_written(&plan, "shop-catalog"));
        assert!(plan.prune.iter().all(|gone| gone.name != "shop-catalog"), "{:?}", plan.prune);
        observed.at = now() + SignedDuration::from_secs(3_600);
        assert_eq!(waiting(&look(&mut observed)), ["shop-catalog"], "and is tried no second time");
        says(&mut observed, "main", &["users", "products"]);
        let plan = look(&mut observed);
        assert!(waiting(&plan).is_empty() && is_written(&plan, "shop-catalog"));
    }

    #[test]
    fn groups_that_would_wait_for_each_other_do_not() {
        let before = shop(&[("main", &["users"]), ("catalog", &["products"])]);
        let mut observed = changed(before, &[("main", &["products"]), ("catalog", &["users"])]);
        assert!(waiting(&look(&mut observed)).is_empty());
    }

    #[test]
    fn a_pool_that_another_group_serves_already_is_not_waited_for() {
        let before = shop(&[("main", &["users", "products"]), ("catalog", &["users", "products"])]);
        let mut observed = changed(before, &[("main", &["users", "products"]), ("catalog", &["products"])]);
        assert!(waiting(&look(&mut observed)).is_empty());
    }
}
