//! What each child is like, in the fields that matter.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    fixture::{everything, find, names, observed, observed_with, planned, settle},
    model::{
        child::{ChildKind, annotation, label},
        plan::Held,
    },
};

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
    // a cluster may choose them (OpenShift does), and the image has a user of its own
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert!(pod["securityContext"][id].is_null(), "{id}");
    }
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
