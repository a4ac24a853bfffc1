//! What is planned, in the fields that matter.

use std::fmt::Debug;

use crds::annotations::RESTARTED_AT;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::Job,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    jiff::SignedDuration,
};
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    desired::telling::Of,
    fixture::{change_pool, change_tier, now, observed, observed_with, pass_canaries, settle, validated},
};

fn planned(observed: &Observed) -> Plan {
    plan(observed, &crate::validate::validate(observed))
}

fn find<'a>(plan: &'a Plan, kind: ChildKind, name: &str) -> &'a Value {
    let child =
        plan.children.iter().find(|child| child.reference == ChildRef { kind, name: name.to_owned() });
    &child.unwrap_or_else(|| panic!("{kind:?} {name} is planned")).body
}

fn names(plan: &Plan) -> Vec<String> {
    plan.children
        .iter()
        .map(|child| format!("{} {}", child.reference.kind.name(), child.reference.name))
        .collect()
}

fn everything() -> Observed {
    observed_with(|spec| {
        spec["gateway"] = json!({ "replicas": 2 });
        spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 10 });
        spec["networkPolicy"] = json!(true);
    })
}

/// Reads the object as its real type and writes it again: a field that is misspelt or of the wrong type would
/// be lost.
fn survives<K: DeserializeOwned + Serialize + Debug>(body: &Value) {
    let typed: K = serde_json::from_value(body.clone()).unwrap();
    let again = serde_json::to_value(&typed).unwrap();
    assert_eq!(&again, body);
}

#[test]
fn every_child_is_a_valid_object_of_its_kind() {
    let mut upgraded = everything();
    settle(&mut upgraded);
    upgraded.service = observed_with(|spec| spec["image"] = json!("flyweight/dataplane:2")).service;
    let upgrade = planned(&upgraded).children;
    assert!(upgrade.iter().any(|child| child.reference.kind == ChildKind::Job));
    for child in planned(&everything()).children.into_iter().chain(upgrade) {
        match child.reference.kind {
            ChildKind::ServiceAccount => survives::<ServiceAccount>(&child.body),
            // The type is cert-manager's.
            ChildKind::Certificate => assert!(child.body["spec"]["secretName"].is_string()),
            ChildKind::ConfigMap => survives::<ConfigMap>(&child.body),
            ChildKind::Service => survives::<Service>(&child.body),
            ChildKind::NetworkPolicy => survives::<NetworkPolicy>(&child.body),
            ChildKind::Job => survives::<Job>(&child.body),
            ChildKind::Deployment => survives::<Deployment>(&child.body),
            ChildKind::PodDisruptionBudget => survives::<PodDisruptionBudget>(&child.body),
            ChildKind::HorizontalPodAutoscaler => survives::<HorizontalPodAutoscaler>(&child.body),
        }
    }
}

#[test]
fn a_service_has_these_children_in_this_order() {
    assert_eq!(
        names(&planned(&everything())),
        [
            "ServiceAccount shop",
            "ConfigMap shop-last-good",
            "ConfigMap shop-settings",
            "NetworkPolicy shop",
            "NetworkPolicy shop-gateway",
            "Service shop",
            "Service shop-catalog",
            "Service shop-main",
            "Deployment shop-catalog",
            "Deployment shop-gateway",
            "Deployment shop-main",
            "PodDisruptionBudget shop-catalog",
            "PodDisruptionBudget shop-gateway",
            "PodDisruptionBudget shop-main",
            "HorizontalPodAutoscaler shop",
        ]
    );
    let plain = names(&planned(&observed()));
    assert!(
        plain.iter().all(|name| !name.contains("gateway") && !name.starts_with("Horizontal")),
        "{plain:?}"
    );
}

#[test]
fn children_belong_to_the_service_and_say_what_they_are() {
    for child in planned(&everything()).children {
        let metadata = &child.body["metadata"];
        assert_eq!(metadata["namespace"], "web");
        assert_eq!(metadata["labels"][label::NAME], "flyweight-dataplane");
        assert_eq!(metadata["labels"][label::INSTANCE], "shop");
        assert_eq!(metadata["labels"][label::MANAGED_BY], "flyweight-operator");
        assert_eq!(metadata["annotations"][annotation::APPLIED], child.hash);
        let owner = &metadata["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"], &owner["controller"]),
            (&json!("FlyweightService"), &json!("uid-1"), &json!(true))
        );
    }
}

#[test]
fn pods_have_few_rights_probes_and_their_secrets_as_files() {
    let plan = planned(&observed());
    let deployment = find(&plan, ChildKind::Deployment, "shop-main");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"],
        json!({ "maxSurge": 1, "maxUnavailable": 0 })
    );
    assert_eq!(
        (&deployment["spec"]["revisionHistoryLimit"], &deployment["spec"]["paused"]),
        (&json!(3), &json!(false))
    );
    assert_eq!(pod["terminationGracePeriodSeconds"], 60);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(
        container["securityContext"],
        json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } })
    );
    for (probe, path) in
        [("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
    {
        assert_eq!(
            container[probe]["httpGet"],
            json!({ "path": path, "port": "admin", "scheme": "HTTP" }),
            "{probe}"
        );
    }
    assert_eq!(container["env"][0], json!({ "name": "LISTEN", "value": "[::]" }), "it serves others");
    assert_eq!(
        container["args"],
        json!([
            "serve",
            "--config",
            "/etc/flyweight/config/settings.json",
            "--backends",
            "/etc/flyweight/backends",
            "--security",
            "/etc/flyweight/security",
            "--group",
            "main"
        ])
    );
    let paths: Vec<_> =
        container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["mountPath"]).collect();
    assert_eq!(
        paths,
        [
            "/etc/flyweight/config",
            "/etc/flyweight/backends/mysql",
            "/etc/flyweight/backends/mongodb",
            "/etc/flyweight/backends/redis",
            "/etc/flyweight/security/jwt"
        ]
    );
    assert!(container["volumeMounts"].as_array().unwrap().iter().all(|mount| mount.get("subPath").is_none()));
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "shop-mysql");
}

#[test]
fn selectors_match_the_pods_they_are_for() {
    let plan = planned(&observed());
    let labels = |group: &str| {
        let name = format!("shop-{group}");
        find(&plan, ChildKind::Deployment, &name)["spec"]["template"]["metadata"]["labels"]
            .as_object()
            .unwrap()
            .clone()
    };
    let selects = |selector: &Value, labels: &Map<String, Value>| {
        selector.as_object().unwrap().iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    let front = &find(&plan, ChildKind::Service, "shop")["spec"]["selector"];
    assert!(selects(front, &labels("main")) && !selects(front, &labels("catalog")));
    let group = &find(&plan, ChildKind::Service, "shop-catalog")["spec"];
    assert!(selects(&group["selector"], &labels("catalog")) && !selects(&group["selector"], &labels("main")));
    assert_eq!((&group["clusterIP"], group.get("publishNotReadyAddresses")), (&json!("None"), None));
    let budget = &find(&plan, ChildKind::PodDisruptionBudget, "shop-main")["spec"];
    assert!(selects(&budget["selector"]["matchLabels"], &labels("main")));
    assert_eq!(budget["maxUnavailable"], 1);
}

#[test]
fn with_a_gateway_clients_reach_the_gateway() {
    let plan = planned(&everything());
    let gateway = &find(&plan, ChildKind::Deployment, "shop-gateway")["spec"];
    let front = &find(&plan, ChildKind::Service, "shop")["spec"];
    assert_eq!(front["selector"], gateway["selector"]["matchLabels"]);
    assert_eq!(front["ports"][0]["port"], 80);
    assert_eq!(gateway["replicas"], 2);
    let args = &gateway["template"]["spec"]["containers"][0]["args"];
    assert_eq!(args[4], "shop-{group}.web.svc");
    let policy = &find(&plan, ChildKind::NetworkPolicy, "shop")["spec"]["podSelector"]["matchLabels"];
    for component in [label::NAME, label::INSTANCE] {
        assert_eq!(policy[component], gateway["template"]["metadata"]["labels"][component]);
    }
    assert!(policy.get(label::COMPONENT).is_none());
}

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
    assert!(planned(&observed).tell.is_empty());
    change_tier(&mut observed, |spec| spec["ttl"] = json!("7s"));
    let plan = planned(&observed);
    let told: Vec<&str> = plan.tell.iter().map(|tell| tell.pod.as_str()).collect();
    assert_eq!(told, ["shop-main-0", "shop-main-1", "shop-catalog-0"]);
    for (pod, tell) in observed.pods.iter_mut().zip(plan.tell) {
        pod.told = Some(tell.told);
    }
    assert!(planned(&observed).tell.is_empty());
    // Pods that are about to be replaced are not told.
    change_tier(&mut observed, |spec| spec["memory"]["policy"] = json!("LRU"));
    assert!(planned(&observed).tell.is_empty());
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
    assert_eq!((plan.held, plan.tell.len()), (None, 3));
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
fn a_long_backend_name_still_makes_a_volume() {
    let name = "b".repeat(63);
    let observed = observed_with(|spec| spec["backends"][2]["name"] = json!(name));
    let plan = planned(&observed);
    let pod = &find(&plan, ChildKind::Deployment, "shop-main")["spec"]["template"]["spec"];
    let volume = pod["volumes"][3]["name"].as_str().unwrap();
    assert!(volume.len() <= 63 && volume.starts_with("backend-"), "{volume}");
    assert_eq!(pod["containers"][0]["volumeMounts"][3]["name"], volume);
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
    assert!(before.tell.is_empty());
    observed.secrets.insert("shop-mysql".to_owned(), "2".to_owned());
    let rotated = planned(&observed);
    for (before, after) in before.children.iter().zip(&rotated.children) {
        let notes = before.reference.name == "shop-settings";
        assert_eq!(before.hash != after.hash, notes, "{:?}", before.reference);
    }
    // Once it is written down, with a pod that came later.
    observed.children = rotated.children.iter().map(crate::fixture::live).collect();
    let secrets = telling::edition(&observed, validated(&observed).secrets.as_deref());
    observed.running.as_mut().unwrap().secrets = secrets;
    observed.pods[2].created = observed.at;
    let plan = planned(&observed);
    assert_eq!(plan.children, rotated.children, "written once");
    let told: Vec<_> = plan.tell.iter().map(|tell| (tell.pod.as_str(), tell.of)).collect();
    assert_eq!(told, [("shop-main-0", Of::Secrets), ("shop-main-1", Of::Secrets)]);
    for (pod, tell) in observed.pods.iter_mut().zip(plan.tell) {
        pod.told_secrets = Some(tell.told);
    }
    assert!(planned(&observed).tell.is_empty(), "not twice within a moment");
    observed.secrets.remove("shop-mysql");
    assert_eq!(planned(&observed).children, rotated.children, "a missing Secret changes nothing that runs");
}

#[test]
fn over_tls_pods_and_gateway_have_the_certificate_and_clients_another_port() {
    let mut observed = observed_with(|spec| {
        spec["gateway"] = json!({});
        spec["security"] = json!({ "tls": { "secretRef": { "name": "shop-tls" } } });
    });
    assert_eq!(planned(&observed).held, Some(Held::Secrets), "it has to be there");
    observed.secrets.insert("shop-tls".to_owned(), "1".to_owned());
    let plan = planned(&observed);
    for name in ["shop-main", "shop-gateway"] {
        let pod = &find(&plan, ChildKind::Deployment, name)["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "shop-tls"), "{name}");
        let container = &pod["containers"][0];
        let args: Vec<_> =
            container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        assert!(args.windows(2).any(|pair| pair == ["--security", "/etc/flyweight/security"]), "{args:?}");
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/etc/flyweight/security/tls"), "{name}");
        assert_eq!(container["readinessProbe"]["httpGet"]["scheme"], "HTTP", "the admin port stays as it is");
    }
    let port = &find(&plan, ChildKind::Service, "shop")["spec"]["ports"][0];
    assert_eq!(
        (&port["port"], &port["name"], &port["appProtocol"]),
        (&json!(443), &json!("https"), &json!("https"))
    );
    assert_eq!(find(&plan, ChildKind::Service, "shop-main")["spec"]["ports"][0]["appProtocol"], "https");
}

#[test]
fn a_certificate_is_asked_for_where_cert_manager_is_there() {
    let tls = |spec: &mut Value| spec["security"]["tls"] = json!({ "issuerRef": { "name": "authority" } });
    let mut observed = observed_with(tls);
    observed.secrets.insert("shop-tls".to_owned(), "1".to_owned());
    let plan = planned(&observed);
    assert_eq!(plan.held, Some(Held::CertManager));
    assert!(
        !names(&plan).iter().any(|name| name.starts_with("Certificate") || name.starts_with("Deployment"))
    );
    observed.cert_manager = true;
    let plan = planned(&observed);
    assert_eq!(plan.held, None);
    let spec = &find(&plan, ChildKind::Certificate, "shop-tls")["spec"];
    assert_eq!(spec["secretName"], "shop-tls");
    assert_eq!(
        spec["issuerRef"],
        json!({ "group": "cert-manager.io", "kind": "Issuer", "name": "authority" })
    );
    let wanted = [
        "shop",
        "shop.web",
        "shop.web.svc.cluster.local",
        "shop.web.svc",
        "shop-main.web.svc",
        "shop-catalog.web.svc",
    ];
    assert_eq!(spec["dnsNames"], json!(wanted));
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
