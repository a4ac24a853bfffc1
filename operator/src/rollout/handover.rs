//! Groups that hand pools over to others. The gateway goes by what pods say they serve, so a pool that moves
//! from one group to another is served without a gap if the pods that hand it over stay until those of its
//! recipients are there.

use std::collections::BTreeSet;

use super::pods::{has_new_gateway, is_whole, others, unwanted};
use crate::{
    children::target::Target,
    model::{
        child::{ChildKind, ChildRef},
        observed::ObservedPod,
        report::PodReport,
        validated::Group,
    },
};

/// The Deployments that wait: of groups with pods that serve a pool which is to be served by others, until
/// those have all their pods for it and the gateway knows them; and before that the gateway's, whose new pods
/// would not know the groups that go.
pub(super) fn waiting(target: &Target<'_>) -> Vec<ChildRef> {
    let handing_over = handing_over(target);
    let moves = !handing_over.is_empty() || unwanted(target).any(|pod| pod.ready);
    let mut stay =
        target.validated.groups.iter().filter(|group| handing_over.iter().all(|one| one.name != group.name));
    let gateway = target.validated.gateway.is_some() && moves && stay.any(|group| !is_whole(target, group));
    let names = handing_over.iter().map(|group| group.name.as_str()).chain(gateway.then_some("gateway"));
    names.map(|name| ChildRef { kind: ChildKind::Deployment, name: target.name_of(name) }).collect()
}

/// The groups that wait for the recipients of their pools.
fn handing_over<'a>(target: &Target<'a>) -> Vec<&'a Group> {
    let groups = &target.validated.groups;
    let handing_over: Vec<(&Group, BTreeSet<&str>)> = groups
        .iter()
        .map(|group| (group, pools_to_hand_over(target, group)))
        .filter(|(_, pools)| !pools.is_empty())
        .collect();
    // Groups that wait for each other would wait for ever: who waits for nobody goes on, and then who waits
    // for those alone. The rest does not wait.
    let mut free: BTreeSet<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    handing_over.iter().for_each(|(group, _)| _ = free.remove(group.name.as_str()));
    loop {
        let goes_on = |(group, pools): &&(&Group, BTreeSet<&str>)| {
            let has_recipient = |pool: &&str| {
                recipients(target, pool).any(|recipient| free.contains(recipient.name.as_str()))
            };
            !free.contains(group.name.as_str()) && pools.iter().all(has_recipient)
        };
        let Some((group, _)) = handing_over.iter().find(goes_on) else { break };
        free.insert(&group.name);
    }
    handing_over
        .into_iter()
        .map(|(group, _)| group)
        .filter(|group| free.contains(group.name.as_str()))
        .collect()
}

/// The pools that pods of the group serve, that it shall serve no more, and that no other group serves yet
/// with all its pods. One that says nothing may serve any, unless none is heard at all.
fn pools_to_hand_over<'a>(target: &Target<'a>, group: &Group) -> BTreeSet<&'a str> {
    let former = others(target, group)
        .filter(|pod| pod.ready && pod.rolling.as_ref() != Some(&target.validated.rolling));
    let reports: Vec<Option<&PodReport>> = former.map(|pod| pod.report.as_ref()).collect();
    let any_heard = target.observed.pods.iter().any(|pod| pod.report.is_some());
    let is_served =
        |pool: &str| reports.iter().any(|report| report.map_or(any_heard, |report| serves(report, pool)));
    let pools = target.validated.settings.pools.iter().map(|pool| pool.name.as_str());
    pools
        .filter(|pool| is_served(pool) && !shall_serve(target, group, pool) && !is_handed_over(target, pool))
        .collect()
}

fn serves(report: &PodReport, pool: &str) -> bool {
    report.pools.iter().any(|one| one.name == pool)
}

/// Whether another group serves the pool with all its pods, and the gateway knows it.
fn is_handed_over(target: &Target<'_>, pool: &str) -> bool {
    let does =
        |pod: &&ObservedPod| pod.ready && pod.report.as_ref().is_some_and(|report| serves(report, pool));
    let mut recipients = recipients(target, pool);
    has_new_gateway(target)
        && recipients
            .any(|recipient| others(target, recipient).filter(does).count() >= recipient.replicas as usize)
}

fn recipients<'a>(target: &Target<'a>, pool: &str) -> impl Iterator<Item = &'a Group> {
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
        fixture::{apply, now, observed_with, pass_canaries, settle, validated},
        model::{
            child::{ChildKind, ChildRef},
            observed::{Observed, ObservedPod},
            plan::{Held, Plan},
            report::PoolReport,
        },
        rollout::plan,
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
        let rolling = observed.pods[0].rolling.clone();
        let gateway =
            ObservedPod { name: "shop-gateway-0".to_owned(), ready: true, rolling, ..ObservedPod::default() };
        observed.pods.push(gateway);
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
        plan.waiting.iter().map(|deployment| deployment.name.strip_prefix("shop-").unwrap()).collect()
    }

    /// The pods of the group, or of the gateway, run by the wanted settings now.
    fn renew(observed: &mut Observed, group: Option<&str>) {
        let rolling = validated(observed).rolling;
        let pods = observed.pods.iter_mut().filter(|pod| pod.group.as_deref() == group);
        pods.for_each(|pod| pod.rolling = Some(rolling.clone()));
    }

    const APART: [(&str, &[&str]); 2] = [("main", &["users"]), ("catalog", &["users", "products"])];
    const MOVED: [(&str, &[&str]); 2] = [("main", &["users", "products"]), ("catalog", &["users"])];

    #[test]
    fn who_gives_a_pool_away_waits_for_who_takes_it_and_for_the_gateway() {
        let mut observed = changed(shop(&APART), &MOVED);
        let plan = look(&mut observed);
        assert_eq!(waiting(&plan), ["catalog", "gateway"]);
        let is_written = |plan: &Plan, name: &str| {
            let deployment = ChildRef { kind: ChildKind::Deployment, name: name.to_owned() };
            plan.children.iter().any(|child| child.reference == deployment)
        };
        assert!(is_written(&plan, "shop-main") && !is_written(&plan, "shop-catalog"));
        assert!(plan.prune.iter().all(|gone| gone.name != "shop-catalog"), "{:?}", plan.prune);
        observed.at = now() + SignedDuration::from_secs(3_600);
        assert_eq!(waiting(&look(&mut observed)), ["catalog", "gateway"], "and is tried no second time");
        renew(&mut observed, Some("main"));
        says(&mut observed, "main", &["users", "products"]);
        assert_eq!(waiting(&look(&mut observed)), ["catalog"], "the gateway finds all that it needs");
        renew(&mut observed, None);
        let plan = look(&mut observed);
        assert!(waiting(&plan).is_empty() && is_written(&plan, "shop-catalog"));
    }

    #[test]
    fn who_says_nothing_may_serve_anything() {
        let mut observed = changed(shop(&APART), &MOVED);
        let of_catalog = |pod: &&mut ObservedPod| pod.group.as_deref() == Some("catalog");
        observed.pods.iter_mut().filter(of_catalog).for_each(|pod| pod.report = None);
        assert_eq!(waiting(&look(&mut observed)), ["catalog", "gateway"]);
        observed.pods.iter_mut().for_each(|pod| pod.report = None);
        assert!(waiting(&look(&mut observed)).is_empty(), "nobody is heard, and would be for ever");
    }

    #[test]
    fn a_fault_meanwhile_changes_no_pods() {
        let mut observed = changed(shop(&APART), &MOVED);
        assert_eq!(waiting(&look(&mut observed)), ["catalog", "gateway"]);
        let template = |observed: &Observed| {
            let mut children = observed.children.iter();
            let catalog = children.find(|live| {
                live.reference.name == "shop-catalog" && live.reference.kind == ChildKind::Deployment
            });
            catalog.unwrap().object.data["spec"]["template"].clone()
        };
        let before = template(&observed);
        observed.pools.clear();
        let plan = look(&mut observed);
        assert_eq!(plan.held, Some(Held::Faults));
        assert!(
            plan.restore.iter().any(|child| child.reference.name == "shop-catalog"),
            "it is repaired as it is"
        );
        assert_eq!(template(&observed), before);
    }

    #[test]
    fn groups_that_would_wait_for_each_other_do_not() {
        let before = shop(&[("main", &["users"]), ("catalog", &["products"])]);
        let mut observed = changed(before, &[("main", &["products"]), ("catalog", &["users"])]);
        assert!(waiting(&look(&mut observed)).is_empty());
    }

    #[test]
    fn behind_a_gateway_a_group_with_another_name_goes_after_the_gateway_knows_it() {
        let mut observed = changed(
            shop(&[("main", &["users"]), ("catalog", &["products"])]),
            &[("core", &["users"]), ("catalog", &["products"])],
        );
        let is_kept = |plan: &Plan| plan.prune.iter().all(|gone| gone.name != "shop-main");
        let plan = look(&mut observed);
        assert!(waiting(&plan) == ["gateway"] && is_kept(&plan), "{plan:?}");
        let core = observed.pods.iter().find(|pod| pod.group.as_deref() == Some("main")).unwrap().clone();
        observed.pods.push(ObservedPod { group: Some("core".to_owned()), ..core });
        renew(&mut observed, Some("core"));
        renew(&mut observed, Some("catalog"));
        let plan = look(&mut observed);
        assert!(waiting(&plan).is_empty() && is_kept(&plan), "the old gateway still goes to it");
        renew(&mut observed, None);
        assert!(!is_kept(&look(&mut observed)));
    }

    #[test]
    fn a_pool_that_another_group_serves_already_waits_for_the_gateway_alone() {
        let before = shop(&[("main", &["users", "products"]), ("catalog", &["users", "products"])]);
        let mut observed = changed(before, &[("main", &["users", "products"]), ("catalog", &["products"])]);
        assert_eq!(waiting(&look(&mut observed)), ["catalog", "gateway"]);
        renew(&mut observed, None);
        assert!(waiting(&look(&mut observed)).is_empty());
    }
}
