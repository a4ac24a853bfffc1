//! The status of a service in the situations that users meet.

use serde_json::{Value, json};

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::{
    apply::Applied,
    child::ChildKind,
    desired::{self, telling::Of},
    fixture::{change_tier, live, now, observed, observed_with, settle},
    observe::{
        ObservedPod,
        report::{PodReport, PoolReport, SecretReport, Trouble, UnavailableReport},
    },
    validate::validate,
};

/// The status after a reconcile in which every apply succeeded.
fn status_of(observed: &Observed) -> ServiceStatus {
    status_after(observed, Ok(()))
}

fn status_after(observed: &Observed, outcome: Result<(), Error>) -> ServiceStatus {
    let verdict = validate(observed);
    let plan = desired::plan(observed, &verdict);
    let mut children = observed.children.clone();
    if outcome.is_ok() {
        for child in &plan.children {
            if !children.iter().any(|live| live.reference == child.reference) {
                children.push(live(child));
            }
            if let Some(old) = children.iter_mut().find(|live| {
                live.reference == child.reference
                    && live.annotation(crate::child::annotation::APPLIED) != Some(&child.hash)
            }) {
                *old = live(child);
            }
        }
    }
    let applied = Applied { children, outcome, again: false, changed: false };
    let facts = facts::gather(observed, &verdict, &plan, &applied);
    service::status(&facts, observed, &[])
}

/// `Ready=True/Serving` and so on.
fn says(status: &ServiceStatus, kind: &str) -> String {
    let condition = find(&status.conditions, kind).unwrap();
    format!("{}/{}", condition.status, condition.reason)
}

fn settled() -> Observed {
    let mut observed = observed();
    settle(&mut observed);
    observed
}

fn with_pods(change: impl Fn(usize, &mut ObservedPod)) -> Observed {
    let mut observed = settled();
    observed.pods.iter_mut().enumerate().for_each(|(index, pod)| change(index, pod));
    observed
}

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
fn a_full_disk_and_settings_that_lose_writes_are_told_and_say_nothing_of_readiness() {
    let status = status_of(&with_pods(|i, pod| {
        let backends = &mut pod.report.as_mut().unwrap().backends;
        let backend = backends.iter_mut().find(|one| one.name == "mysql").unwrap();
        backend.storage_full = (i == 0).then(|| "the disk is full".to_owned());
        backend.durability = vec!["sync_binlog = 0: writes can be lost".to_owned()];
    }));
    assert_eq!(says(&status, "StorageFull"), "True/StorageFull");
    assert_eq!(find(&status.conditions, "StorageFull").unwrap().message, "mysql: the disk is full");
    assert_eq!(says(&status, "DurabilityReduced"), "True/BackendSettings");
    let told = &find(&status.conditions, "DurabilityReduced").unwrap().message;
    assert_eq!(told, "mysql: sync_binlog = 0: writes can be lost");
    assert_eq!(says(&status, "Ready"), "True/Serving");
}

#[test]
fn passwords_that_others_can_read_are_told_and_say_nothing_of_readiness() {
    let condition =
        |observed: &Observed| find(&status_of(observed).conditions, "PlaintextPassword").unwrap().clone();
    assert_eq!(condition(&settled()).status, "False");
    let of_a_pod = with_pods(|i, pod| {
        let backends = &mut pod.report.as_mut().unwrap().backends;
        backends.iter_mut().find(|one| one.name == "mysql").unwrap().plaintext_password = i == 0;
    });
    let told = condition(&of_a_pod);
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "RefusedNextRelease"));
    assert!(
        told.message.contains("backend mysql") && told.message.contains("allowPlaintext"),
        "{}",
        told.message
    );
    assert_eq!(says(&status_of(&of_a_pod), "Ready"), "True/Serving");
    let mut of_the_spec = observed_with(|spec| {
        spec["pipeline"] =
            json!({ "payments": { "http": { "url": "https://user:hunter2@pay.example.test" } } });
    });
    settle(&mut of_the_spec);
    let told = condition(&of_the_spec).message;
    assert!(told.contains("spec.pipeline.payments.http.url") && !told.contains("hunter2"), "{told}");
    assert_eq!(says(&status_of(&of_the_spec), "Ready"), "True/Serving");
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
fn faults_are_listed_and_the_last_good_configuration_keeps_running() {
    let mut observed = settled();
    let good = status_of(&observed).configuration;
    crate::fixture::change_pool(&mut observed, 0, |spec| spec["tierRefs"] = json!([{ "name": "cold" }]));
    observed.pools.pop();
    let status = status_of(&observed);
    assert_eq!(says(&status, "Ready"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "ConfigurationApplied"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "Progressing"), "False/InvalidConfiguration");
    assert_eq!(says(&status, "Available"), "True/PodsReady");
    assert_eq!((status.configuration, status.pods_ready.as_deref()), (good, Some("3/3")));
    let message = &find(&status.conditions, "Ready").unwrap().message;
    for part in
        ["FlyweightPool/products spec.tierRefs[0].name", "FlyweightService/shop spec.poolRefs[0].name", "; "]
    {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_missing_secret_is_named() {
    let mut first = observed();
    first.secrets.remove("shop-mysql");
    let status = status_of(&first);
    assert_eq!(says(&status, "Ready"), "False/SecretMissing");
    assert_eq!(says(&status, "Degraded"), "True/SecretMissing");
    assert_eq!(says(&status, "ConfigurationApplied"), "False/SecretMissing");
    let message = &find(&status.conditions, "Ready").unwrap().message;
    assert_eq!(message, "missing: Secret \"shop-mysql\" (spec.backends[name=mysql].secretRef)");
}

#[test]
fn a_certificate_that_nobody_can_issue_is_told_with_what_to_do() {
    let mut observed = settled();
    let with_tls =
        observed_with(|spec| spec["security"]["tls"] = json!({ "issuerRef": { "name": "authority" } }));
    observed.service = with_tls.service;
    let status = status_of(&observed);
    assert_eq!(says(&status, "ConfigurationApplied"), "False/CertManagerMissing");
    assert_eq!(says(&status, "Ready"), "False/CertManagerMissing");
    assert_eq!(says(&status, "Available"), "True/PodsReady", "what ran runs on");
    let message = &find(&status.conditions, "ConfigurationApplied").unwrap().message;
    assert!(
        message.contains("Issuer \"authority\"") && message.contains("install cert-manager"),
        "{message}"
    );
    observed.cert_manager = true;
    assert_eq!(
        says(&status_of(&observed), "ConfigurationApplied"),
        "False/SecretMissing",
        "until it is issued"
    );
}

#[test]
fn a_pause_matters_only_while_something_waits_for_its_end() {
    let pause = |spec: &mut Value| spec["paused"] = json!(true);
    let mut idle = observed_with(pause);
    let settled = settled();
    idle.children.clone_from(&settled.children);
    idle.pods.clone_from(&settled.pods);
    idle.running.clone_from(&settled.running);
    let status = status_of(&idle);
    assert_eq!(
        (says(&status, "Ready"), says(&status, "Progressing")),
        ("True/Serving".to_owned(), "False/Paused".to_owned())
    );
    change_tier(&mut idle, |spec| spec["ttl"] = json!("7s"));
    let status = status_of(&idle);
    assert_eq!(
        (says(&status, "Ready"), says(&status, "ConfigurationApplied")),
        ("False/Paused".to_owned(), "False/Paused".to_owned())
    );
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

#[test]
fn a_refusal_of_the_api_server_is_a_condition_and_an_outage_is_not() {
    let refused = Err(Error::Foreign { object: "Service shop".to_owned() });
    assert_eq!(says(&status_after(&settled(), refused), "Ready"), "False/ApplyFailed");
    let status = status_after(&settled(), outage());
    assert_eq!((says(&status, "Ready"), says(&status, "Progressing")), said("True/Serving", "True/Applying"));
    assert_eq!(
        find(&status.conditions, "Progressing").unwrap().message,
        "cannot apply Service shop: no answer within 5 s; it is tried again"
    );
}

fn outage() -> Result<(), Error> {
    Err(Error::Timeout { verb: "apply", object: "Service shop".to_owned(), seconds: 5 })
}

fn said(one: &str, other: &str) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

#[test]
fn what_could_not_be_written_is_not_settled() {
    let mut observed = settled();
    observed.service = observed_with(|spec| spec["replicaGroups"][0]["replicas"] = json!(5)).service;
    let status = status_after(&observed, outage());
    assert_eq!(
        (says(&status, "Ready"), says(&status, "Progressing")),
        said("False/PodsNotReady", "True/Applying")
    );
    assert_eq!(status.pods_ready.as_deref(), Some("3/6"));
    assert_eq!(says(&status, "ConfigurationApplied"), "False/Applying");
    let message = &find(&status.conditions, "ConfigurationApplied").unwrap().message;
    assert!(
        message.contains("Deployment shop-main of configuration") && message.contains("no answer"),
        "{message}"
    );
    // Fewer pods than there are: enough are ready, but it is not what is wanted.
    observed.service = observed_with(|spec| spec["replicaGroups"][0]["replicas"] = json!(1)).service;
    assert_eq!(says(&status_after(&observed, outage()), "Ready"), "False/Applying");
}

#[test]
fn whatever_waits_for_the_end_of_a_pause_is_told() {
    type Alter = fn(&mut Value);
    let changes: [(&str, Alter); 4] = [
        ("an image", |spec| spec["image"] = json!("flyweight/dataplane:2")),
        ("replicas", |spec| spec["replicaGroups"][0]["replicas"] = json!(5)),
        ("resources", |spec| spec["replicaGroups"][0]["resources"]["requests"]["cpu"] = json!("2")),
        ("a gateway", |spec| spec["gateway"] = json!({ "replicas": 2 })),
    ];
    for (what, change) in changes {
        let mut observed = settled();
        let paused = observed_with(|spec| {
            spec["paused"] = json!(true);
            change(spec);
        });
        observed.service = paused.service;
        let status = status_of(&observed);
        assert_eq!(says(&status, "ConfigurationApplied"), "False/Paused", "{what}");
        assert_eq!(says(&status, "Ready"), "False/Paused", "{what}");
        assert_eq!(status.pods_ready.as_deref(), Some("3/3"), "{what}: they stay as they are");
    }
}

#[test]
fn figures_are_sums_over_the_pods() {
    let observed = with_pods(|_, pod| {
        let pool = PoolReport {
            name: "products".to_owned(),
            entities: 10,
            hits: 3,
            misses: 1,
            bytes: 1024,
            bytes_saved: 512,
            staleness_ms: 1200,
            tiers: vec![crate::observe::report::TierReport {
                name: "hot".to_owned(),
                hits: 1,
                misses: 1,
                entries: 5,
            }],
            ..PoolReport::default()
        };
        pod.report.as_mut().unwrap().pools = vec![pool];
    });
    let status = status_of(&observed);
    let figures = &status.pools[0];
    assert_eq!(
        (figures.name.as_str(), figures.entities, figures.bytes_saved.as_str()),
        ("products", 30, "1.5Ki")
    );
    assert_eq!(figures.hit_ratio.as_deref(), Some("75.0%"));
    assert_eq!((figures.bytes.as_str(), figures.staleness.as_deref()), ("3Ki", Some("1.2s")));
    assert_eq!(figures.tiers[0].hit_ratio.as_deref(), Some("50.0%"));
    let quiet = status_of(&settled());
    assert_eq!(status.essence(), quiet.essence());
    assert_ne!(status, quiet);
}

#[test]
fn a_secret_that_cannot_be_used_is_said_while_requests_are_served() {
    let observed = with_pods(|at, pod| {
        let why = (at == 0).then(|| "the store is unavailable".to_owned());
        let secret = SecretReport { name: "backends/mysql".to_owned(), problem: why };
        pod.report.as_mut().unwrap().secrets.push(secret);
    });
    let status = status_of(&observed);
    let degraded = find(&status.conditions, "Degraded").unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "SecretNotApplied"));
    assert!(degraded.message.contains("backends/mysql (the store is unavailable)"), "{}", degraded.message);
    assert_eq!(says(&status, "Ready"), "True/Serving");
}

#[test]
fn what_another_owner_has_is_told_with_the_owner_and_what_to_do() {
    let mut observed = settled();
    let report = observed.pods[0].report.as_mut().unwrap();
    let redis = report.backends.iter_mut().find(|backend| backend.name == "redis").unwrap();
    (redis.reachable, redis.owned_by) = (false, Some("team-a/shop".to_owned()));
    let status = status_of(&observed);
    for (condition, expected) in [
        ("Ready", "False/OwnedByAnother"),
        ("Degraded", "True/OwnedByAnother"),
        ("BackendsReachable", "True/Reachable"),
    ] {
        assert_eq!(says(&status, condition), expected);
    }
    let message = &find(&status.conditions, "Ready").unwrap().message;
    assert!(
        message.contains("backend redis: team-a/shop") && message.contains("take-over-from"),
        "{message}"
    );
}

#[test]
fn a_broker_that_is_away_matters_where_it_accepts_what_the_store_has_not() {
    // Writes that the store gets later, and events for products that can be written.
    let cases: [(&str, &str, &str, &str); 3] = [
        ("Configuration", "WriteThrough", "True/Serving", "their events come late"),
        ("Configuration", "WriteBehind", "False/BackendUnreachable", "writes fail"),
        ("Product", "WriteThrough", "False/BackendUnreachable", "events from outside are refused"),
    ];
    for (entity, write, expected, why) in cases {
        let mut observed = observed_with(|spec| {
            spec["poolRefs"] = json!([{ "name": "users" }]);
            spec["replicaGroups"] = json!([{ "name": "main", "replicas": 2 }]);
            let kafka = json!({ "name": "kafka", "kafka": { "secretRef": { "name": "shop-kafka" } } });
            spec["backends"].as_array_mut().unwrap().push(kafka);
        });
        observed.secrets.insert("shop-kafka".to_owned(), "1".to_owned());
        let pool =
            observed.pools.iter().position(|pool| pool.metadata.name.as_deref() == Some("users")).unwrap();
        crate::fixture::change_pool(&mut observed, pool, |spec| spec["entity"] = json!(entity));
        change_tier(&mut observed, |spec| spec["write"] = json!(write));
        settle(&mut observed);
        assert_eq!(says(&status_of(&observed), "Ready"), "True/Serving", "{why}: not while it is there");
        for pod in &mut observed.pods {
            let backends = &mut pod.report.as_mut().unwrap().backends;
            backends.iter_mut().filter(|one| one.name == "kafka").for_each(|one| one.reachable = false);
        }
        assert_eq!(says(&status_of(&observed), "Ready"), expected, "{why}");
    }
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
        let tell = desired::plan(observed, &validate(observed)).tell;
        tell.into_iter().filter(|tell| tell.of == Of::Settings).map(|tell| tell.pod).collect()
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
        let is_scaler =
            |live: &&mut crate::child::Live| live.reference.kind == ChildKind::HorizontalPodAutoscaler;
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

#[test]
fn numbers_that_readers_round_are_named_while_they_are_served() {
    let observed = with_pods(|at, pod| {
        let fields = if at == 0 { vec!["serial".to_owned()] } else { Vec::new() };
        let pool = PoolReport { name: "parts".to_owned(), inexact_numbers: fields, ..PoolReport::default() };
        pod.report.as_mut().unwrap().pools.push(pool);
    });
    let status = status_of(&observed);
    let degraded = find(&status.conditions, "Degraded").unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "InexactNumbers"));
    assert!(degraded.message.starts_with("parts.serial hold"), "{}", degraded.message);
    assert_eq!(says(&status, "Ready"), "True/Serving");
}
