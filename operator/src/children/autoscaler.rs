//! HorizontalPodAutoscaler: scales the FlyweightService, which shares the total out over its groups.
//!
//! It scales by CPU. What only the pods know, work that waits and the cost of a hit, moves the fewest pods
//! that it may choose: so no adapter of metrics has to be installed, and nobody but the autoscaler sets the
//! number of pods. Fewer pods are let in only after a while, as the autoscaler does itself.

use crds::{GROUP, VERSION, service::Autoscaling};
use k8s_openapi::{
    api::autoscaling::v2::{
        CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
        MetricTarget, ResourceMetricSource,
    },
    jiff::SignedDuration,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::target::{self, Component, Target, int};
use crate::model::{
    child::{Child, ChildKind, annotation},
    observed::Observed,
    report::LoadReport,
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
    /// Set while fewer would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    less: Option<Less>,
}

/// A time in which fewer pods were enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Less {
    /// Since when, in seconds.
    since: i64,
    /// The most that were needed in it.
    most: u32,
}

/// What the pods say of their load.
struct Need {
    /// How many pods it asks for.
    pods: u32,
    /// Whether all pods that there should be serve and said something: otherwise it may be more, and nothing
    /// is let go.
    whole: bool,
}

/// The autoscaler of the service.
pub fn child(target: &Target<'_>, autoscaling: &Autoscaling) -> Child {
    let Autoscaling {
        min_replicas,
        max_replicas,
        target_cpu_percent,
        target_queue_depth: queue_depth,
        target_hit_micros: hit_micros,
    } = autoscaling;
    let planned = target.validated.groups.iter().map(|group| group.replicas).sum();
    let floor = floor(target.observed, autoscaling, planned, recorded(target));
    let min_replicas = floor.map_or(*min_replicas, |floor| floor.pods);
    let cpu = ResourceMetricSource {
        name: "cpu".to_owned(),
        target: MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(int(*target_cpu_percent)),
            ..MetricTarget::default()
        },
    };
    let spec = HorizontalPodAutoscalerSpec {
        scale_target_ref: CrossVersionObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: "FlyweightService".to_owned(),
            name: target.name().to_owned(),
        },
        min_replicas: Some(int(min_replicas)),
        max_replicas: int(*max_replicas),
        metrics: Some(vec![MetricSpec {
            type_: "Resource".to_owned(),
            resource: Some(cpu),
            ..MetricSpec::default()
        }]),
        ..HorizontalPodAutoscalerSpec::default()
    };
    let mut metadata = target.metadata(target.name().to_owned(), Component::Dataplane);
    let annotations = metadata.annotations.get_or_insert_default();
    if queue_depth.is_some() || hit_micros.is_some() {
        let targets = json!({ "queueDepth": queue_depth, "hitMicros": hit_micros });
        annotations.insert(annotation::TARGETS.to_owned(), targets.to_string());
    }
    if let Some(floor) = floor {
        annotations.insert(annotation::FLOOR.to_owned(), json!(floor).to_string());
    }
    let autoscaler =
        HorizontalPodAutoscaler { metadata, spec: Some(spec), ..HorizontalPodAutoscaler::default() };
    target::child(ChildKind::HorizontalPodAutoscaler, &autoscaler)
}

fn recorded(target: &Target<'_>) -> Option<Floor> {
    let mut children = target.observed.children.iter();
    let live = children.find(|live| live.reference.kind == ChildKind::HorizontalPodAutoscaler)?;
    serde_json::from_str(live.annotation(annotation::FLOOR)?).ok()
}

/// The fewest pods from now on; none where those of the resource are enough. More at once; fewer when that
/// has been so for long enough, and not fewer than were needed meanwhile. `planned` is how many pods there
/// should be now: a roll has some more or fewer for a while, which says nothing.
fn floor(
    observed: &Observed,
    autoscaling: &Autoscaling,
    planned: u32,
    former: Option<Floor>,
) -> Option<Floor> {
    let (least, most) = (autoscaling.min_replicas, autoscaling.max_replicas);
    let held = former.map_or(least, |former| former.pods.clamp(least, most));
    let of = |pods: u32, less| (pods > least).then_some(Floor { pods, less });
    let Need { pods, whole } = need(observed, autoscaling, planned);
    let needed = pods.min(held.max(planned.saturating_mul(GROWTH_MAX))).clamp(least, most);
    if needed >= held || !whole {
        return of(needed.max(held), None);
    }
    let now = observed.at.as_second();
    let less = former.and_then(|former| former.less).unwrap_or(Less { since: now, most: needed });
    let less = Less { most: less.most.max(needed).min(held), ..less };
    if SignedDuration::from_secs(now.saturating_sub(less.since)) < KEPT {
        return of(held, Some(less));
    }
    of(less.most, (needed < less.most).then_some(Less { since: now, most: needed }))
}

/// How many pods the load asks for, as far as those that serve say.
fn need(observed: &Observed, autoscaling: &Autoscaling, planned: u32) -> Need {
    let serving = || {
        let pods = observed.pods.iter().filter(|pod| pod.group.is_some() && pod.canary.is_none());
        pods.filter(|pod| pod.ready && !pod.terminating)
    };
    let loads: Vec<LoadReport> = serving().filter_map(|pod| Some(pod.report.as_ref()?.load)).collect();
    let by_queue = autoscaling.target_queue_depth.map(|target| {
        let shared = loads.iter().filter_map(|load| load.ingest_waiting).max().unwrap_or_default();
        let waiting = shared + loads.iter().map(|load| load.orders_waiting).sum::<u64>();
        u32::try_from(waiting.div_ceil(u64::from(target.max(1)))).unwrap_or(u32::MAX)
    });
    let by_hits = autoscaling.target_hit_micros.map(|target| {
        let costs: Vec<f64> = loads.iter().filter_map(|load| load.hit_micros).collect();
        by_cost(&costs, f64::from(target.max(1)), planned)
    });
    // what nobody counted may be more than it was
    let counted = by_queue.is_none() || loads.iter().all(|load| load.ingest_waiting.is_some());
    let enough = counted && loads.len() >= planned as usize && loads.len() == serving().count();
    Need { pods: by_queue.max(by_hits).unwrap_or_default(), whole: enough && !loads.is_empty() }
}

/// The pods with which the mean cost would be the target, as the autoscaler computes it: in proportion.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of pods, small and positive"
)]
fn by_cost(costs: &[f64], target: f64, pods: u32) -> u32 {
    if costs.is_empty() {
        return 0;
    }
    let ratio =
        costs.iter().sum::<f64>() / f64::from(u32::try_from(costs.len()).unwrap_or(u32::MAX)) / target;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return pods;
    }
    (f64::from(pods) * ratio).ceil() as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::{
        fixture::{apply, now, observed_with, settle},
        model::{observed::ObservedPod, plan::Plan},
        rollout::plan,
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
        let child =
            plan.children.iter().find(|child| child.reference.kind == ChildKind::HorizontalPodAutoscaler);
        child.unwrap().body["spec"]["minReplicas"].as_u64().unwrap()
    }

    /// So many pods, as the autoscaler asked for.
    fn scale(observed: &mut Observed, pods: u32) {
        Arc::make_mut(&mut observed.service).spec.replicas = Some(pods);
        let pod = observed.pods.iter().find(|pod| pod.group.is_some()).unwrap().clone();
        observed.pods.resize(pods as usize, pod);
    }

    fn load(observed: &mut Observed, load: LoadReport) {
        for report in observed.pods.iter_mut().filter_map(|pod| pod.report.as_mut()) {
            report.load = load;
        }
    }

    fn waiting(ingest: u64, orders: u64) -> LoadReport {
        LoadReport { ingest_waiting: Some(ingest), orders_waiting: orders, hit_micros: None }
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
        let child =
            plan.children.iter().find(|child| child.reference.kind == ChildKind::HorizontalPodAutoscaler);
        assert!(
            child.unwrap().body["metadata"]["annotations"][annotation::FLOOR].is_null(),
            "nothing is left of it"
        );
    }

    #[test]
    fn it_grows_step_by_step_and_not_beyond_the_most() {
        let mut observed = shop(&json!({ "targetQueueDepth": 1 }));
        load(&mut observed, waiting(1_000_000, 0));
        assert_eq!(least(&mut observed), 6, "twice the three that there are");
        scale(&mut observed, 6);
        assert_eq!(least(&mut observed), 10);
    }

    #[test]
    fn a_roll_moves_nothing() {
        let mut observed = shop(&json!({ "targetHitMicros": 10 }));
        load(&mut observed, hits(10.0));
        assert_eq!(least(&mut observed), 3);
        observed.pods.push(observed.pods[0].clone());
        assert_eq!(least(&mut observed), 3, "one more for a while");
        observed.pods[0].terminating = true;
        assert_eq!(least(&mut observed), 3);
    }

    #[test]
    fn pods_that_do_not_serve_let_nothing_go() {
        let mut observed = shop(&json!({ "targetQueueDepth": 100 }));
        load(&mut observed, waiting(600, 0));
        assert_eq!(least(&mut observed), 6);
        scale(&mut observed, 6);
        load(&mut observed, waiting(10, 0));
        for ready in [2, 0] {
            for (n, pod) in observed.pods.iter_mut().enumerate() {
                pod.ready = n < ready;
            }
            assert_eq!(least(&mut observed), 6, "{ready} serve");
            observed.at += SignedDuration::from_secs(3_600);
            assert_eq!(least(&mut observed), 6, "{ready} serve");
        }
        // what still asks for more is heard
        observed.pods[0].ready = true;
        load(&mut observed, waiting(900, 0));
        assert_eq!(least(&mut observed), 9);
    }

    #[test]
    fn what_was_needed_in_between_is_kept() {
        let mut observed = shop(&json!({ "targetQueueDepth": 100 }));
        scale(&mut observed, 5);
        load(&mut observed, waiting(1_000, 0));
        assert_eq!(least(&mut observed), 10);
        for needed in [2, 9, 2, 8, 2] {
            load(&mut observed, waiting(needed * 100, 0));
            assert_eq!(least(&mut observed), 10);
            observed.at += SignedDuration::from_secs(60);
        }
        assert_eq!(least(&mut observed), 9);
        observed.at += SignedDuration::from_secs(300);
        assert_eq!(least(&mut observed), 2);
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
        let report = observed.pods[0].report.clone();
        observed.pods.push(ObservedPod { canary: Some("x".to_owned()), ..observed.pods[1].clone() });
        observed.pods[1].report = report;
        least(&mut observed);
        observed.at = now() + SignedDuration::from_secs(7_200);
        assert_eq!(least(&mut observed), 2, "a canary has no say");
    }

    #[test]
    fn work_that_nobody_could_count_lets_nothing_go() {
        let mut observed = shop(&json!({ "targetQueueDepth": 100 }));
        load(&mut observed, waiting(500, 0));
        assert_eq!(least(&mut observed), 5);
        scale(&mut observed, 5);
        load(&mut observed, LoadReport { ingest_waiting: None, ..waiting(0, 0) });
        least(&mut observed);
        observed.at = now() + SignedDuration::from_secs(3_600);
        assert_eq!(least(&mut observed), 5);
        load(&mut observed, LoadReport { ingest_waiting: None, ..waiting(0, 200) });
        assert_eq!(least(&mut observed), 10, "what is known to wait is heard");
    }

    #[test]
    fn without_targets_the_load_does_not_matter() {
        let mut observed = shop(&json!({}));
        load(&mut observed, LoadReport { hit_micros: Some(1e6), ..waiting(1_000_000, 1_000_000) });
        assert_eq!(least(&mut observed), 2);
    }
}
