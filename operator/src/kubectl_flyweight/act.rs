//! What the plugin does to a service: pause, resume, restart, drain.

use std::time::Duration;

use anyhow::bail;
use crds::{
    annotations::{REPLICAS_BEFORE_DRAIN, RESTARTED_AT},
    service::FlyweightService,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{args::Drain, cluster::Cluster, done::Done};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Stops all changes to the children.
///
/// # Errors
/// There is no such service, or the API server refuses.
pub async fn pause(cluster: &Cluster, service: &str) -> anyhow::Result<Done> {
    cluster.patch(service, &json!({ "spec": { "paused": true } })).await?;
    Ok(Done::new(service, "pause", format!("{service} is paused: its children stay as they are")))
}

/// Allows changes again, and brings back the pods of a drained service.
///
/// # Errors
/// There is no such service, or the API server refuses.
pub async fn resume(cluster: &Cluster, service: &str) -> anyhow::Result<Done> {
    let found = cluster.service(service).await?;
    let mut spec = json!({ "paused": false });
    // unless somebody has brought pods back since
    let drained =
        found.annotations().get(REPLICAS_BEFORE_DRAIN).filter(|_| found.spec.replicas == Some(0)).cloned();
    if let Some(before) = &drained {
        // Empty: there was no total, each group had its own number.
        spec["replicas"] = before.parse::<u32>().map_or(serde_json::Value::Null, Into::into);
    }
    let patch = json!({ "metadata": { "annotations": { REPLICAS_BEFORE_DRAIN: null } }, "spec": spec });
    cluster.patch(service, &patch).await?;
    let pods = if drained.is_some() { ": its pods come back" } else { "" };
    Ok(Done::new(service, "resume", format!("{service} goes on{pods}")).with("drained", drained.is_some()))
}

/// Replaces the pods one by one.
///
/// # Errors
/// There is no such service, it is paused, or the API server refuses.
pub async fn restart(cluster: &Cluster, service: &str) -> anyhow::Result<Done> {
    moving(cluster, service).await?;
    let now = Timestamp::now().to_string();
    cluster.patch(service, &json!({ "metadata": { "annotations": { RESTARTED_AT: &now } } })).await?;
    let message = format!("{service} replaces its pods: see kubectl flyweight status {service}");
    Ok(Done::new(service, "restart", message).with("restartedAt", now))
}

/// Takes one pod away, or all, and waits until they have finished what they began.
///
/// # Errors
/// There is no such service or pod, all of a paused service shall go, a disruption budget does not allow it
/// now, or it takes longer than the deadline.
pub async fn drain(cluster: &Cluster, args: &Drain) -> anyhow::Result<Done> {
    let Drain { service, pod, timeout } = args;
    // one pod may go from a service that is paused, and comes back
    let found = match pod {
        Some(_) => cluster.service(service).await?,
        None => moving(cluster, service).await?,
    };
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
            let patch = json!({ "metadata": { "annotations": { REPLICAS_BEFORE_DRAIN: before } }, "spec": { "replicas": 0 } });
            cluster.patch(service, &patch).await?;
        }
    }
    gone(cluster, service, pod.as_deref(), timeout.0).await?;
    Ok(match pod {
        Some(pod) => Done::new(service, "drain", format!("{pod} is gone")).with("pod", pod.as_str()),
        None => {
            let back = format!("bring them back with: kubectl flyweight resume {service}");
            Done::new(service, "drain", format!("{service} has no pods; {back}"))
        }
    })
}

/// The service, unless it is paused: nothing would come of what is asked for.
async fn moving(cluster: &Cluster, service: &str) -> anyhow::Result<FlyweightService> {
    let found = cluster.service(service).await?;
    if found.spec.paused {
        bail!("{service} is paused, so its pods stay as they are: kubectl flyweight resume {service} first");
    }
    Ok(found)
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
            left if Instant::now() >= end => {
                bail!("after {} s {left} pods are still ending", limit.as_secs())
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::Value;

    use super::*;
    use crate::{
        args::Output,
        fixture::{Asked, Server, list, service},
    };

    const SERVICE: &str = "/apis/flyweight.dev/v1alpha1/namespaces/web/flyweightservices";
    const PODS: &str = "/api/v1/namespaces/web/pods";

    fn pod(name: &str, group: Option<&str>) -> Value {
        let labels = group.map_or_else(|| json!({}), |group| json!({ "flyweight.dev/group": group }));
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels } })
    }

    /// A cluster with this service, whose pods are there at the first looks and then gone. The gateway's
    /// stays.
    async fn cluster(found: Value, looks: usize) -> Server {
        let left = AtomicUsize::new(looks);
        Server::start(move |asked: &Asked| {
            let line = asked.line.as_str();
            if line == format!("GET {SERVICE}") {
                return (200, list("FlyweightService", std::slice::from_ref(&found)));
            }
            if line == format!("GET {PODS}") {
                let taken = |left: usize| left.checked_sub(1);
                let there = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok();
                let main = there.then(|| pod("shop-main-1", Some("main")));
                let pods: Vec<Value> = main.into_iter().chain([pod("shop-gateway-1", None)]).collect();
                return (200, list("Pod", &pods));
            }
            if line == format!("PATCH {SERVICE}/shop") {
                return (200, found.clone());
            }
            if line == format!("POST {PODS}/shop-main-1/eviction") {
                return (201, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }));
            }
            (404, json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": line, "code": 404 }))
        })
        .await
    }

    /// The only change that was asked for.
    fn patched(server: &Server) -> Value {
        let [patch] = &server.asked("PATCH")[..] else { panic!("{:?}", server.asked("PATCH")) };
        patch.body.clone()
    }

    fn value(done: Done) -> Value {
        serde_json::from_str(&done.show(Output::Json)).unwrap()
    }

    fn whole(timeout: &str) -> Drain {
        Drain { service: "shop".to_owned(), pod: None, timeout: timeout.parse().unwrap() }
    }

    #[tokio::test]
    async fn pause_and_restart_change_one_field() {
        let server = cluster(service(&json!({}), &json!({})), 1).await;
        assert_eq!(value(pause(&server.cluster, "shop").await.unwrap())["action"], "pause");
        assert_eq!(patched(&server), json!({ "spec": { "paused": true } }));
        let server = cluster(service(&json!({}), &json!({})), 1).await;
        let done = value(restart(&server.cluster, "shop").await.unwrap());
        assert_eq!(
            patched(&server),
            json!({ "metadata": { "annotations": { RESTARTED_AT: done["restartedAt"] } } })
        );
        assert!(done["restartedAt"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{done}");
        assert!(restart(&server.cluster, "other").await.is_err());
    }

    #[tokio::test]
    async fn a_service_is_drained_when_its_pods_are_gone_and_brought_back_as_it_was() {
        for (spec, before, back) in [(json!({ "replicas": 3 }), "3", json!(3)), (json!({}), "", Value::Null)]
        {
            let server = cluster(service(&json!({}), &spec), 1).await;
            let done = value(drain(&server.cluster, &whole("2m")).await.unwrap());
            assert_eq!((&done["action"], &done["pod"]), (&json!("drain"), &Value::Null));
            let annotations = json!({ REPLICAS_BEFORE_DRAIN: before });
            let expected = json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": 0 } });
            assert_eq!(patched(&server), expected);
            assert_eq!(
                server.asked(&format!("GET {PODS}")).len(),
                2,
                "it waited for the last pod, not for the gateway"
            );

            let server = cluster(service(&annotations, &json!({ "replicas": 0 })), 0).await;
            assert_eq!(value(resume(&server.cluster, "shop").await.unwrap())["drained"], true);
            let none = json!({ REPLICAS_BEFORE_DRAIN: null });
            let expected =
                json!({ "metadata": { "annotations": none }, "spec": { "paused": false, "replicas": back } });
            assert_eq!(patched(&server), expected);
        }
    }

    #[tokio::test]
    async fn what_is_paused_is_neither_drained_nor_restarted() {
        let server = cluster(service(&json!({}), &json!({ "paused": true })), 1).await;
        for error in [
            drain(&server.cluster, &whole("2m")).await.unwrap_err(),
            restart(&server.cluster, "shop").await.unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("shop is paused") && text.contains("resume shop first"), "{text}");
        }
        assert!(server.asked("PATCH").is_empty() && server.asked("POST").is_empty());
    }

    #[tokio::test]
    async fn what_is_drained_already_keeps_the_number_that_it_had() {
        let server =
            cluster(service(&json!({ REPLICAS_BEFORE_DRAIN: "3" }), &json!({ "replicas": 0 })), 0).await;
        drain(&server.cluster, &whole("2m")).await.unwrap();
        assert!(server.asked("PATCH").is_empty());
    }

    #[tokio::test]
    async fn resume_without_a_drain_leaves_the_number_of_pods() {
        let server = cluster(service(&json!({}), &json!({ "paused": true, "replicas": 3 })), 1).await;
        assert_eq!(value(resume(&server.cluster, "shop").await.unwrap())["drained"], false);
        assert_eq!(patched(&server)["spec"], json!({ "paused": false }));
        // somebody brought pods back by themselves after a drain
        let server =
            cluster(service(&json!({ REPLICAS_BEFORE_DRAIN: "3" }), &json!({ "replicas": 20 })), 1).await;
        assert_eq!(value(resume(&server.cluster, "shop").await.unwrap())["drained"], false);
        let none = json!({ REPLICAS_BEFORE_DRAIN: null });
        assert_eq!(
            patched(&server),
            json!({ "metadata": { "annotations": none }, "spec": { "paused": false } })
        );
    }

    #[tokio::test]
    async fn one_pod_is_evicted_so_that_its_budget_is_kept() {
        let server = cluster(service(&json!({}), &json!({})), 2).await;
        let one = |pod: &str| Drain { pod: Some(pod.to_owned()), ..whole("2m") };
        let done = value(drain(&server.cluster, &one("shop-main-1")).await.unwrap());
        assert_eq!(done["pod"], "shop-main-1");
        assert_eq!(server.asked("POST").len(), 1);
        assert!(server.asked("PATCH").is_empty(), "the number of pods stays");
        let error = drain(&server.cluster, &one("web-main-1")).await.unwrap_err();
        assert!(error.to_string().contains("has no pod web-main-1"), "{error}");
        assert_eq!(server.asked("POST").len(), 1);
    }

    #[tokio::test]
    async fn a_drain_that_does_not_end_says_so() {
        let server = cluster(service(&json!({}), &json!({})), usize::MAX).await;
        let error = drain(&server.cluster, &whole("1s")).await.unwrap_err();
        assert!(error.to_string().contains("after 1 s 1 pods are still ending"), "{error}");
    }
}
