//! `status`: a service with everything below it, as a tree.

use crds::{
    conditions::ConditionType,
    pool::FlyweightPool,
    service::FlyweightService,
    status::{GroupStatus, PoolFigures, ServiceStatus},
    tier::CacheTier,
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{args::Output, cluster::Cluster, paint::Paint, tree::Node};

/// One service and what is around it.
pub struct View {
    /// The service.
    pub service: FlyweightService,
    /// The pools and tiers of the namespace.
    pub pools: Vec<FlyweightPool>,
    /// The tiers of the namespace.
    pub tiers: Vec<CacheTier>,
    /// The pods of the service.
    pub pods: Vec<Pod>,
}

/// Shows one service, or all.
///
/// # Errors
/// There is none, or the API server refuses or fails.
pub async fn run(cluster: &Cluster, name: Option<&str>, output: Output) -> anyhow::Result<String> {
    let services = cluster.services(name).await?;
    let (pools, tiers) = (cluster.pools().await?, cluster.tiers().await?);
    let mut views = Vec::new();
    for service in services {
        let pods = cluster.pods(&service.name_any()).await?;
        views.push(View { service, pools: pools.clone(), tiers: tiers.clone(), pods });
    }
    Ok(match output {
        Output::Json => format!("{:#}\n", views.iter().map(as_json).collect::<Value>()),
        Output::Text => views.iter().map(|view| tree(view, Paint::new()).draw()).collect(),
    })
}

fn as_json(view: &View) -> Value {
    let View { service, pools, tiers, pods } = view;
    let served = pools.iter().filter(|pool| is_served(service, pool));
    json!({
        "service": service.name_any(),
        "namespace": service.namespace(),
        "status": service.status,
        "pools": served.map(|pool| json!({ "name": pool.name_any(), "status": pool.status })).collect::<Vec<_>>(),
        "tiers": tiers.iter().map(|tier| json!({ "name": tier.name_any(), "status": tier.status })).collect::<Vec<_>>(),
        "pods": pods.iter().map(|pod| json!({ "name": pod.name_any(), "group": group_of(pod), "ready": is_ready(pod) })).collect::<Vec<_>>(),
    })
}

/// The tree.
pub fn tree(view: &View, paint: Paint) -> Node {
    let status = view.service.status.clone().unwrap_or_default();
    let mut below =
        vec![Node::over("conditions", status.conditions.iter().map(|one| condition(one, paint)).collect())];
    if let Some(summary) = &status.configuration_summary {
        below.push(Node::new(format!("configuration: {summary}")));
    }
    if let Some(endpoint) = &status.endpoint {
        below.push(Node::new(format!("endpoint: {endpoint}")));
    }
    below.push(Node::over("groups", groups(view, &status, paint)));
    below.push(Node::over("pools", pools(view, &status, paint)));
    let paused = if view.service.spec.paused { paint.warm(" (paused)") } else { String::new() };
    Node::over(
        format!("{}{paused} {}", paint.bold(&view.service.name_any()), headline(&status, paint)),
        below,
    )
}

fn headline(status: &ServiceStatus, paint: Paint) -> String {
    match status.conditions.iter().find(|one| one.type_ == ConditionType::Ready.as_str()) {
        Some(ready) if ready.status == "True" => paint.good(&format!("Ready: {}", ready.message)),
        Some(ready) => paint.bad(&format!("not Ready: {}: {}", ready.reason, ready.message)),
        None => paint.dim("not seen by an operator yet"),
    }
}

fn condition(condition: &Condition, paint: Paint) -> Node {
    let Condition { type_, status, reason, message, .. } = condition;
    use ConditionType::{Draining, Progressing};
    let kind = ConditionType::parse(type_);
    let good_when = if kind.is_none_or(ConditionType::is_good) { "True" } else { "False" };
    let text = format!("{type_}={status} {reason}");
    let painted = match (status == good_when, kind) {
        (true, _) => paint.good(&text),
        (false, Some(Progressing | Draining)) => paint.warm(&text),
        (false, _) => paint.bad(&text),
    };
    Node::new(format!("{painted}: {message}"))
}

fn groups(view: &View, status: &ServiceStatus, paint: Paint) -> Vec<Node> {
    let of = |group: Option<&str>| {
        let pods = view.pods.iter().filter(move |pod| group_of(pod).as_deref() == group);
        pods.map(|pod| pod_line(pod, paint)).collect::<Vec<_>>()
    };
    let mut nodes: Vec<Node> = status
        .groups
        .iter()
        .map(|GroupStatus { name, replicas, ready, configurations }| {
            let runs: Vec<String> =
                configurations.iter().map(|one| format!("{} run {}", one.pods, one.hash)).collect();
            let count = format!("{ready}/{replicas} ready");
            let count = if ready == replicas { paint.good(&count) } else { paint.bad(&count) };
            Node::over(
                format!("{} {count} {}", paint.bold(name), paint.dim(&runs.join(", "))),
                of(Some(name)),
            )
        })
        .collect();
    let gateway = of(None);
    if !gateway.is_empty() {
        nodes.push(Node::over(paint.bold("gateway"), gateway));
    }
    nodes
}

fn pod_line(pod: &Pod, paint: Paint) -> Node {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node yet");
    let state = match (pod.metadata.deletion_timestamp.is_some(), is_ready(pod)) {
        (true, _) => paint.warm("ending"),
        (false, true) => paint.good("ready"),
        (false, false) => paint.bad("not ready"),
    };
    Node::new(format!("{} {state} {}", pod.name_any(), paint.dim(&format!("on {node}"))))
}

fn pools(view: &View, status: &ServiceStatus, paint: Paint) -> Vec<Node> {
    let served = view.pools.iter().filter(|pool| is_served(&view.service, pool));
    served
        .map(|pool| {
            let name = pool.name_any();
            let figures = status.pools.iter().find(|one| one.name == name);
            let text = figures.map_or_else(|| paint.dim("no figures yet"), figures_line);
            let tiers =
                pool.spec.tier_refs.iter().map(|tier| tier_line(view, figures, &tier.name, paint)).collect();
            Node::over(format!("{} {:?}: {text}", paint.bold(&name), pool.spec.entity), tiers)
        })
        .collect()
}

fn figures_line(figures: &PoolFigures) -> String {
    let PoolFigures {
        name: _,
        entities,
        distinct,
        bytes,
        bytes_saved,
        hit_ratio,
        tiers: _,
        backlog,
        staleness,
    } = figures;
    let ratio = hit_ratio.as_deref().map(|ratio| format!(", {ratio} hits")).unwrap_or_default();
    let backlog = match backlog {
        None => ", how many events wait is not known yet".to_owned(),
        Some(0) => String::new(),
        Some(some) => {
            let oldest =
                staleness.as_deref().map(|age| format!(", the oldest for {age}")).unwrap_or_default();
            format!(", {some} events wait{oldest}")
        }
    };
    format!("{entities} records, {distinct} distinct, {bytes} in memory, {bytes_saved} saved{ratio}{backlog}")
}

fn tier_line(view: &View, figures: Option<&PoolFigures>, name: &str, paint: Paint) -> Node {
    let tier = view.tiers.iter().find(|tier| tier.name_any() == name);
    let kind = match tier {
        Some(tier) if tier.spec.memory.is_some() => format!("memory, {}", tier.spec.ttl),
        Some(tier) => format!("redis, {}", tier.spec.ttl),
        None => paint.bad("is not there"),
    };
    let share = figures.and_then(|figures| figures.tiers.iter().find(|one| one.name == name));
    let ratio = share.and_then(|share| share.hit_ratio.as_deref()).map(|ratio| format!(" {ratio} hits"));
    Node::new(format!("{name} ({kind}){}", ratio.unwrap_or_default()))
}

fn is_served(service: &FlyweightService, pool: &FlyweightPool) -> bool {
    service.spec.pool_refs.iter().any(|one| one.name == pool.name_any())
}

/// The replica group of a pod; none for the gateway's.
pub fn group_of(pod: &Pod) -> Option<String> {
    pod.labels().get("flyweight.dev/group").cloned()
}

/// Whether the pod takes requests.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(ready: &str) -> View {
        let of = |kind: &str, name: &str, spec: Value, status: Value| json!({ "apiVersion": "flyweight.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec, "status": status });
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let service = of(
            "FlyweightService",
            "shop",
            json!({ "image": "i", "poolRefs": [{ "name": "products" }] }),
            json!({
                "conditions": [condition("Ready", ready), condition("Degraded", "False")],
                "configurationSummary": "2 of 2 pods run abc",
                "groups": [{ "name": "main", "replicas": 2, "ready": 2, "configurations": [{ "hash": "abc", "pods": 2 }] }],
                "pools": [{ "name": "products", "entities": 9, "distinct": 3, "bytes": "1Ki", "bytesSaved": "2Ki", "backlog": 4,
                    "staleness": "1.5s", "hitRatio": "75.0%", "tiers": [{ "name": "hot", "hitRatio": "70.0%" }] }],
            }),
        );
        let pool = of(
            "FlyweightPool",
            "products",
            json!({ "entity": "Product", "tierRefs": [{ "name": "hot" }, { "name": "far" }] }),
            json!({}),
        );
        let tier = of("CacheTier", "hot", json!({ "memory": {} }), json!({}));
        let pod = json!({ "metadata": { "name": "shop-main-1", "labels": { "flyweight.dev/group": "main" } },
            "spec": { "nodeName": "n1", "containers": [] }, "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        View {
            service: serde_json::from_value(service).unwrap(),
            pools: vec![serde_json::from_value(pool).unwrap()],
            tiers: vec![serde_json::from_value(tier).unwrap()],
            pods: vec![serde_json::from_value(pod).unwrap()],
        }
    }

    #[test]
    fn the_tree_has_everything_below_the_service() {
        let text = tree(&view("True"), Paint::plain()).draw();
        let expected = "shop Ready: m
├─ conditions
│  ├─ Ready=True R: m
│  └─ Degraded=False R: m
├─ configuration: 2 of 2 pods run abc
├─ groups
│  └─ main 2/2 ready 2 run abc
│     └─ shop-main-1 ready on n1
└─ pools
   └─ products Product: 9 records, 3 distinct, 1Ki in memory, 2Ki saved, 75.0% hits, 4 events wait, the oldest for 1.5s
      ├─ hot (memory, 1m) 70.0% hits
      └─ far (is not there)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_wrong_comes_first() {
        assert!(tree(&view("False"), Paint::plain()).draw().starts_with("shop not Ready: R: m\n"));
        let value = as_json(&view("True"));
        assert_eq!((&value["service"], &value["pods"][0]["ready"]), (&json!("shop"), &json!(true)));
    }
}
