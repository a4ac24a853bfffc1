//! What becomes of a change, from the first pod to the last.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{
    fixture::{apply, change_tier, now, observed, observed_with, settle},
    model::{
        observed::{Observed, ObservedPod},
        plan::{Held, Plan},
        report::{PodReport, PoolReport, RequestsReport, UnavailableReport},
    },
    rollout::plan,
    validate::validate,
};

mod need;

fn planned(observed: &Observed) -> Plan {
    plan(observed, &validate(observed))
}

/// Two pods of one group serve, and a change would replace them.
fn changed() -> Observed {
    let mut observed = observed();
    settle(&mut observed);
    change_tier(&mut observed, |spec| spec["memory"]["policy"] = json!("LRU"));
    observed
}

fn names(plan: &Plan) -> Vec<String> {
    let children = plan.children.iter().map(|child| &child.reference);
    let pods = children.filter(|one| matches!(one.kind, ChildKind::ConfigMap | ChildKind::Deployment));
    pods.map(|one| format!("{} {}", one.kind.name(), one.name)).collect()
}

/// The canary of the plan as a pod, with what it answered.
fn pod(plan: &Plan, ready: bool, requests: RequestsReport) -> ObservedPod {
    pod_of(plan, "main", ready, requests)
}

fn pod_of(plan: &Plan, group: &str, ready: bool, requests: RequestsReport) -> ObservedPod {
    let name = format!("shop-{group}-canary");
    let canary = plan
        .children
        .iter()
        .find(|child| child.reference.name == name && child.reference.kind == ChildKind::Deployment);
    let template = &canary.unwrap().body["spec"]["template"]["metadata"];
    ObservedPod {
        name: format!("{name}-1"),
        group: template["labels"][label::GROUP].as_str().map(str::to_owned),
        canary: template["annotations"][annotation::CANARY].as_str().map(str::to_owned),
        ready,
        created: now(),
        report: ready.then(|| PodReport { requests, ..PodReport::default() }),
        ..ObservedPod::default()
    }
}

fn answered(total: u64, errors: u64) -> RequestsReport {
    RequestsReport { total, errors, ..RequestsReport::default() }
}

fn later(observed: &mut Observed, seconds: i64) {
    observed.at += SignedDuration::from_secs(seconds);
}

/// As soon as the canary is ready and watched.
fn watched() -> Observed {
    let mut observed = changed();
    let first = planned(&observed);
    apply(&mut observed, &first);
    observed.pods.push(pod(&first, true, answered(0, 0)));
    let plan = planned(&observed);
    assert_eq!(plan.trial, Some(Trial::Running("the canary of group main is watched".to_owned())));
    apply(&mut observed, &plan);
    observed
}

fn answers(observed: &mut Observed, requests: RequestsReport) {
    let pod = observed.pods.iter_mut().find(|pod| pod.canary.is_some()).unwrap();
    pod.report = Some(PodReport { requests, ..PodReport::default() });
}

#[test]
fn one_pod_takes_the_change_first() {
    let mut observed = changed();
    let plan = planned(&observed);
    assert_eq!(
        (plan.held, &plan.trial),
        (Some(Held::Canary), &Some(Trial::Running("the canary of group main starts".to_owned())))
    );
    assert_eq!(names(&plan), ["ConfigMap shop-main-canary-settings", "Deployment shop-main-canary"]);
    let canary = &plan
        .children
        .iter()
        .find(|child| child.reference.kind == ChildKind::Deployment)
        .unwrap()
        .body["spec"];
    assert_eq!(canary["replicas"], 1);
    assert_eq!(canary["template"]["spec"]["volumes"][0]["configMap"]["name"], "shop-main-canary-settings");
    assert_eq!(
        canary["template"]["metadata"]["labels"][label::GROUP],
        "main",
        "it gets its part of the traffic"
    );
    assert_eq!(canary["selector"]["matchLabels"][label::CANARY], "true", "other pods are none of its own");
    apply(&mut observed, &plan);
    assert_eq!(planned(&observed), plan, "it is waited for");
}

#[test]
fn a_canary_that_loses_a_pool_that_the_others_serve_fails_and_one_with_a_new_pool_does_not() {
    let pool = |unavailable| PoolReport { name: "products".to_owned(), unavailable, ..PoolReport::default() };
    let away =
        || Some(UnavailableReport { reason: "TableMissing".to_owned(), message: "no table".to_owned() });
    let trial = |others: Vec<PoolReport>| {
        let mut observed = watched();
        for pod in &mut observed.pods {
            let report = pod.report.as_mut().unwrap();
            report.pools = if pod.canary.is_some() { vec![pool(away())] } else { others.clone() };
        }
        later(&mut observed, 15);
        planned(&observed).trial
    };
    let failed = trial(vec![pool(None)]);
    assert_eq!(
        failed,
        Some(Trial::Failed(
            "the canary of group main cannot serve pool products: no table (TableMissing)".to_owned()
        ))
    );
    let goes_on = Some(Trial::Running("the canary of group catalog starts".to_owned()));
    assert_eq!(trial(vec![]), goes_on, "the pool is new");
    assert_eq!(trial(vec![pool(away())]), goes_on, "it was away before");
}

#[test]
fn a_canary_that_does_no_worse_lets_the_others_follow() {
    let mut observed = watched();
    answers(&mut observed, answered(500, 1));
    later(&mut observed, 14);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    later(&mut observed, 1);
    // The other group's pods would be others, too: then it is its turn.
    let plan = planned(&observed);
    assert_eq!(plan.trial, Some(Trial::Running("the canary of group catalog starts".to_owned())));
    let replicas = |name: &str| {
        let canary = plan
            .children
            .iter()
            .find(|one| one.reference.name == name && one.reference.kind == ChildKind::Deployment);
        canary.unwrap().body["spec"]["replicas"].clone()
    };
    assert_eq!((replicas("shop-main-canary"), replicas("shop-catalog-canary")), (json!(0), json!(1)));
    apply(&mut observed, &plan);
    observed.pods.retain(|pod| pod.canary.is_none());
    observed.pods.push(pod_of(&plan, "catalog", true, answered(0, 0)));
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    answers(&mut observed, answered(300, 0));
    later(&mut observed, 15);
    let plan = planned(&observed);
    let Some(Trial::Passed(what)) = &plan.trial else { panic!("{:?}", plan.trial) };
    assert!(
        what.contains("main answered 500 requests, 1 of them failed") && what.contains("catalog"),
        "{what}"
    );
    let after = [
        "ConfigMap shop-last-good",
        "ConfigMap shop-settings",
        "Deployment shop-catalog",
        "Deployment shop-main",
    ];
    assert_eq!(names(&plan), after);
    let pruned: Vec<&str> = plan.prune.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        pruned,
        [
            "shop-catalog-canary-settings",
            "shop-main-canary-settings",
            "shop-catalog-canary",
            "shop-main-canary"
        ]
    );
    apply(&mut observed, &plan);
    assert_eq!(planned(&observed).trial, None);
}

#[test]
fn a_canary_that_does_worse_is_taken_away_and_the_change_held_back() {
    let mut observed = watched();
    answers(&mut observed, answered(40, 20));
    let plan = planned(&observed);
    assert_eq!(plan.held, Some(Held::CanaryFailed));
    assert!(
        matches!(&plan.trial, Some(Trial::Failed(how)) if how.contains("fails more requests")),
        "{:?}",
        plan.trial
    );
    let canary = plan.children.iter().find(|child| child.reference.name == "shop-main-canary").unwrap();
    assert_eq!(canary.body["spec"]["replicas"], 0);
    apply(&mut observed, &plan);
    observed.pods.retain(|pod| pod.canary.is_none());
    later(&mut observed, 3600);
    assert_eq!(planned(&observed).trial, plan.trial, "it stays so");
    // Taken back, nothing is left of it.
    change_tier(&mut observed, |spec| spec["memory"] = json!({}));
    let back = planned(&observed);
    assert_eq!((back.held, back.trial, back.prune.len()), (None, None, 2));
}

#[test]
fn overload_makes_no_canary_fail() {
    let mut observed = watched();
    let busy = RequestsReport { total: 100, errors: 1, refused: 45, seconds: 0.4 };
    answers(&mut observed, busy);
    observed.pods[0].report.as_mut().unwrap().requests = RequestsReport { refused: 30, ..busy };
    later(&mut observed, 15);
    assert_eq!(
        planned(&observed).trial,
        Some(Trial::Running("the canary of group catalog starts".to_owned()))
    );
}

#[test]
fn the_figures_of_the_others_count_from_when_the_canary_was_ready() {
    let mut observed = changed();
    let others = |observed: &mut Observed, requests| {
        let report = observed.pods[0].report.as_mut().unwrap();
        report.requests = requests;
    };
    others(&mut observed, answered(1_000_000, 0));
    let first = planned(&observed);
    apply(&mut observed, &first);
    observed.pods.push(pod(&first, true, answered(0, 0)));
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    // A store is away, for all: the canary is no worse, and it is not sure that it is well either.
    answers(&mut observed, answered(100, 100));
    others(&mut observed, answered(1_000_100, 100));
    later(&mut observed, 60);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    later(&mut observed, 45);
    assert_eq!(
        planned(&observed).trial,
        Some(Trial::Running("the canary of group catalog starts".to_owned()))
    );
}

#[test]
fn a_pod_that_ends_or_is_silent_meanwhile_makes_no_canary_fail() {
    let mut observed = changed();
    let others = |observed: &mut Observed, index: usize, requests| {
        observed.pods[index].report.as_mut().unwrap().requests = requests;
    };
    others(&mut observed, 0, answered(1_000_000, 0));
    others(&mut observed, 1, answered(1_000, 0));
    let first = planned(&observed);
    apply(&mut observed, &first);
    observed.pods.push(pod(&first, true, answered(7, 7)));
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    // A store is away for all, and the pod that had answered most is silent.
    answers(&mut observed, answered(107, 107));
    let report = observed.pods[0].report.take();
    others(&mut observed, 1, answered(1_100, 100));
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    // With the other gone, too, there is nobody to compare with, until one is back.
    others(&mut observed, 1, answered(0, 0));
    let plan = planned(&observed);
    assert_eq!(plan.held, Some(Held::Canary));
    apply(&mut observed, &plan);
    observed.pods[0].report = report;
    others(&mut observed, 0, answered(1_000_100, 0));
    others(&mut observed, 1, answered(100, 0));
    answers(&mut observed, answered(207, 107));
    later(&mut observed, 15);
    assert_eq!(
        planned(&observed).trial,
        Some(Trial::Running("the canary of group catalog starts".to_owned())),
        "what it failed before does not count against those who were not there"
    );
}

#[test]
fn a_canary_with_nobody_beside_it_is_judged_at_last() {
    let mut observed = watched();
    answers(&mut observed, answered(40, 40));
    observed
        .pods
        .iter_mut()
        .filter(|pod| pod.canary.is_none() && pod.name != "shop-catalog-0")
        .for_each(|pod| pod.report = None);
    later(&mut observed, 104);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    later(&mut observed, 1);
    assert_eq!(planned(&observed).held, Some(Held::CanaryFailed));
}

#[test]
fn a_canary_whose_container_is_started_again_fails() {
    let mut observed = watched();
    let canary = observed.pods.iter_mut().find(|pod| pod.canary.is_some()).unwrap();
    canary.restarts = 1;
    later(&mut observed, 15);
    let plan = planned(&observed);
    let told = "the canary of group main ended, and was started again";
    assert_eq!(plan.trial, Some(Trial::Failed(told.to_owned())), "although it is ready when it is looked at");
}

#[test]
fn a_canary_that_never_gets_ready_fails() {
    let mut observed = changed();
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    observed.pods.push(pod(&plan, false, answered(0, 0)));
    later(&mut observed, 60);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    let mut hopeless = observed.pods.last().unwrap().clone();
    later(&mut observed, 91);
    assert!(
        matches!(planned(&observed).trial, Some(Trial::Failed(how)) if how.contains("not ready within 150 s"))
    );
    hopeless.waiting = Some("ImagePullBackOff".to_owned());
    observed.pods.pop();
    observed.pods.push(hopeless);
    observed.at = now() + SignedDuration::from_secs(21);
    assert!(matches!(planned(&observed).trial, Some(Trial::Failed(how)) if how.contains("ImagePullBackOff")));
}

#[test]
fn where_no_pod_can_be_asked_a_canary_passes_by_staying_ready_and_that_is_said() {
    let mut observed = changed();
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    observed.pods.push(pod(&plan, true, answered(0, 0)));
    observed.pods.iter_mut().for_each(|pod| pod.report = None);
    let plan = planned(&observed);
    let told = |plan: &Plan| match &plan.trial {
        Some(Trial::Running(what) | Trial::Passed(what) | Trial::Failed(what)) => what.clone(),
        None => String::new(),
    };
    assert!(told(&plan).contains("no pod answers the operator at port 9090"), "{}", told(&plan));
    apply(&mut observed, &plan);
    let mut again = observed.clone();
    again.pods.last_mut().unwrap().restarts = 1;
    assert!(matches!(planned(&again).trial, Some(Trial::Failed(_))));
    later(&mut observed, 104);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    later(&mut observed, 1);
    assert_eq!(told(&planned(&observed)), "the canary of group catalog starts", "that of main has passed");
}

#[test]
fn a_canary_whose_pod_is_never_made_fails() {
    let mut observed = changed();
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    later(&mut observed, 150);
    assert_eq!(planned(&observed).held, Some(Held::Canary));
    later(&mut observed, 1);
    let told = |observed: &Observed| match planned(observed).trial {
        Some(Trial::Failed(how)) => how,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&observed), "the canary of group main was not ready within 150 s: it has no pod");
    let canary = observed.children.iter_mut().find(|live| {
        live.reference.name == "shop-main-canary" && live.reference.kind == ChildKind::Deployment
    });
    let mut object = (*canary.as_ref().unwrap().object).clone();
    object.data["status"]["conditions"] =
        json!([{ "type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods" }]);
    canary.unwrap().object = object.into();
    assert!(told(&observed).ends_with("within 150 s: exceeded quota: pods"));
}

#[test]
fn a_canary_that_falls_over_while_it_is_watched_fails() {
    let mut observed = watched();
    let pod = observed.pods.iter_mut().find(|pod| pod.canary.is_some()).unwrap();
    (pod.ready, pod.report) = (false, None);
    later(&mut observed, 30);
    assert_eq!(planned(&observed).held, Some(Held::Canary), "it may recover");
    later(&mut observed, 6);
    assert!(
        matches!(planned(&observed).trial, Some(Trial::Failed(how)) if how.contains("did not stay ready"))
    );
}

#[test]
fn while_the_stores_are_away_from_all_a_canary_is_waited_for() {
    let mut observed = changed();
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    observed.pods.push(pod(&plan, false, answered(0, 0)));
    let away = |observed: &mut Observed, away: bool| {
        let backends =
            observed.pods.iter_mut().filter_map(|pod| pod.report.as_mut()).flat_map(|one| &mut one.backends);
        backends.filter(|backend| backend.name == "mysql").for_each(|backend| backend.reachable = !away);
    };
    let look = |observed: &mut Observed| {
        let plan = planned(observed);
        apply(observed, &plan);
        plan.trial
    };
    away(&mut observed, true);
    for _ in 0..20 {
        later(&mut observed, 31);
        let Some(Trial::Running(what)) = look(&mut observed) else { panic!() };
        assert!(what.ends_with("stores are back that the others cannot reach either"), "{what}");
    }
    away(&mut observed, false);
    later(&mut observed, 149);
    assert_eq!(look(&mut observed), Some(Trial::Running("the canary of group main starts".to_owned())));
    later(&mut observed, 2);
    assert!(
        matches!(look(&mut observed), Some(Trial::Failed(_))),
        "it has all of its time once they are back"
    );

    let mut observed = watched();
    let pod = observed.pods.iter_mut().find(|pod| pod.canary.is_some()).unwrap();
    (pod.ready, pod.report) = (false, None);
    away(&mut observed, true);
    later(&mut observed, 3_600);
    assert!(matches!(look(&mut observed), Some(Trial::Running(_))), "it was watched already");
    away(&mut observed, false);
    later(&mut observed, 149);
    assert!(matches!(look(&mut observed), Some(Trial::Running(_))), "and begins anew");

    let mut observed = changed();
    look(&mut observed);
    away(&mut observed, true);
    observed.pods[0]
        .report
        .as_mut()
        .unwrap()
        .backends
        .iter_mut()
        .for_each(|backend| backend.reachable = true);
    later(&mut observed, 151);
    assert!(matches!(look(&mut observed), Some(Trial::Failed(_))), "one of the others reaches it");
}
