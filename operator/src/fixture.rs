//! For tests: a small shop as the operator would observe it.

use std::sync::Arc;

use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::{
    children::config_map::edition,
    model::{
        child::{Child, ChildKind, ChildRef, Live, annotation},
        observed::{Observed, ObservedPod, Running},
        plan::{Held, Plan},
        report::{BackendReport, PodReport},
        update::StatusUpdate,
        validated::Validated,
    },
    rollout::plan,
    validate::validate,
};

/// The time of every test.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// One service, two groups, two pools, one tier; all Secrets are there, and nothing else.
pub fn observed() -> Observed {
    observed_with(|_| ())
}

/// The same with a changed `spec` of the service.
pub fn observed_with(change: impl FnOnce(&mut Value)) -> Observed {
    let mut service = json!({
        "apiVersion": "flyweight.dev/v1alpha1",
        "kind": "FlyweightService",
        "metadata": { "name": "shop", "namespace": "web", "uid": "uid-1", "generation": 3, "resourceVersion": "10" },
        "spec": {
            "image": "flyweight/dataplane:0.1.0",
            "poolRefs": [{ "name": "users" }, { "name": "products" }],
            "replicaGroups": [
                { "name": "main", "replicas": 2, "resources": { "requests": { "cpu": "0.5", "memory": "1024Mi" } } },
                { "name": "catalog", "replicas": 1, "poolRefs": [{ "name": "products" }] },
            ],
            "backends": [
                { "name": "mysql", "mysql": { "secretRef": { "name": "shop-mysql" } } },
                { "name": "mongodb", "mongodb": { "secretRef": { "name": "shop-mongodb" }, "database": "shop" } },
                { "name": "redis", "redis": { "secretRef": { "name": "shop-redis" } } },
            ],
            "security": { "jwt": { "secretRef": { "name": "shop-jwt" } } },
        },
    });
    change(&mut service["spec"]);
    let pool = |name: &str, entity: &str| -> Arc<FlyweightPool> {
        let pool = json!({
            "apiVersion": "flyweight.dev/v1alpha1",
            "kind": "FlyweightPool",
            "metadata": { "name": name, "namespace": "web", "uid": format!("uid-{name}"), "generation": 1 },
            "spec": { "entity": entity, "tierRefs": [{ "name": "hot" }] },
        });
        Arc::new(serde_json::from_value(pool).unwrap())
    };
    let tier: CacheTier = serde_json::from_value(json!({
        "apiVersion": "flyweight.dev/v1alpha1",
        "kind": "CacheTier",
        "metadata": { "name": "hot", "namespace": "web", "uid": "uid-hot", "generation": 1 },
        "spec": { "memory": {} },
    }))
    .unwrap();
    let service: FlyweightService = serde_json::from_value(service).unwrap();
    Observed {
        service: Arc::new(service),
        at: now(),
        name: "shop".to_owned(),
        namespace: "web".to_owned(),
        uid: "uid-1".to_owned(),
        pools: vec![pool("products", "Product"), pool("users", "User")],
        tiers: vec![Arc::new(tier)],
        secrets: ["shop-mysql", "shop-mongodb", "shop-redis", "shop-jwt"]
            .map(|name| (name.to_owned(), "1".to_owned()))
            .into(),
        cert_manager: false,
        children: Vec::new(),
        pods: Vec::new(),
        migrating: Vec::new(),
        running: None,
    }
}

/// The same with the pools' and the tier's specs open to change.
pub fn change_tier(observed: &mut Observed, change: impl FnOnce(&mut Value)) {
    let mut tier = serde_json::to_value(&*observed.tiers[0]).unwrap();
    change(&mut tier["spec"]);
    observed.tiers[0] = Arc::new(serde_json::from_value(tier).unwrap());
}

/// Changes the spec of the pool at `index`.
pub fn change_pool(observed: &mut Observed, index: usize, change: impl FnOnce(&mut Value)) {
    let mut pool = serde_json::to_value(&*observed.pools[index]).unwrap();
    change(&mut pool["spec"]);
    observed.pools[index] = Arc::new(serde_json::from_value(pool).unwrap());
}

/// The validated service.
pub fn validated(observed: &Observed) -> Validated {
    validate(observed).unwrap()
}

/// The child as the API server would answer it, its rollout finished.
pub fn live(child: &Child) -> Live {
    let mut body = child.body.clone();
    body["metadata"]["uid"] = json!(format!("uid-{}", child.reference.name));
    body["metadata"]["resourceVersion"] = json!("5");
    body["metadata"]["generation"] = json!(1);
    if let Some(replicas) = body.pointer("/spec/replicas").cloned() {
        body["status"] = json!({
            "observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
        });
    }
    let object: DynamicObject = serde_json::from_value(body).unwrap();
    Live::new(child.reference.kind, Arc::new(object))
}

/// Carries a plan out, as the cluster would.
pub fn apply(observed: &mut Observed, plan: &Plan) {
    for child in plan.restore.iter().chain(&plan.children) {
        observed.children.retain(|live| live.reference != child.reference);
        observed.children.push(live(child));
    }
    observed.children.retain(|live| !plan.prune.contains(&live.reference));
}

/// Lets the canaries of a change pass, one after the other; gives the plan with which the others follow.
pub fn pass_canaries(observed: &mut Observed) -> Plan {
    for _ in 0..10 {
        let plan = plan(observed, &validate(observed));
        apply(observed, &plan);
        if plan.held != Some(Held::Canary) {
            observed.pods.retain(|pod| pod.canary.is_none());
            return plan;
        }
        let deployments =
            observed.children.iter().filter(|live| live.reference.kind == ChildKind::Deployment);
        let canaries = deployments.filter_map(|live| {
            let group = live.reference.name.strip_prefix("shop-")?.strip_suffix("-canary")?;
            let key = live.annotation(annotation::CANARY)?;
            let pod = ObservedPod {
                name: live.reference.name.clone(),
                group: Some(group.to_owned()),
                ..observed.pods[0].clone()
            };
            Some(ObservedPod { canary: Some(key.to_owned()), ..pod })
        });
        let canaries: Vec<ObservedPod> = canaries.collect();
        observed.pods.retain(|pod| pod.canary.is_none());
        observed.pods.extend(canaries);
        observed.at += SignedDuration::from_secs(20);
    }
    panic!("they do not pass")
}

/// As after a while: every child is there, every pod is ready and runs the wanted configuration.
pub fn settle(observed: &mut Observed) {
    let validated = validated(observed);
    let plan = plan(observed, &Ok(validated.clone()));
    observed.children = plan.children.iter().map(live).collect();
    observed.running = Some(Running {
        hash: validated.hash.clone(),
        rolling: validated.rolling.clone(),
        settings: Some(Arc::new(validated.settings.clone())),
        encryption_secret: validated.settings.security.encryption_secret.clone(),
        secrets: edition(observed, validated.secrets.as_deref()),
    });
    let pods = validated.groups.iter().flat_map(|group| (0..group.replicas).map(move |index| (group, index)));
    observed.pods = pods
        .map(|(group, index)| ObservedPod {
            name: format!("shop-{}-{index}", group.name),
            group: Some(group.name.clone()),
            ready: true,
            rolling: Some(validated.rolling.clone()),
            created: now(),
            report: Some(PodReport {
                configuration: validated.hash.clone(),
                ready: true,
                backends: validated
                    .settings
                    .backends
                    .iter()
                    .map(|backend| BackendReport {
                        name: backend.name.clone(),
                        reachable: true,
                        ..BackendReport::default()
                    })
                    .collect(),
                ..PodReport::default()
            }),
            ..ObservedPod::default()
        })
        .collect();
}

/// What the service says whose pods serve, or do not.
pub fn update(available: bool) -> StatusUpdate {
    StatusUpdate {
        service: "shop".to_owned(),
        available,
        trouble: if available { String::new() } else { "PodsNotReady".to_owned() },
        applied: true,
        seen: ["FlyweightPool/products", "FlyweightPool/users", "CacheTier/hot"]
            .map(|one| (one.to_owned(), 1))
            .into(),
        faults: Vec::new(),
        settings: Some(Arc::new(validated(&observed()).settings)),
        reports: Vec::new(),
    }
}

/// What is planned for it.
pub fn planned(observed: &Observed) -> Plan {
    plan(observed, &validate(observed))
}

/// The child that the plan has of this kind and name.
pub fn find<'a>(plan: &'a Plan, kind: ChildKind, name: &str) -> &'a Value {
    let child =
        plan.children.iter().find(|child| child.reference == ChildRef { kind, name: name.to_owned() });
    &child.unwrap_or_else(|| panic!("{kind:?} {name} is planned")).body
}

/// The children of the plan, as `Kind name`.
pub fn names(plan: &Plan) -> Vec<String> {
    plan.children
        .iter()
        .map(|child| format!("{} {}", child.reference.kind.name(), child.reference.name))
        .collect()
}

/// The shop with all that a service can have.
pub fn everything() -> Observed {
    observed_with(|spec| {
        spec["gateway"] = json!({ "replicas": 2 });
        spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 10 });
        spec["networkPolicy"] = json!(true);
    })
}
