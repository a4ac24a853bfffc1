//! HorizontalPodAutoscaler: scales the FlyweightService, which shares the total out over its groups.

use crds::{GROUP, VERSION, service::Autoscaling};
use serde_json::json;

use super::{Component, Target};
use crate::child::{Child, ChildKind};

/// The autoscaler of the service, by CPU.
pub(super) fn child(target: &Target<'_>, autoscaling: &Autoscaling) -> Child {
    let Autoscaling { min_replicas, max_replicas, target_cpu_percent } = autoscaling;
    let content = json!({ "spec": {
        "scaleTargetRef": { "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FlyweightService", "name": target.name() },
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "metrics": [{ "type": "Resource", "resource": {
            "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": target_cpu_percent },
        }}],
    }});
    target.child(ChildKind::HorizontalPodAutoscaler, target.name().to_owned(), Component::Dataplane, json!({}), content)
}
