//! What is planned, in the fields that matter.

use crds::{annotations::RESTARTED_AT, settings::Settings};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{
    children::config_map::edition,
    fixture::{
        change_pool, change_tier, everything, find, names, now, observed, observed_with, pass_canaries,
        planned, settle, validated,
    },
    model::{
        child::{ChildKind, ChildRef, annotation},
        notice::Subject,
        observed::Observed,
        plan::{Held, Plan},
    },
};

#[test]
fn a_hot_change_leaves_the_pods_alone_and_a_rolling_one_does_not() {
    let template = |observed: &Observed| {
        find(&planned(observed), ChildKind::Deployment, "shop-main")["spec"]["template"].clone()
    };
    let settings =
        |observed: &Observed| find(&planned(observed), ChildKind::ConfigMap, "shop-settings").clone();
    let before = observed();
    let mut hot = observed();
    change_tier(&mut hot, |spec| spec["ttl"] = json!("7s"));
    assert_eq!(template(&hot), template(&before));
    assert_ne!(settings(&hot), settings(&before));
    let mut rolling = observed();
    change_tier(&mut rolling, |spec| spec["memory"]["policy"] = json!("LRU"));
    assert_ne!(template(&rolling), template(&before));
    let text = settings(&hot)["data"]["settings.json"].as_str().unwrap().to_owned();
    let read: Settings = serde_json::from_str(&text).unwrap();
    assert_eq!(settings(&hot)["metadata"]["annotations"][annotation::CONFIGURATION], read.hash());
}

#[test]
fn only_pods_that_lag_behind_are_told_and_only_once() {
    let mut observed = observed();
    settle(&mut observed);
    assert!(planned(&observed).notifications.is_empty());
    change_tier(&mut observed, |spec| spec["ttl"] = json!("7s"));
    let plan = planned(&observed);
    let told: Vec<&str> = plan.notifications.iter().map(|one| one.pod.as_str()).collect();
    assert_eq!(told, ["shop-main-0", "shop-main-1", "shop-catalog-0"]);
    for (pod, one) in observed.pods.iter_mut().zip(plan.notifications) {
        pod.notice = Some(one.notice);
    }
    assert!(planned(&observed).notifications.is_empty());
    // Pods that are about to be replaced are not told.
    change_tier(&mut observed, |spec| spec["memory"]["policy"] = json!("LRU"));
    assert!(planned(&observed).notifications.is_empty());
}

#[test]
fn what_nobody_wants_any_more_is_pruned() {
    let mut observed = observed();
    settle(&mut observed);
    assert!(planned(&observed).prune.is_empty());
    let mut fewer = observed_with(|spec| {
        spec["replicaGroups"].as_array_mut().unwrap().truncate(1);
    });
    settle(&mut fewer);
    fewer.children.extend(observed.children.into_iter().filter(|live| live.reference.name == "shop-catalog"));
    let pruned: Vec<String> =
        planned(&fewer).prune.iter().map(|child| format!("{} {}", child.kind.name(), child.name)).collect();
    assert_eq!(
        pruned,
        ["Service shop-catalog", "Deployment shop-catalog", "PodDisruptionBudget shop-catalog"]
    );
}

/// What the pods that run need stays with them, whatever the resources say by now.
#[test]
fn nothing_goes_while_pods_are_left_as_they_are() {
    let mut before = observed();
    settle(&mut before);
    let mut observed = observed_with(|spec| {
        spec["replicaGroups"].as_array_mut().unwrap().truncate(1);
    });
    (observed.children, observed.pods, observed.running) = (before.children, before.pods, before.running);
    // its pods do not keep it: nobody is told to go to it
    observed.pods.retain(|pod| pod.group.as_deref() != Some("catalog"));
    observed.secrets.remove("shop-redis");
    let plan = planned(&observed);
    assert_eq!((plan.held, plan.prune), (Some(Held::Secrets), Vec::new()));
}

#[test]
fn a_group_that_is_gone_serves_until_its_successor_does() {
    let mut before = observed_with(|spec| spec["replicaGroups"] = json!([{ "name": "main", "replicas": 2 }]));
    settle(&mut before);
    let mut observed =
        observed_with(|spec| spec["replicaGroups"] = json!([{ "name": "web", "replicas": 2 }]));
    (observed.children, observed.pods, observed.running) = (before.children, before.pods, before.running);
    let plan = pass_canaries(&mut observed);
    let canary = |one: &ChildRef| one.name.contains("-web-canary");
    assert!(plan.held.is_none() && plan.prune.iter().all(canary), "nobody else serves yet: {:?}", plan.prune);
    assert!(names(&plan).contains(&"Deployment shop-web".to_owned()));
    let mut pod = observed.pods[0].clone();
    (pod.group, pod.ready) = (Some("web".to_owned()), false);
    observed.pods.extend([pod.clone(), pod]);
    assert!(planned(&observed).prune.is_empty(), "its pods only start");
    let wanted = validated(&observed).rolling;
    let former = observed.pods[0].rolling.clone();
    for (rolling, ready, whose) in [(former, 2, "of another change"), (Some(wanted.clone()), 1, "too few")] {
        for (at, pod) in observed.pods.iter_mut().skip(2).enumerate() {
            (pod.rolling, pod.ready) = (rolling.clone(), at < ready);
        }
        assert!(planned(&observed).prune.is_empty(), "its pods are {whose}");
    }
    observed.pods.iter_mut().for_each(|pod| pod.ready = true);
    let pruned: Vec<String> = planned(&observed).prune.iter().map(|one| one.kind.name().to_owned()).collect();
    assert_eq!(pruned, ["Service", "Deployment", "PodDisruptionBudget"]);
    observed.pods.clear();
    let mut none = observed_with(|spec| {
        spec["replicaGroups"] = json!([{ "name": "web" }]);
        spec["replicas"] = json!(0);
    });
    none.children = observed.children;
    assert_eq!(planned(&none).prune.len(), 3, "where none is wanted none is waited for");
}

#[test]
fn faults_and_a_pause_leave_everything_as_it_is() {
    let mut faulty = observed();
    settle(&mut faulty);
    faulty.pools.clear();
    faulty.children.retain(|live| live.reference.name != "shop-last-good");
    assert_eq!(planned(&faulty), Plan { held: Some(Held::Faults), ..Plan::default() });
    let paused = observed_with(|spec| spec["paused"] = json!(true));
    assert_eq!(planned(&paused), Plan { held: Some(Held::Paused), ..Plan::default() });
}

#[test]
fn a_missing_secret_holds_back_only_what_would_start_pods_without_it() {
    let without = |mut observed: Observed| {
        observed.secrets.remove("shop-redis");
        observed
    };
    let first = planned(&without(observed()));
    assert_eq!(first.held, Some(Held::Secrets));
    let kinds: Vec<_> = first.children.iter().map(|child| child.reference.kind).collect();
    assert!(!kinds.contains(&ChildKind::Deployment) && !kinds.contains(&ChildKind::ConfigMap));
    assert!(kinds.contains(&ChildKind::Service));
    // The same pods go on: a hot change still reaches them.
    let mut running = observed();
    settle(&mut running);
    change_tier(&mut running, |spec| spec["ttl"] = json!("7s"));
    let plan = planned(&without(running));
    assert_eq!((plan.held, plan.notifications.len()), (None, 3));
}

#[test]
fn an_encryption_key_is_made_once_and_never_again() {
    let encrypted = || {
        let mut observed = observed();
        change_pool(&mut observed, 1, |spec| spec["fields"] = json!([{ "name": "name", "encrypt": true }]));
        observed
    };
    let first = encrypted();
    let plan = planned(&first);
    assert_eq!((plan.key_to_make.as_deref(), plan.held), (Some("shop-encryption"), None));
    let mut later = encrypted();
    later.secrets.insert("shop-encryption".to_owned(), "1".to_owned());
    assert_eq!(planned(&later).key_to_make, None);
    settle(&mut later);
    later.secrets.remove("shop-encryption");
    let verdict = validated(&later);
    assert_eq!(verdict.key_to_make, None);
    assert_eq!(verdict.missing[0].name, "shop-encryption");
}

#[test]
fn autoscaling_begins_with_a_total() {
    let auto = |replicas: Value| {
        planned(&observed_with(|spec| {
            spec["autoscaling"] = json!({ "minReplicas": 4, "maxReplicas": 10 });
            spec["replicas"] = replicas;
        }))
    };
    assert_eq!(auto(Value::Null).replicas_to_seed, Some(4));
    assert_eq!(auto(json!(7)).replicas_to_seed, None);
    assert_eq!(planned(&observed()).replicas_to_seed, None);
    let plan = auto(json!(6));
    let replicas = |name: &str| find(&plan, ChildKind::Deployment, name)["spec"]["replicas"].clone();
    assert_eq!((replicas("shop-main"), replicas("shop-catalog")), (json!(4), json!(2)));
}

#[test]
fn a_request_to_restart_changes_every_pod_and_nothing_else() {
    let before = planned(&everything());
    let mut observed = everything();
    let mut service = (*observed.service).clone();
    service.metadata.annotations.get_or_insert_default().insert(RESTARTED_AT.to_owned(), "now".to_owned());
    observed.service = service.into();
    let after = planned(&observed);
    for (before, after) in before.children.iter().zip(&after.children) {
        let ChildRef { kind, name } = &before.reference;
        let follows = *kind == ChildKind::Deployment || name == "shop-last-good";
        assert_eq!(before.hash != after.hash, follows, "{kind:?} {name}");
    }
}

#[test]
fn a_changed_secret_is_told_to_the_pods_that_were_there_and_replaces_none() {
    let mut observed = everything();
    settle(&mut observed);
    observed.at = now() + SignedDuration::from_secs(60);
    let before = planned(&observed);
    assert!(before.notifications.is_empty());
    observed.secrets.insert("shop-mysql".to_owned(), "2".to_owned());
    let rotated = planned(&observed);
    for (before, after) in before.children.iter().zip(&rotated.children) {
        let notes = before.reference.name == "shop-settings";
        assert_eq!(before.hash != after.hash, notes, "{:?}", before.reference);
    }
    // Once it is written down, with a pod that came later.
    observed.children = rotated.children.iter().map(crate::fixture::live).collect();
    let secrets = edition(&observed, validated(&observed).secrets.as_deref());
    observed.running.as_mut().unwrap().secrets = secrets;
    observed.pods[2].created = observed.at;
    let plan = planned(&observed);
    assert_eq!(plan.children, rotated.children, "written once");
    let told: Vec<_> = plan.notifications.iter().map(|one| (one.pod.as_str(), one.subject)).collect();
    assert_eq!(told, [("shop-main-0", Subject::Secrets), ("shop-main-1", Subject::Secrets)]);
    for (pod, one) in observed.pods.iter_mut().zip(plan.notifications) {
        pod.secrets_notice = Some(one.notice);
    }
    assert!(planned(&observed).notifications.is_empty(), "not twice within a moment");
    observed.secrets.remove("shop-mysql");
    assert_eq!(planned(&observed).children, rotated.children, "a missing Secret changes nothing that runs");
}

#[test]
fn without_cert_manager_what_runs_runs_on_and_its_services_stay() {
    let mut observed = observed();
    settle(&mut observed);
    let with_tls =
        observed_with(|spec| spec["security"]["tls"] = json!({ "issuerRef": { "name": "authority" } }));
    observed.service = with_tls.service;
    let plan = planned(&observed);
    assert_eq!((plan.held, plan.prune.len()), (Some(Held::CertManager), 0));
    assert!(
        !names(&plan).iter().any(|name| name.starts_with("Service ")),
        "clients still find the port: {:?}",
        names(&plan)
    );
    // A service that had its certificate before keeps it, and what is hot goes on.
    observed.cert_manager = true;
    observed.secrets.insert("shop-tls".to_owned(), "1".to_owned());
    observed.pods.clear();
    settle(&mut observed);
    observed.cert_manager = false;
    assert_eq!(planned(&observed).held, None);
}
