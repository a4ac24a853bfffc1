//! Whether a service is ready, and its pods with it.

use super::*;

#[test]
fn all_is_well() {
    let status = status_of(&settled());
    for (kind, expected) in [
        ("Ready", "True/Serving"),
        ("Available", "True/PodsReady"),
        ("Progressing", "False/Settled"),
        ("Degraded", "False/AsExpected"),
        ("Draining", "False/NoPodsEnding"),
        ("ConfigurationApplied", "True/Applied"),
        ("BackendsReachable", "True/Reachable"),
        ("StorageFull", "False/RoomLeft"),
        ("DurabilityReduced", "False/AsExpected"),
    ] {
        assert_eq!(says(&status, kind), expected, "{kind}");
    }
    let hash = status.configuration.clone().unwrap();
    assert_eq!(status.configuration_summary.unwrap(), format!("3 of 3 pods run {hash}"));
    assert_eq!((status.pods_ready.as_deref(), status.replicas), (Some("3/3"), Some(3)));
    assert_eq!(
        status.selector.as_deref(),
        Some("app.kubernetes.io/instance=shop,app.kubernetes.io/component=dataplane")
    );
    assert_eq!(status.endpoint.as_deref(), Some("http://shop.web.svc"));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(
        status.groups.iter().map(|group| (group.name.as_str(), group.ready)).collect::<Vec<_>>(),
        [("catalog", 1), ("main", 2)]
    );
    assert_eq!(status.groups[1].configurations, [crds::status::ConfigurationCount { hash, pods: 2 }]);
}

/// A pod whose table of one pool is missing.
fn without_table() -> Observed {
    let why = UnavailableReport {
        reason: "TableMissing".to_owned(),
        message: "the database has no table products".to_owned(),
    };
    with_pods(move |i, pod| {
        let unavailable = (i == 0).then(|| why.clone());
        let pool = PoolReport { name: "products".to_owned(), unavailable, ..PoolReport::default() };
        pod.report.as_mut().unwrap().pools = vec![pool];
    })
}

#[test]
fn ready_is_false_whenever_something_is_missing() {
    let vital = |backend: &'static str| {
        with_pods(move |_, pod| {
            let report = pod.report.as_mut().unwrap();
            report
                .backends
                .iter_mut()
                .filter(|one| one.name == backend)
                .for_each(|one| one.reachable = false);
        })
    };
    let cases: Vec<(&str, Observed, &str)> = vec![
        (
            "no pod yet",
            {
                let mut o = settled();
                o.pods.clear();
                o
            },
            "False/PodsNotReady",
        ),
        ("one pod is not ready", with_pods(|i, pod| pod.ready = i != 0), "False/PodsNotReady"),
        ("one pod ends", with_pods(|i, pod| pod.terminating = i == 0), "False/PodsNotReady"),
        (
            "one pod runs another configuration",
            with_pods(|i, pod| {
                if i == 0 {
                    pod.report.as_mut().unwrap().configuration = "old".to_owned()
                }
            }),
            "False/Pending",
        ),
        (
            "one pod is silent",
            with_pods(|i, pod| {
                if i == 0 {
                    pod.report = None
                }
            }),
            "False/PodsNotReporting",
        ),
        ("the SQL store is away", vital("mysql"), "False/BackendUnreachable"),
        ("the cache is away", vital("redis"), "True/Serving"),
        ("one pool is away", without_table(), "False/PoolUnavailable"),
        (
            "one pod fails its requests",
            with_pods(|i, pod| pod.report.as_mut().unwrap().trouble = (i == 0).then_some(Trouble::Failing)),
            "False/RequestsFailing",
        ),
        (
            "one pod refuses its requests",
            with_pods(|i, pod| {
                pod.report.as_mut().unwrap().trouble = (i == 0).then_some(Trouble::Overloaded)
            }),
            "False/Overloaded",
        ),
        (
            "stopped",
            {
                let mut o = observed_with(|spec| spec["replicas"] = json!(0));
                settle(&mut o);
                o
            },
            "False/ScaledToZero",
        ),
    ];
    for (name, observed, expected) in cases {
        assert_eq!(says(&status_of(&observed), "Ready"), expected, "{name}");
    }
    let ready = find(&status_of(&without_table()).conditions, "Ready").unwrap().clone();
    assert_eq!(ready.message, "pool products: the database has no table products (TableMissing)");
    assert_eq!(says(&status_of(&without_table()), "Degraded"), "True/PoolUnavailable");
    let ending = with_pods(|i, pod| pod.terminating = i == 0);
    assert_eq!(says(&status_of(&ending), "Draining"), "True/PodsEnding");
    assert_eq!(says(&status_of(&vital("redis")), "Degraded"), "True/BackendUnreachable");
    assert_eq!(says(&status_of(&vital("redis")), "BackendsReachable"), "False/BackendUnreachable");
}

#[test]
fn a_rollout_is_under_way_until_every_pod_is_new() {
    let mut observed = settled();
    let index = observed
        .children
        .iter()
        .position(|one| one.reference.name == "shop-main" && one.reference.kind == ChildKind::Deployment)
        .unwrap();
    let mut object = (*observed.children[index].object).clone();
    object.data["status"]["updatedReplicas"] = json!(1);
    observed.children[index].object = Arc::new(object.clone());
    let status = status_of(&observed);
    assert_eq!(says(&status, "Ready"), "False/RollingOut");
    assert_eq!(says(&status, "Progressing"), "True/RollingOut");
    assert_eq!(
        (says(&status, "Available"), says(&status, "Degraded")),
        ("True/PodsReady".to_owned(), "False/AsExpected".to_owned())
    );
    object.data["status"]["updatedReplicas"] = json!(2);
    object.metadata.generation = Some(2);
    observed.children[index].object = Arc::new(object.clone());
    assert_eq!(
        says(&status_of(&observed), "Ready"),
        "False/RollingOut",
        "the Deployment has not been looked at yet"
    );
    object.metadata.generation = Some(1);
    object.data["status"]["conditions"] =
        json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    observed.children[index].object = Arc::new(object);
    assert_eq!(says(&status_of(&observed), "Degraded"), "True/RolloutStuck");
}

#[test]
fn pods_that_will_not_start_by_waiting_are_degraded() {
    let waiting = |reason: &'static str, age: i64| {
        with_pods(move |index, pod| {
            if index == 0 {
                pod.ready = false;
                pod.report = None;
                pod.waiting = Some(reason.to_owned());
                pod.created = Timestamp::from_second(now().as_second() - age).unwrap();
            }
        })
    };
    for (reason, age, expected) in [
        ("ContainerCreating", 5, "False/AsExpected"),
        ("ContainerCreating", 90, "True/PodsFailing"),
        ("ImagePullBackOff", 5, "True/PodsFailing"),
    ] {
        assert_eq!(says(&status_of(&waiting(reason, age)), "Degraded"), expected, "{reason} after {age} s");
    }
    let message =
        find(&status_of(&waiting("ImagePullBackOff", 5)).conditions, "Ready").unwrap().message.clone();
    assert_eq!(message, "main: 1 of 2 pods are ready (shop-main-0: ImagePullBackOff)");
}

/// The shop behind a gateway of one pod, with what that says of itself.
fn behind_a_gateway(report: Option<PodReport>) -> Observed {
    let mut observed = observed_with(|spec| spec["gateway"] = json!({ "replicas": 1 }));
    settle(&mut observed);
    observed.pods.push(ObservedPod {
        name: "shop-gateway-0".to_owned(),
        ready: true,
        report,
        ..ObservedPod::default()
    });
    observed
}

#[test]
fn a_gateway_that_lags_or_fails_is_told() {
    let says = |report: PodReport, kind: &str| says(&status_of(&behind_a_gateway(Some(report))), kind);
    let hash = validate(&behind_a_gateway(None)).unwrap().hash;
    let current = || PodReport { configuration: hash.clone(), ready: true, ..PodReport::default() };
    assert_eq!(says(current(), "Ready"), "True/Serving");
    let lagging = || PodReport { configuration: "old".to_owned(), ..current() };
    assert_eq!(says(lagging(), "ConfigurationApplied"), "False/Pending");
    assert_eq!(says(lagging(), "Ready"), "False/Pending");
    let failing = || PodReport { trouble: Some(Trouble::Failing), ..current() };
    assert_eq!(says(failing(), "Ready"), "False/RequestsFailing");
    let failed =
        find(&status_of(&behind_a_gateway(Some(failing()))).conditions, "Degraded").unwrap().message.clone();
    assert_eq!(failed, "more than half of the requests fail (5xx) in shop-gateway-0");
    let mut observed = behind_a_gateway(Some(lagging()));
    let told = |observed: &Observed| -> Vec<String> {
        let notifications = plan(observed, &validate(observed)).notifications;
        notifications.into_iter().filter(|one| one.subject == Subject::Settings).map(|one| one.pod).collect()
    };
    assert_eq!(told(&observed), [""; 0], "it is to be replaced");
    observed.pods.last_mut().unwrap().rolling = observed.pods[0].rolling.clone();
    assert_eq!(told(&observed), ["shop-gateway-0"]);
    // one of a version before says nothing
    let applied =
        find(&status_of(&behind_a_gateway(None)).conditions, "ConfigurationApplied").unwrap().reason.clone();
    assert_eq!(applied, "Applied");
}

#[test]
fn an_autoscaler_that_cannot_work_is_told_after_a_while() {
    let degraded = |reason: &str, seconds: i64, age: i64| {
        let mut observed =
            observed_with(|spec| spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 10 }));
        settle(&mut observed);
        observed
            .pods
            .iter_mut()
            .for_each(|pod| pod.created = Timestamp::from_second(now().as_second() - age).unwrap());
        let is_scaler = |live: &&mut Live| live.reference.kind == ChildKind::HorizontalPodAutoscaler;
        let live = observed.children.iter_mut().find(is_scaler).unwrap();
        let mut object = (*live.object).clone();
        let since = Timestamp::from_second(now().as_second() - seconds).unwrap().to_string();
        object.data["status"]["conditions"] = json!([{ "type": "ScalingActive", "status": "False", "reason": reason, "lastTransitionTime": since }]);
        live.object = Arc::new(object);
        let status = status_of(&observed);
        assert_eq!(says(&status, "Ready"), "True/Serving");
        says(&status, "Degraded")
    };
    assert_eq!(
        degraded("FailedGetResourceMetric", 60, 180),
        "False/AsExpected",
        "pods have to be measured first"
    );
    assert_eq!(degraded("FailedGetResourceMetric", 180, 60), "False/AsExpected", "these, too");
    assert_eq!(degraded("FailedGetResourceMetric", 180, 180), "True/AutoscalingInactive");
    assert_eq!(degraded("ScalingDisabled", 180, 180), "False/AsExpected", "no pods are wanted");
}
