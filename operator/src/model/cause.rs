//! Why a pod does not run: what the cluster says of it, in one word and a sentence that stays the same while
//! it lasts. Names that are made anew at each try, and words that alternate, are left out.

use crds::conditions::Reason;
use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::Value;

/// A container that ended and was started again is told as one that crashes for so long: the longest wait
/// before another start is five minutes, and then it runs for a moment.
const STARTED_AGAIN: SignedDuration = SignedDuration::from_secs(150);
/// The most characters of what others say.
const WORDS_MAX: usize = 400;

/// Why a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// In one word.
    pub reason: Reason,
    /// In a sentence.
    pub message: String,
}

impl Cause {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { reason, message: cut(&message) }
    }

    /// Why this pod does not run; none where nothing keeps it.
    pub fn of_pod(pod: &Pod, now: Timestamp) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let containers = lists.into_iter().flatten().flatten();
        containers.filter_map(|one| of_container(one, now)).next().or_else(|| unschedulable(pod))
    }

    /// Why the Deployment cannot make its pods, by its status; none where it can.
    pub fn of_deployment(deployment: &Value) -> Option<Self> {
        let conditions = deployment.pointer("/status/conditions")?.as_array()?;
        let failed = |one: &&Value| one["type"] == "ReplicaFailure" && one["status"] == "True";
        let message = conditions.iter().find(failed)?["message"].as_str()?;
        // the pod's name is another at each try
        let why = message.split_once("is forbidden: ").map_or(message, |(_, why)| why);
        Some(match why.contains("exceeded quota") || why.contains("failed quota") {
            true => Self::new(
                Reason::QuotaExceeded,
                format!("a quota of the namespace admits no more pods: {why}"),
            ),
            false => Self::new(Reason::PodsRefused, format!("the API server admits no pod: {why}")),
        })
    }
}

fn of_container(container: &ContainerStatus, now: Timestamp) -> Option<Cause> {
    let state = container.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let (reason, message) =
        waiting.map_or((None, None), |waiting| (waiting.reason.as_deref(), waiting.message.as_deref()));
    match (reason.unwrap_or_default(), message.unwrap_or_default()) {
        ("ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName", why) => {
            Some(not_pulled(&container.image, why))
        }
        (reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"), why) => {
            let why = if why.is_empty() { reason } else { why };
            Some(Cause::new(Reason::ContainerNotCreated, format!("container {}: {why}", container.name)))
        }
        _ => crashed(container, state, now),
    }
}

/// The registry's own words change from try to try; what they are about does not.
fn not_pulled(image: &str, why: &str) -> Cause {
    let is = |words: &[&str]| words.iter().any(|word| why.to_ascii_lowercase().contains(word));
    let what = if is(&["invalidimagename", "couldn't parse image", "invalid reference"]) {
        "is no name of an image"
    } else if is(&["unauthorized", "denied", "authentication", "forbidden", "no basic auth"]) {
        "is not given out by its registry: name a Secret with its account in spec.podTemplate.spec.imagePullSecrets"
    } else if is(&["not found", "manifest unknown", "notfound"]) {
        "is not in its registry"
    } else if is(&["x509", "certificate", "http response to https"]) {
        "cannot be pulled: the nodes do not trust its registry"
    } else if is(&["no such host", "dial tcp", "timeout", "refused", "i/o"]) {
        "cannot be pulled: the nodes do not reach its registry"
    } else {
        "cannot be pulled: see its name, its registry, and spec.podTemplate.spec.imagePullSecrets"
    };
    Cause::new(Reason::ImageNotPulled, format!("image {image} {what}"))
}

/// How the container ended last, where it did not get far since.
fn crashed(container: &ContainerStatus, state: Option<&ContainerState>, now: Timestamp) -> Option<Cause> {
    if container.ready {
        return None;
    }
    let runs_since = state.and_then(|state| Some(state.running.as_ref()?.started_at.as_ref()?.0));
    if runs_since.is_some_and(|since| now.duration_since(since) > STARTED_AGAIN) {
        return None;
    }
    let ended = |state: &ContainerState| state.terminated.clone();
    let ended = state.and_then(ended).or_else(|| container.last_state.as_ref().and_then(ended))?;
    let ContainerStateTerminated { exit_code, reason, signal, message, .. } = ended;
    let name = &container.name;
    if reason.as_deref() == Some("OOMKilled") {
        let limit =
            limit_of(container).map(|limit| format!(", of which it may have {limit}")).unwrap_or_default();
        let what =
            format!("container {name} was killed for want of memory{limit}: raise resources.limits.memory");
        return Some(Cause::new(Reason::OutOfMemory, what));
    }
    if exit_code == 0 {
        return None;
    }
    let how = match signal {
        Some(signal) if signal != 0 => format!("by signal {signal}"),
        _ => format!("with code {exit_code}"),
    };
    let words = message.as_deref().and_then(last_words).map(|words| format!(": {words}")).unwrap_or_default();
    Some(Cause::new(Reason::CrashLooping, format!("container {name} ended {how}{words}")))
}

fn limit_of(container: &ContainerStatus) -> Option<&str> {
    Some(container.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.as_str())
}

/// The last line that says something, without the time that a log entry has.
fn last_words(message: &str) -> Option<String> {
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let entry: Option<Value> = serde_json::from_str(line).ok();
    let said = entry.as_ref().and_then(|entry| {
        entry.pointer("/fields/message").or_else(|| entry.get("message")).and_then(Value::as_str)
    });
    Some(said.unwrap_or(line).trim_start_matches("error: ").to_owned())
}

fn unschedulable(pod: &Pod) -> Option<Cause> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let placed = conditions.iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    let why = placed.message.as_deref().unwrap_or("no node has a place for it");
    // what follows says that no other pod can be driven away
    let why = why.split(" preemption:").next().unwrap_or(why);
    Some(Cause::new(Reason::Unschedulable, why.trim_end_matches(['.', ',', ' '])))
}

fn cut(words: &str) -> String {
    match words.char_indices().nth(WORDS_MAX) {
        Some((at, _)) => format!("{}…", &words[..at]),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn cause(status: Value) -> Option<Cause> {
        let pod = json!({
            "metadata": { "name": "p" },
            "status": status,
        });
        Cause::of_pod(&serde_json::from_value(pod).unwrap(), Timestamp::from_second(NOW).unwrap())
    }

    fn container(state: Value, last: Value) -> Value {
        json!({ "containerStatuses": [{
            "name": "dataplane", "image": "reg/dp:1", "imageID": "", "ready": false, "restartCount": 3,
            "resources": { "limits": { "memory": "64Mi" } },
            "state": state, "lastState": last,
        }] })
    }

    fn at(seconds_ago: i64) -> String {
        Timestamp::from_second(NOW - seconds_ago).unwrap().to_string()
    }

    #[test]
    fn each_cause_has_its_word_and_says_what_to_do() {
        let waiting = |reason: &str, message: &str| {
            container(json!({ "waiting": { "reason": reason, "message": message } }), json!({}))
        };
        let backs_off = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } });
        let ended = |reason: &str, code: i32, message: &str| json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } });
        let unplaced = json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}. preemption: 0/1 nodes are available.",
        }] });
        for (status, reason, words) in [
            (waiting("ErrImagePull", "pull access denied"), Reason::ImageNotPulled, "imagePullSecrets"),
            (
                waiting("ImagePullBackOff", "x: not found"),
                Reason::ImageNotPulled,
                "reg/dp:1 is not in its registry",
            ),
            (
                waiting("ErrImagePull", "dial tcp: lookup reg: no such host"),
                Reason::ImageNotPulled,
                "do not reach",
            ),
            (waiting("InvalidImageName", "couldn't parse image name"), Reason::ImageNotPulled, "no name"),
            (
                waiting("CreateContainerConfigError", "secret \"x\" not found"),
                Reason::ContainerNotCreated,
                "secret \"x\"",
            ),
            (container(backs_off.clone(), ended("OOMKilled", 137, "")), Reason::OutOfMemory, "may have 64Mi"),
            (
                container(backs_off.clone(), ended("Error", 1, "error: backends/mysql has no key url\n")),
                Reason::CrashLooping,
                "ended with code 1: backends/mysql has no key url",
            ),
            (
                container(backs_off, ended("Error", 1, r#"{"timestamp":"t","fields":{"message":"boom"}}"#)),
                Reason::CrashLooping,
                "code 1: boom",
            ),
            (unplaced, Reason::Unschedulable, "untolerated taint {a: b}"),
        ] {
            let cause = cause(status.clone()).unwrap_or_else(|| panic!("{status}"));
            assert_eq!(cause.reason, reason, "{status}");
            assert!(cause.message.contains(words), "{} in {}", words, cause.message);
            assert!(!cause.message.contains("preemption"));
        }
    }

    #[test]
    fn it_is_the_same_between_two_crashes_and_over_once_the_container_has_run_for_long() {
        let last = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "boom" } });
        let running = |ago| json!({ "running": { "startedAt": at(ago) } });
        let backs_off =
            cause(container(json!({ "waiting": { "reason": "CrashLoopBackOff" } }), last.clone()));
        assert!(backs_off.is_some());
        assert_eq!(cause(container(running(3), last.clone())), backs_off);
        assert_eq!(cause(container(last.clone(), json!({}))), backs_off);
        assert_eq!(cause(container(running(200), last.clone())), None);
        let mut ready = container(running(3), last);
        ready["containerStatuses"][0]["ready"] = json!(true);
        assert_eq!(cause(ready), None);
        let ended_well = json!({ "terminated": { "exitCode": 0, "reason": "Completed" } });
        assert_eq!(cause(container(running(3), ended_well)), None);
        assert_eq!(cause(json!({})), None);
    }

    #[test]
    fn what_the_api_server_does_not_admit_is_told_without_the_name_of_the_try() {
        let deployment = |message: &str| {
            let failed = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
            Cause::of_deployment(&json!({ "status": { "conditions": [failed] } })).unwrap()
        };
        let quota = deployment(
            r#"pods "shop-main-7c-x2k" is forbidden: exceeded quota: q, requested: limits.memory=512Mi"#,
        );
        assert_eq!(quota.reason, Reason::QuotaExceeded);
        assert!(
            quota.message.ends_with("exceeded quota: q, requested: limits.memory=512Mi"),
            "{}",
            quota.message
        );
        let policy = deployment(
            r#"pods "shop-main-7c-abc" is forbidden: violates PodSecurity "restricted:latest": x"#,
        );
        assert_eq!(policy.reason, Reason::PodsRefused);
        assert!(policy.message.contains("violates PodSecurity") && !policy.message.contains("7c-abc"));
        assert_eq!(Cause::of_deployment(&json!({})), None);
    }
}
