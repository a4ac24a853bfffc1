//! A migration: before pods of another image come, a Job of that image brings the stores' tables and indexes
//! up to it, while the pods of the former image serve. Migrations only add, so the former image goes on with
//! what they make; a lock in the store keeps two from running at once.
//!
//! A service without pods needs none: the data plane migrates when it starts, too, and finds it done where a
//! Job was there before.

use crds::settings::{BackendKind, BackendSettings};
use k8s_openapi::{
    api::batch::v1::{Job, JobSpec},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::last_good::Former;
use crate::{
    children::{
        config_map, deployment, pod,
        target::{self, Component, Labels, Target, digest, labels},
    },
    model::{
        child::{Child, ChildKind, Live, label, settings_name},
        observed::ObservedPod,
        plan::Migration,
        validated::Group,
    },
};

/// How often the Job itself tries again after the first time, each time after a longer wait: for ten minutes
/// in all.
const TRIES: i32 = 6;
/// After how long the operator makes a failed Job anew.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(300);
/// How long it may take at most. Indexes of large tables take their time, but not for ever.
const WORK_MAX_S: i64 = 6 * 60 * 60;
/// How long it may take until it is at work, its pod being made and placed included.
const START_MAX: SignedDuration = SignedDuration::from_secs(150);
/// How long its pod may look as if it could never start.
const FAILING_MAX: SignedDuration = SignedDuration::from_secs(20);

/// A migration that a change needs, and the children that it is made of.
pub(super) struct Migrating {
    pub migration: Migration,
    pub children: Vec<Child>,
}

/// The migration of the change; none where the image stays, or no store has tables.
pub(super) fn migration(target: &Target<'_>) -> Option<Migrating> {
    if !is_needed(target) {
        return None;
    }
    let job = job(target);
    let live = target.observed.children.iter().find(|live| live.reference == job.reference);
    let failed_at = live.and_then(|live| ended(live, "Failed")).map(|(at, _)| at);
    let migration = state(target, &job.reference.name, live);
    let mut children = vec![settings(target)];
    // One that failed long ago is left out, and so taken away; the next look makes another.
    if failed_at.is_none_or(|at| target.observed.at.duration_since(at) < AGAIN_AFTER) {
        children.push(job);
    }
    Some(Migrating { migration, children })
}

/// Whether the object is part of a migration.
pub(super) fn is_migration(live: &Live) -> bool {
    live.object
        .labels()
        .get(label::COMPONENT)
        .is_some_and(|component| component == Component::Migration.name())
}

/// Whether pods of another image are there, or were before somebody took their Deployment away, and a store
/// that has to know of the new one. An image that somebody else set is no change: it is repaired.
fn is_needed(target: &Target<'_>) -> bool {
    let has_tables = |backend: &BackendSettings| {
        matches!(backend.kind, BackendKind::Mysql { .. } | BackendKind::Mongodb { .. })
    };
    let changes = |group: &Group| {
        Former::of(target, group).is_some_and(|former| {
            let another = former.image.as_ref().is_some_and(|image| *image != target.validated.image);
            another && former.differs(target, group)
        })
    };
    target.settings().backends.iter().any(has_tables) && target.validated.groups.iter().any(changes)
}

fn state(target: &Target<'_>, name: &str, live: Option<&Live>) -> Migration {
    let Some(live) = live else { return Migration::Running(format!("Job {name} starts")) };
    if ended(live, "Complete").is_some() {
        return Migration::Done;
    }
    if let Some((_, why)) = ended(live, "Failed") {
        return Migration::Failed(format!("Job {name} failed: {why}"));
    }
    let now = target.observed.at;
    let mut pods = target.observed.migrating.iter().filter(|pod| pod.job.as_deref() == Some(name));
    let stuck = pods.clone().find(|pod| pod.is_failing() && now.duration_since(pod.created) > FAILING_MAX);
    let why =
        |pod: &'_ ObservedPod| pod.cause.as_ref().map(|cause| cause.message.clone()).or(pod.waiting.clone());
    if let Some(reason) = stuck.and_then(why) {
        return Migration::Failed(format!("Job {name} does not start: {reason}"));
    }
    // Whatever keeps it from starting: no node has a place for its pod, a volume does not come, a quota
    // leaves it without one.
    let waited = live.object.creation_timestamp().map(|created| now.duration_since(created.0));
    let begun = pods.clone().any(|pod| pod.started) || live.object.data.pointer("/status/failed").is_some();
    if !begun && waited.is_some_and(|waited| waited > START_MAX) {
        let why = match pods.next() {
            Some(pod) => why(pod).unwrap_or_else(|| "its pod has no place".to_owned()),
            None => "it has no pod".to_owned(),
        };
        return Migration::Failed(format!(
            "Job {name} did not start within {} s: {why}",
            START_MAX.as_secs()
        ));
    }
    match live.object.data.pointer("/status/failed").and_then(Value::as_u64) {
        None | Some(0) => Migration::Running(format!("Job {name} is at work")),
        Some(times) => Migration::Failed(format!(
            "Job {name} failed {times} of {} tries; see kubectl logs job/{name}",
            TRIES + 1
        )),
    }
}

/// When the Job ended in this way, and with which message; none when it did not.
fn ended(live: &Live, how: &str) -> Option<(Timestamp, String)> {
    let conditions = live.object.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|one| one["type"] == how && one["status"] == "True")?;
    let at = found["lastTransitionTime"]
        .as_str()
        .and_then(|time| time.parse().ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    Some((at, found["message"].as_str().unwrap_or_default().to_owned()))
}

fn own_settings(target: &Target<'_>) -> String {
    settings_name(&target.name_of("migrate"))
}

/// The settings that it runs by: those of the pods that are to come.
fn settings(target: &Target<'_>) -> Child {
    let component = labels([(label::COMPONENT, Component::Migration.name())]);
    config_map::named(target, own_settings(target), component, None)
}

/// The Job, named by what it runs: another image, other settings or a wish to try again make another.
fn job(target: &Target<'_>) -> Child {
    let args = ["migrate", "--config", &pod::settings_path(), "--backends", deployment::BACKENDS_FOLDER];
    let args =
        args.into_iter().chain(["--security", deployment::SECURITY_FOLDER]).map(str::to_owned).collect();
    let mut template = pod::template(
        target,
        pod::Pod {
            component: Component::Migration,
            settings: &own_settings(target),
            container: "migrate",
            args,
            resources: pod::few_resources(),
            labels: Labels::new(),
            volumes: deployment::secrets(target),
            own: None,
        },
    );
    // It serves nobody, and ends.
    if let Some(spec) = &mut template.spec {
        spec.topology_spread_constraints = None;
        spec.restart_policy = Some("Never".to_owned());
        for container in &mut spec.containers {
            container.ports = None;
            (container.startup_probe, container.readiness_probe) = (None, None);
            container.liveness_probe = None;
        }
    }
    let spec = JobSpec {
        active_deadline_seconds: Some(WORK_MAX_S),
        backoff_limit: Some(TRIES),
        completions: Some(1),
        parallelism: Some(1),
        template,
        ..JobSpec::default()
    };
    let name = target.name_of(&format!("migrate-{}", digest(&json!(spec))));
    let metadata = target.metadata(name, Component::Migration);
    target::child(ChildKind::Job, &Job { metadata, spec: Some(spec), ..Job::default() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        fixture::{apply, now, observed, observed_with, settle},
        model::{
            observed::Observed,
            plan::{Held, Plan},
        },
        rollout::plan,
        validate::validate,
    };

    fn planned(observed: &Observed) -> Plan {
        plan(observed, &validate(observed))
    }

    /// A settled service whose author names another image.
    fn upgraded(image: &str) -> Observed {
        let mut observed = observed();
        settle(&mut observed);
        observed.service = observed_with(|spec| spec["image"] = json!(image)).service;
        observed
    }

    fn names(plan: &Plan) -> Vec<String> {
        let pods = plan.children.iter().map(|child| &child.reference);
        let pods = pods
            .filter(|one| matches!(one.kind, ChildKind::ConfigMap | ChildKind::Deployment | ChildKind::Job));
        pods.map(|one| format!("{} {}", one.kind.name(), one.name)).collect()
    }

    /// Gives the Job a status; its name.
    fn becomes(observed: &mut Observed, status: Value) -> String {
        let job = observed.children.iter_mut().find(|live| live.reference.kind == ChildKind::Job).unwrap();
        let mut object = (*job.object).clone();
        object.data["status"] = status;
        job.object = object.into();
        job.reference.name.clone()
    }

    fn condition(kind: &str) -> Value {
        json!({ "conditions": [{ "type": kind, "status": "True", "message": "why", "lastTransitionTime": now().to_string() }] })
    }

    #[test]
    fn a_job_of_the_new_image_comes_before_its_pods() {
        let mut observed = upgraded("flyweight/dataplane:2");
        let plan = planned(&observed);
        assert_eq!((plan.held, &plan.trial), (Some(Held::Migration), &None));
        let [settings, job] = &names(&plan)[..] else { panic!("{:?}", names(&plan)) };
        assert_eq!(settings, "ConfigMap shop-migrate-settings");
        assert!(job.starts_with("Job shop-migrate-"), "{job}");
        apply(&mut observed, &plan);
        assert_eq!(planned(&observed).held, Some(Held::Migration), "it is waited for");
        becomes(&mut observed, condition("Complete"));
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::Canary), "then one pod takes it first");
        assert!(plan.prune.is_empty(), "what is done stays known until the roll is over: {:?}", plan.prune);
        observed.pods.clear();
        let plan = planned(&observed);
        assert_eq!(plan.held, None);
        let after = [
            "ConfigMap shop-last-good",
            "ConfigMap shop-settings",
            "Deployment shop-catalog",
            "Deployment shop-main",
        ];
        assert_eq!(names(&plan), after);
        assert_eq!(plan.prune.len(), 2, "{:?}", plan.prune);
        apply(&mut observed, &plan);
        assert_eq!((planned(&observed).held, planned(&observed).prune.len()), (None, 0));
    }

    #[test]
    fn its_pod_is_none_of_those_that_serve_and_has_few_rights() {
        let plan = planned(&upgraded("flyweight/dataplane:2"));
        let job = &plan.children.iter().find(|child| child.reference.kind == ChildKind::Job).unwrap().body;
        let template = &job["spec"]["template"];
        assert_eq!(template["metadata"]["labels"][label::COMPONENT], "migration");
        assert!(template["metadata"]["labels"][label::GROUP].is_null());
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["image"], "flyweight/dataplane:2");
        assert_eq!(container["args"][0], "migrate");
        assert!(container["ports"].is_null() && container["readinessProbe"].is_null());
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(template["spec"]["securityContext"]["runAsNonRoot"], true);
        assert_eq!(template["spec"]["automountServiceAccountToken"], false);
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        assert_eq!(volumes[0]["configMap"]["name"], "shop-migrate-settings");
        assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "shop-mysql"));
    }

    #[test]
    fn there_is_none_where_the_image_stays_or_nothing_runs_or_no_store_has_tables() {
        let migration = |observed: &Observed| planned(observed).migration;
        assert!(migration(&upgraded("flyweight/dataplane:2")).is_some());
        assert_eq!(migration(&upgraded("flyweight/dataplane:0.1.0")), None);
        assert_eq!(migration(&observed_with(|spec| spec["image"] = json!("flyweight/dataplane:2"))), None);
        let mut changed = upgraded("flyweight/dataplane:0.1.0");
        crate::fixture::change_tier(&mut changed, |spec| spec["memory"]["policy"] = json!("LRU"));
        assert_eq!(migration(&changed), None);
    }

    #[test]
    fn an_image_that_somebody_else_set_is_repaired_at_once() {
        let mut observed = upgraded("flyweight/dataplane:0.1.0");
        let main = observed
            .children
            .iter_mut()
            .find(|live| live.reference.name == "shop-main" && live.reference.kind == ChildKind::Deployment);
        let main = main.unwrap();
        let mut object = (*main.object).clone();
        object.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
        main.object = object.into();
        let plan = planned(&observed);
        assert_eq!((plan.held, plan.migration), (None, None));
    }

    #[test]
    fn a_failure_leaves_what_runs_and_is_tried_again() {
        let mut observed = upgraded("flyweight/dataplane:2");
        let plan = planned(&observed);
        apply(&mut observed, &plan);
        let name = becomes(&mut observed, json!({ "failed": 2 }));
        let plan = planned(&observed);
        assert_eq!((plan.held, plan.prune.len()), (Some(Held::MigrationFailed), 0));
        let told = format!("Job {name} failed 2 of 7 tries; see kubectl logs job/{name}");
        assert_eq!(plan.migration, Some(Migration::Failed(told)));
        assert_eq!(names(&plan).len(), 2, "the Job tries again by itself");
        becomes(&mut observed, condition("Failed"));
        assert_eq!(planned(&observed).migration, Some(Migration::Failed(format!("Job {name} failed: why"))));
        observed.at = now() + AGAIN_AFTER;
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::MigrationFailed));
        assert_eq!(plan.prune.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), [name]);
        apply(&mut observed, &plan);
        assert_eq!(planned(&observed).held, Some(Held::Migration), "and is made anew");
        observed.service = observed_with(|_| ()).service;
        let back = planned(&observed);
        assert_eq!((back.held, back.prune.len()), (None, 1), "taken back, nothing is left of it");
    }

    #[test]
    fn an_image_that_is_not_there_is_told() {
        let mut observed = upgraded("flyweight/dataplane:nowhere");
        let plan = planned(&observed);
        apply(&mut observed, &plan);
        let name = becomes(&mut observed, json!({ "active": 1 }));
        let pod = ObservedPod {
            job: Some(name.clone()),
            created: now(),
            waiting: Some("ImagePullBackOff".to_owned()),
            ..ObservedPod::default()
        };
        observed.migrating.push(pod);
        assert_eq!(planned(&observed).held, Some(Held::Migration), "it may come");
        observed.at += FAILING_MAX + SignedDuration::from_secs(1);
        assert_eq!(
            planned(&observed).migration,
            Some(Migration::Failed(format!("Job {name} does not start: ImagePullBackOff")))
        );
    }

    #[test]
    fn a_job_that_does_not_get_to_work_is_told_whatever_keeps_it() {
        let mut observed = upgraded("flyweight/dataplane:2");
        let plan = planned(&observed);
        apply(&mut observed, &plan);
        let name = becomes(&mut observed, json!({ "active": 1 }));
        let job = observed.children.iter_mut().find(|live| live.reference.kind == ChildKind::Job).unwrap();
        let mut object = (*job.object).clone();
        object.metadata.creation_timestamp = Some(Time(now()));
        job.object = object.into();
        observed.at += START_MAX;
        assert_eq!(planned(&observed).held, Some(Held::Migration), "it may come");
        observed.at += SignedDuration::from_secs(1);
        let told = |why| Some(Migration::Failed(format!("Job {name} did not start within 150 s: {why}")));
        assert_eq!(planned(&observed).migration, told("it has no pod"));
        observed.migrating.push(ObservedPod {
            job: Some(name.clone()),
            created: now(),
            ..ObservedPod::default()
        });
        assert_eq!(planned(&observed).migration, told("its pod has no place"));
        observed.migrating[0].waiting = Some("ContainerCreating".to_owned());
        assert_eq!(planned(&observed).migration, told("ContainerCreating"));
        observed.migrating[0] = ObservedPod { started: true, waiting: None, ..observed.migrating[0].clone() };
        observed.at += SignedDuration::from_secs(3600);
        assert_eq!(planned(&observed).held, Some(Held::Migration), "its work may take longer");
        let job = plan.children.iter().find(|child| child.reference.kind == ChildKind::Job).unwrap();
        assert_eq!(job.body["spec"]["activeDeadlineSeconds"], WORK_MAX_S, "but not for ever");
    }

    #[test]
    fn another_change_meanwhile_makes_another_job() {
        let mut observed = upgraded("flyweight/dataplane:2");
        let first = planned(&observed);
        apply(&mut observed, &first);
        observed.service = observed_with(|spec| spec["image"] = json!("flyweight/dataplane:3")).service;
        let plan = planned(&observed);
        assert_eq!(plan.held, Some(Held::Migration));
        assert_eq!(plan.prune.len(), 1);
        assert!(
            first
                .children
                .iter()
                .any(|child| child.reference == plan.prune[0] && child.reference.kind == ChildKind::Job)
        );
    }
}
