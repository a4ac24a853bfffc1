//! What a platform team adds to pods, merged into those that are made as a strategic merge patch is.

use crds::{
    resolve::CONTAINERS,
    service::pod_template::{PodMetadata, PodTemplate},
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde_json::{Map, Value};

/// The lists of a pod whose entries are told apart by a field; all others are taken as a whole.
const KEYS: [(&str, &str); 13] = [
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ports", "containerPort"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];
/// The migration's container: what is added to the data plane's own is for it, too.
const MIGRATE: &str = "migrate";
const DATAPLANE: &str = "dataplane";

/// The pods with what is added to them; `container` is the one that is made.
pub fn merge(pods: PodTemplateSpec, added: &PodTemplate, container: &str) -> PodTemplateSpec {
    let PodTemplate { metadata: PodMetadata { labels, annotations }, spec } = added;
    let PodTemplateSpec { metadata, spec: made } = pods;
    let mut metadata = metadata.unwrap_or_default();
    for (made, added) in [(&mut metadata.labels, labels), (&mut metadata.annotations, annotations)] {
        // what selects pods and identifies them was a fault
        made.get_or_insert_default().extend(added.clone());
    }
    let mut made = made.unwrap_or_default();
    // A pod is plain data: its serialisation cannot fail.
    let mut whole = serde_json::to_value(&made).unwrap_or_default();
    join(&mut whole, &Value::Object(fitting(spec, container)));
    // What does not fit was a fault of the service, so that nothing is planned by it.
    if let Ok(merged) = serde_json::from_value::<PodSpec>(whole) {
        made = merged;
    }
    PodTemplateSpec { metadata: Some(metadata), spec: Some(made) }
}

/// What is for this kind of pod. A Job ends only when all its containers have, so it gets none beside its
/// own.
fn fitting(spec: &Map<String, Value>, container: &str) -> Map<String, Value> {
    let mut spec = spec.clone();
    let Some(Value::Array(containers)) = spec.get_mut("containers") else { return spec };
    for one in containers.iter_mut().filter(|one| container == MIGRATE && one["name"] == DATAPLANE) {
        let fields = ["env", "envFrom", "volumeMounts", "securityContext"];
        let named = |field: &&str| Some(((*field).to_owned(), one.get(*field)?.clone()));
        let mut kept: Map<String, Value> = fields.iter().filter_map(named).collect();
        kept.insert("name".to_owned(), MIGRATE.into());
        *one = Value::Object(kept);
    }
    containers.retain(|one| {
        let name = one["name"].as_str().unwrap_or_default();
        name == container || (container != MIGRATE && !CONTAINERS.contains(&name))
    });
    spec
}

fn join(made: &mut Value, added: &Value) {
    let (Value::Object(made), Value::Object(added)) = (&mut *made, added) else {
        *made = added.clone();
        return;
    };
    for (name, added) in added.iter().filter(|(_, added)| !added.is_null()) {
        let key = KEYS.iter().find(|(list, _)| list == name).map(|(_, key)| *key);
        match (made.get_mut(name), key, added) {
            (Some(Value::Array(made)), Some(key), Value::Array(added)) => {
                for added in added {
                    match made.iter_mut().find(|made| made[key] == added[key]) {
                        Some(made) => join(made, added),
                        None => made.push(added.clone()),
                    }
                }
            }
            (Some(made), _, added) => join(made, added),
            (None, _, added) => {
                made.insert(name.clone(), added.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        fixture::{apply, observed, observed_with, settle, validated},
        model::{
            child::{ChildKind, label},
            observed::Observed,
            plan::{Held, Plan},
        },
        rollout::plan,
        validate::validate,
    };
    use serde_json::Value;

    fn planned(observed: &Observed) -> Plan {
        plan(observed, &validate(observed))
    }

    fn pods(plan: &Plan, name: &str) -> Value {
        let mut children = plan.children.iter();
        let found = children.find(|child| {
            let kind = child.reference.kind;
            matches!(kind, ChildKind::Deployment | ChildKind::Job) && child.reference.name.starts_with(name)
        });
        found.unwrap_or_else(|| panic!("no {name}")).body["spec"]["template"].clone()
    }

    fn template() -> Value {
        json!({
            "metadata": { "annotations": { "example.com/team": "shop" }, "labels": { "tier": "web" } },
            "spec": {
                "imagePullSecrets": [{ "name": "registry" }],
                "nodeSelector": { "pool": "cache" },
                "tolerations": [{ "key": "cache", "operator": "Exists" }],
                "priorityClassName": "high",
                "serviceAccountName": "platform",
                "terminationGracePeriodSeconds": 90,
                "securityContext": { "runAsUser": 1000 },
                "topologySpreadConstraints": [
                    { "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule" },
                ],
                "volumes": [{ "name": "ca", "configMap": { "name": "company-ca" } }],
                "containers": [
                    {
                        "name": "dataplane",
                        "env": [{ "name": "TZ", "value": "UTC" }],
                        "volumeMounts": [{ "name": "ca", "mountPath": "/etc/company" }],
                    },
                    { "name": "gateway", "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy:3128" }] },
                    { "name": "agent", "image": "agent:1" },
                ],
            },
        })
    }

    fn names(list: &Value) -> Vec<&str> {
        list.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
    }

    #[test]
    fn what_is_added_is_in_every_pod_and_what_is_made_stays() {
        let before = planned(&observed_with(|spec| spec["gateway"] = json!({})));
        let plan = planned(&observed_with(|spec| {
            spec["gateway"] = json!({ "podTemplate": { "spec": { "nodeSelector": { "zone": "edge" } } } });
            spec["podTemplate"] = template();
            spec["replicaGroups"][1]["podTemplate"] = json!({ "spec": { "priorityClassName": "low" } });
        }));
        let (main, catalog, gateway) =
            (pods(&plan, "shop-main"), pods(&plan, "shop-catalog"), pods(&plan, "shop-gateway"));
        for pod in [&main, &catalog, &gateway] {
            assert_eq!(pod["metadata"]["annotations"]["example.com/team"], "shop");
            assert_eq!(pod["metadata"]["labels"]["tier"], "web");
            assert_eq!(pod["metadata"]["labels"][label::INSTANCE], "shop");
            assert_eq!(names(&pod["spec"]["imagePullSecrets"]), ["registry"]);
            assert_eq!(pod["spec"]["serviceAccountName"], "platform");
            assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
            assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 90);
            assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 1000);
            let spread = pod["spec"]["topologySpreadConstraints"].as_array().unwrap();
            assert_eq!(spread.len(), 2, "by zone beside by host");
        }
        assert_eq!(main["spec"]["priorityClassName"], "high");
        assert_eq!(catalog["spec"]["priorityClassName"], "low", "the group's own is the last word");
        assert_eq!(gateway["spec"]["nodeSelector"], json!({ "pool": "cache", "zone": "edge" }));
        assert_eq!(names(&main["spec"]["containers"]), ["dataplane", "agent"]);
        assert_eq!(names(&gateway["spec"]["containers"]), ["gateway", "agent"]);
        let own = &main["spec"]["containers"][0];
        let made = &pods(&before, "shop-main")["spec"]["containers"][0];
        assert_eq!(own["image"], made["image"]);
        let mut env = names(&made["env"]);
        env.push("TZ");
        assert_eq!(names(&own["env"]), env);
        assert!(
            own["volumeMounts"].as_array().unwrap().len() > made["volumeMounts"].as_array().unwrap().len()
        );
        assert!(names(&gateway["spec"]["containers"][0]["env"]).contains(&"HTTPS_PROXY"));
    }

    #[test]
    fn the_migration_s_pod_has_it_too_and_ends() {
        let mut observed = observed();
        settle(&mut observed);
        observed.service = observed_with(|spec| {
            spec["image"] = json!("flyweight/dataplane:2");
            spec["podTemplate"] = template();
        })
        .service;
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::Migration));
        let job = pods(&plan, "shop-migrate");
        assert_eq!(names(&job["spec"]["containers"]), ["migrate"]);
        assert!(names(&job["spec"]["containers"][0]["env"]).contains(&"TZ"));
        assert_eq!(names(&job["spec"]["imagePullSecrets"]), ["registry"]);
        assert_eq!(job["spec"]["restartPolicy"], "Never");
        assert!(job["spec"]["topologySpreadConstraints"].is_null());
    }

    #[test]
    fn a_change_of_it_goes_through_a_canary_and_nothing_is_replaced_without_one() {
        let mut observed = observed();
        settle(&mut observed);
        let before = validated(&observed);
        observed.service = observed_with(|spec| spec["podTemplate"] = template()).service;
        assert_eq!(
            validated(&observed).rolling,
            before.rolling,
            "the settings of the data plane are the same"
        );
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::Canary));
        apply(&mut observed, &plan);
        let canary = pods(&plan, "shop-main-canary");
        assert_eq!(names(&canary["spec"]["imagePullSecrets"]), ["registry"]);
    }

    #[test]
    fn what_no_pod_has_or_is_made_is_a_fault_with_its_path() {
        for (template, path) in [
            (json!({ "spec": { "nodeSelektor": {} } }), "spec.podTemplate.spec.nodeSelektor"),
            (
                json!({ "spec": { "containers": [{ "name": "dataplane", "image": "x" }] } }),
                "spec.podTemplate.spec.containers[0].image",
            ),
            (
                json!({ "spec": { "containers": [{ "name": "agent" }] } }),
                "spec.podTemplate.spec.containers[0].image",
            ),
            (
                json!({ "spec": { "containers": [{ "image": "x" }] } }),
                "spec.podTemplate.spec.containers[0].name",
            ),
            (
                json!({ "spec": { "volumes": [{ "name": "config" }] } }),
                "spec.podTemplate.spec.volumes[0].name",
            ),
            (json!({ "spec": { "tolerations": "all" } }), "spec.podTemplate.spec"),
            (
                json!({ "spec": { "tolerations": [{ "keys": "a" }] } }),
                "spec.podTemplate.spec.tolerations[0].keys",
            ),
            (json!({ "spec": { "restartPolicy": "Never" } }), "spec.podTemplate.spec.restartPolicy"),
            (
                json!({ "metadata": { "labels": { "app.kubernetes.io/name": "x" } } }),
                "spec.podTemplate.metadata.labels.app.kubernetes.io/name",
            ),
        ] {
            let faults = validate(&observed_with(|spec| spec["podTemplate"] = template.clone())).unwrap_err();
            assert!(faults.iter().any(|fault| fault.path == path), "{path}: {faults:?}");
        }
    }
}
