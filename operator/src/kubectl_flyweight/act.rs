//! What the plugin does to a service: pause, resume, restart, drain.

use std::time::{Duration, Instant};

use anyhow::bail;
use crds::annotations::{REPLICAS_BEFORE_DRAIN, RESTARTED_AT};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;

use crate::{args::Drain, cluster::Cluster};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Stops or allows changes to the children.
///
/// # Errors
/// There is no such service, or the API server refuses.
pub async fn pause(cluster: &Cluster, service: &str, paused: bool) -> anyhow::Result<String> {
    cluster.patch(service, &json!({ "spec": { "paused": paused } })).await?;
    Ok(format!("{service} is {}\n", if paused { "paused: its children stay as they are" } else { "no longer paused" }))
}

/// Allows changes again, and brings back the pods of a drained service.
///
/// # Errors
/// There is no such service, or the API server refuses.
pub async fn resume(cluster: &Cluster, service: &str) -> anyhow::Result<String> {
    let Some(found) = cluster.services(Some(service)).await?.pop() else { bail!("no FlyweightService {service}") };
    let mut spec = json!({ "paused": false });
    let drained = found.annotations().get(REPLICAS_BEFORE_DRAIN).cloned();
    if let Some(before) = &drained {
        // Empty: there was no total, each group had its own number.
        spec["replicas"] = before.parse::<u32>().map_or(serde_json::Value::Null, Into::into);
    }
    let patch = json!({ "metadata": { "annotations": { REPLICAS_BEFORE_DRAIN: null } }, "spec": spec });
    cluster.patch(service, &patch).await?;
    Ok(format!("{service} goes on{}\n", if drained.is_some() { ": its pods come back" } else { "" }))
}

/// Replaces the pods one by one.
///
/// # Errors
/// There is no such service, or the API server refuses.
pub async fn restart(cluster: &Cluster, service: &str) -> anyhow::Result<String> {
    let now = Timestamp::now().to_string();
    cluster.patch(service, &json!({ "metadata": { "annotations": { RESTARTED_AT: now } } })).await?;
    Ok(format!("{service} replaces its pods: see kubectl flyweight status {service}\n"))
}

/// Takes one pod away, or all, and waits until they have finished what they began.
///
/// # Errors
/// There is no such service or pod, a disruption budget does not allow it now, or it takes longer than the deadline.
pub async fn drain(cluster: &Cluster, args: &Drain) -> anyhow::Result<String> {
    let Drain { service, pod, timeout } = args;
    let Some(found) = cluster.services(Some(service)).await?.pop() else { bail!("no FlyweightService {service}") };
    match pod {
        Some(pod) => {
            if cluster.pods(service).await?.iter().all(|one| one.name_any() != *pod) {
                bail!("{service} has no pod {pod}");
            }
            cluster.evict(pod).await?;
        }
        None if found.spec.replicas == Some(0) => (),
        None => {
            let before = found.spec.replicas.map(|replicas| replicas.to_string()).unwrap_or_default();
            let patch =
                json!({ "metadata": { "annotations": { REPLICAS_BEFORE_DRAIN: before } }, "spec": { "replicas": 0 } });
            cluster.patch(service, &patch).await?;
        }
    }
    gone(cluster, service, pod.as_deref(), timeout.0).await?;
    Ok(match pod {
        Some(pod) => format!("{pod} is gone\n"),
        None => format!("{service} has no pods; bring them back with: kubectl flyweight resume {service}\n"),
    })
}

async fn gone(cluster: &Cluster, service: &str, pod: Option<&str>, limit: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let pods = cluster.pods(service).await?;
        let left = pods.iter().filter(|one| match pod {
            Some(name) => one.name_any() == name,
            // The gateway stays: it answers that nobody serves.
            None => crate::status::group_of(one).is_some(),
        });
        match left.count() {
            0 => return Ok(()),
            left if Instant::now() >= end => bail!("after {} s {left} pods are still ending", limit.as_secs()),
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
