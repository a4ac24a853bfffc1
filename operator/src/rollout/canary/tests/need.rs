//! Which changes have a canary, and in which groups.

use super::*;

#[test]
fn a_change_to_tls_goes_without() {
    let mut observed = observed();
    settle(&mut observed);
    let tls = |spec: &mut Value| spec["security"]["tls"] = json!({ "secretRef": { "name": "shop-tls" } });
    observed.service = observed_with(tls).service;
    observed.secrets.insert("shop-tls".to_owned(), "1".to_owned());
    let plan = planned(&observed);
    assert_eq!((plan.held, &plan.trial), (None, &None));
    assert!(names(&plan).contains(&"Deployment shop-main".to_owned()), "pods and port change together");
}

#[test]
fn scaling_goes_on_meanwhile() {
    let mut observed = changed();
    let mut service = (*observed.service).clone();
    service.spec.replicas = Some(6);
    observed.service = service.into();
    let plan = planned(&observed);
    let deployments = plan.restore.iter().filter(|child| child.reference.kind == ChildKind::Deployment);
    let pods =
        deployments.map(|child| (child.reference.name.as_str(), child.body["spec"]["replicas"].as_u64()));
    assert_eq!(pods.collect::<Vec<_>>(), [("shop-catalog", Some(2)), ("shop-main", Some(4))]);
    assert_eq!(plan.resize, []);
    // where nothing is kept, their number alone is changed
    observed.children.retain(|live| live.reference.name != "shop-last-good");
    let plan = planned(&observed);
    let resized: Vec<(&str, u32)> =
        plan.resize.iter().map(|(one, replicas)| (one.name.as_str(), *replicas)).collect();
    assert_eq!((resized, plan.restore), (vec![("shop-main", 4), ("shop-catalog", 2)], vec![]));
}

#[test]
fn there_is_no_canary_where_nobody_could_be_harmed() {
    let trial = |change: &dyn Fn(&mut Observed)| {
        let mut observed = changed();
        change(&mut observed);
        planned(&observed).trial
    };
    assert!(trial(&|_| ()).is_some());
    assert_eq!(trial(&|observed| observed.pods.clear()), None, "no pod serves");
    assert_eq!(trial(&|observed| observed.pods.iter_mut().for_each(|pod| pod.ready = false)), None);
    assert_eq!(trial(&|observed| observed.children.clear()), None, "there was nothing before");
    // A restart runs what runs already.
    let mut restart = observed();
    settle(&mut restart);
    let mut service = (*restart.service).clone();
    service.metadata.annotations.get_or_insert_default().insert(RESTARTED_AT.to_owned(), "now".to_owned());
    restart.service = service.into();
    assert_eq!(planned(&restart).trial, None);
}

/// The group "main" has another name from now on.
fn renamed() -> Observed {
    let mut observed = observed();
    settle(&mut observed);
    observed.service = observed_with(|spec| spec["replicaGroups"][0]["name"] = json!("core")).service;
    observed
}

#[test]
fn a_group_that_replaces_another_has_a_canary_too() {
    let mut observed = renamed();
    let first = planned(&observed);
    assert_eq!(first.trial, Some(Trial::Running("the canary of group core starts".to_owned())));
    assert!(!names(&first).contains(&"Deployment shop-core".to_owned()), "{:?}", names(&first));
    apply(&mut observed, &first);
    observed.pods.push(pod_of(&first, "core", true, answered(0, 0)));
    let plan = planned(&observed);
    apply(&mut observed, &plan);
    // compared with the pods that it would replace
    answers(&mut observed, answered(40, 20));
    observed.pods[0].report.as_mut().unwrap().requests = answered(40, 0);
    let failed = planned(&observed);
    let told = "40 requests, 20 of them failed, in 0.0 ms each; the others 40 requests, 0 of them failed";
    assert!(matches!(&failed.trial, Some(Trial::Failed(how)) if how.contains(told)), "{:?}", failed.trial);
    apply(&mut observed, &failed);
    observed.pods.retain(|pod| pod.canary.is_none());
    assert!(failed.prune.is_empty() && planned(&observed).prune.is_empty(), "the former pods serve on");
    assert_eq!(planned(&observed).trial, failed.trial, "and it stays so");
}

#[test]
fn a_group_that_comes_besides_needs_no_canary_nor_does_one_in_the_place_of_none() {
    let mut observed = renamed();
    observed.pods.retain(|pod| pod.group.as_deref() != Some("main"));
    let plan = planned(&observed);
    assert_eq!(plan.trial, Some(Trial::Running("the canary of group catalog starts".to_owned())));
    assert!(names(&plan).iter().all(|name| !name.contains("core")), "{:?}", names(&plan));
}
