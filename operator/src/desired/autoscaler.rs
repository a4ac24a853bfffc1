//! HorizontalPodAutoscaler: scales the FlyweightService, which shares the total out over its groups.
//!
//! It scales by CPU. What only the pods know, work that waits and the cost of a hit, moves the fewest pods that it may choose: so no adapter of metrics has to
//! be installed, and nobody but the autoscaler sets the number of pods. Fewer pods are let in only after a while, as the autoscaler does itself.

use crds::{GROUP, VERSION, service::Autoscaling};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Component, Target};
use crate::{
    child::{Child, ChildKind, annotation},
    observe::{Observed, report::LoadReport},
};

/// How long the pods stay that were needed: the autoscaler's own window of stabilization.
const KEPT: SignedDuration = SignedDuration::from_secs(300);
/// The part by which a cost may differ from its target without a change, as the autoscaler has it.
const TOLERANCE: f64 = 0.1;
/// How many times as many pods one look asks for at most.
const GROWTH_MAX: u32 = 2;

/// The fewest pods by their own load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Floor {
    pods: u32,
    /// Since when fewer would do, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

/// The autoscaler of the service.
pub(super) fn child(target: &Target<'_>, autoscaling: &Autoscaling) -> Child {
    let Autoscaling { min_replicas, max_replicas, target_cpu_percent, target_queue_depth, target_hit_micros } =
        autoscaling;
    let floor = floor(target.observed, autoscaling, recorded(target));
    let min_replicas = floor.map_or(*min_replicas, |floor| floor.pods);
    let content = json!({ "spec": {
        "scaleTargetRef": { "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FlyweightService", "name": target.name() },
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "metrics": [{ "type": "Resource", "resource": {
            "name": "cpu",
            "target": { "type": "Utilization", "averageUtilization": target_cpu_percent },
        }}],
    }});
    let mut annotations = json!({});
    if target_queue_depth.is_some() || target_hit_micros.is_some() {
        let targets = json!({ "queueDepth": target_queue_depth, "hitMicros": target_hit_micros });
        annotations[annotation::TARGETS] = targets.to_string().into();
    }
    if let Some(floor) = floor {
        annotations[annotation::FLOOR] = json!(floor).to_string().into();
    }
    target.child(
        ChildKind::HorizontalPodAutoscaler,
        target.name().to_owned(),
        Component::Dataplane,
        annotations,
        content,
    )
}

fn recorded(target: &Target<'_>) -> Option<Floor> {
    let mut children = target.observed.children.iter();
    let live = children.find(|live| live.reference.kind == ChildKind::HorizontalPodAutoscaler)?;
    serde_json::from_str(live.annotation(annotation::FLOOR)?).ok()
}

/// The fewest pods from now on; none where those of the resource are enough. More at once, fewer when that has been so for long enough.
fn floor(observed: &Observed, autoscaling: &Autoscaling, former: Option<Floor>) -> Option<Floor> {
    let (least, most) = (autoscaling.min_replicas, autoscaling.max_replicas);
    let held = former.map_or(least, |former| former.pods.clamp(least, most));
    let needed = needed(observed, autoscaling).map_or(held, |needed| needed.clamp(least, most));
    if needed >= held {
        return (needed > least).then_some(Floor { pods: needed, since: None });
    }
    let now = observed.at;
    let since = former.and_then(|former| former.since).unwrap_or(now.as_second());
    let waited = now.duration_since(Timestamp::from_second(since).unwrap_or(now));
    match waited < KEPT {
        true => Some(Floor { pods: held, since: Some(since) }),
        false => (needed > least).then_some(Floor { pods: needed, since: None }),
    }
}

/// How many pods the load asks for; none where it is not known, since a pod that serves does not answer.
fn needed(observed: &Observed, autoscaling: &Autoscaling) -> Option<u32> {
    let serving = observed.pods.iter().filter(|pod| pod.group.is_some() && pod.canary.is_none() && pod.ready);
    let reports: Option<Vec<LoadReport>> = serving.map(|pod| Some(pod.report.as_ref()?.load)).collect();
    let reports = reports?;
    let pods = u32::try_from(reports.len()).unwrap_or(u32::MAX);
    let by_queue = autoscaling.target_queue_depth.map(|target| {
        let shared = reports.iter().map(|load| load.ingest_waiting).max().unwrap_or_default();
        let waiting = shared + reports.iter().map(|load| load.orders_waiting).sum::<u64>();
        u32::try_from(waiting.div_ceil(u64::from(target.max(1)))).unwrap_or(u32::MAX)
    });
    let by_hits = autoscaling.target_hit_micros.map(|target| {
        let costs: Vec<f64> = reports.iter().filter_map(|load| load.hit_micros).collect();
        by_cost(&costs, f64::from(target.max(1)), pods)
    });
    let needed = by_queue.max(by_hits).unwrap_or_default();
    Some(needed.min(pods.max(1).saturating_mul(GROWTH_MAX)))
}

/// The pods with which the mean cost would be the target, as the autoscaler computes it: in proportion.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pods, small and positive")]
fn by_cost(costs: &[f64], target: f64, pods: u32) -> u32 {
    if costs.is_empty() {
        return 0;
    }
    let ratio = costs.iter().sum::<f64>() / f64::from(u32::try_from(costs.len()).unwrap_or(u32::MAX)) / target;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return pods;
    }
    (f64::from(pods) * ratio).ceil() as u32
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        desired::{Plan, plan},
        fixture::{apply, now, observed_with, settle},
        observe::ObservedPod,
        validate::validate,
    };

    fn shop(targets: &Value) -> Observed {
        let mut observed = observed_with(|spec| {
            spec["replicas"] = json!(3);
            spec["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 10 });
            for (name, target) in targets.as_object().unwrap() {
                spec["autoscaling"][name] = target.clone();
            }
        });
        settle(&mut observed);
        observed
    }

    fn planned(observed: &Observed) -> Plan {
        plan(observed, &validate(observed))
    }

    /// What the autoscaler may choose from at least, after this look.
    fn least(observed: &mut Observed) -> u64 {
        let plan = planned(observed);
        apply(observed, &plan);
        let child = plan.children.iter().find(|child| child.reference.kind == ChildKind::HorizontalPodAutoscaler);
        child.unwrap().body["spec"]["minReplicas"].as_u64().unwrap()
    }

    fn load(observed: &mut Observed, load: LoadReport) {
        for report in observed.pods.iter_mut().filter_map(|pod| pod.report.as_mut()) {
            report.load = load;
        }
    }

    fn waiting(ingest: u64, orders: u64) -> LoadReport {
        LoadReport { ingest_waiting: ingest, orders_waiting: orders, hit_micros: None }
    }

    fn hits(micros: f64) -> LoadReport {
        LoadReport { hit_micros: Some(micros), ..LoadReport::default() }
    }

    #[test]
    fn work_that_waits_asks_for_pods_at_once_and_lets_them_go_later() {
        let mut observed = shop(&json!({ "targetQueueDepth": 100 }));
        assert_eq!(least(&mut observed), 2);
        // three pods with 100 orders each, and 150 events for all
        load(&mut observed, waiting(150, 100));
        assert_eq!(least(&mut observed), 5);
        assert_eq!(planned(&observed), planned(&observed), "and nothing is written again");
        load(&mut observed, waiting(0, 0));
        assert_eq!(least(&mut observed), 5, "not at once");
        observed.at = now() + SignedDuration::from_secs(200);
        assert_eq!(least(&mut observed), 5);
        load(&mut observed, waiting(500, 0));
        assert_eq!(least(&mut observed), 5, "needed again");
        load(&mut observed, waiting(0, 0));
        observed.at = now() + SignedDuration::from_secs(350);
        assert_eq!(least(&mut observed), 5, "the time begins anew");
        observed.at = now() + SignedDuration::from_secs(649);
        assert_eq!(least(&mut observed), 5);
        observed.at = now() + SignedDuration::from_secs(650);
        assert_eq!(least(&mut observed), 2);
        let plan = planned(&observed);
        let child = plan.children.iter().find(|child| child.reference.kind == ChildKind::HorizontalPodAutoscaler);
        assert!(child.unwrap().body["metadata"]["annotations"][annotation::FLOOR].is_null(), "nothing is left of it");
    }

    #[test]
    fn it_grows_step_by_step_and_not_beyond_the_most() {
        let mut observed = shop(&json!({ "targetQueueDepth": 1 }));
        load(&mut observed, waiting(1_000_000, 0));
        assert_eq!(least(&mut observed), 6, "twice the three that serve");
        let pod = observed.pods[0].clone();
        observed.pods.resize(6, pod);
        assert_eq!(least(&mut observed), 10);
    }

    #[test]
    fn a_cost_asks_for_pods_in_proportion() {
        let mut observed = shop(&json!({ "targetHitMicros": 10 }));
        load(&mut observed, hits(10.9));
        assert_eq!(least(&mut observed), 3, "near enough: as many as there are");
        load(&mut observed, hits(14.0));
        assert_eq!(least(&mut observed), 5);
        load(&mut observed, LoadReport::default());
        observed.at = now() + SignedDuration::from_secs(1);
        assert_eq!(least(&mut observed), 5);
    }

    #[test]
    fn a_pod_that_says_nothing_changes_nothing() {
        let mut observed = shop(&json!({ "targetQueueDepth": 100 }));
        load(&mut observed, waiting(500, 0));
        assert_eq!(least(&mut observed), 5);
        load(&mut observed, waiting(0, 0));
        observed.pods[1].report = None;
        observed.at = now() + SignedDuration::from_secs(3_600);
        assert_eq!(least(&mut observed), 5);
        observed.pods.push(ObservedPod { canary: Some("x".to_owned()), ..observed.pods[1].clone() });
        observed.pods.remove(1);
        least(&mut observed);
        observed.at = now() + SignedDuration::from_secs(7_200);
        assert_eq!(least(&mut observed), 2, "a canary has no say");
    }

    #[test]
    fn without_targets_the_load_does_not_matter() {
        let mut observed = shop(&json!({}));
        load(&mut observed, LoadReport { hit_micros: Some(1e6), ..waiting(1_000_000, 1_000_000) });
        assert_eq!(least(&mut observed), 2);
    }
}
