//! Does what a node does with the pods of Jobs: they end well, fail, or never end. Pods that serve never
//! start without nodes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::api::{Api, folder};

/// Names the Job that a pod is of; Kubernetes sets it.
pub const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a pod is at work: longer than the pause between two statuses, so that what is said meanwhile is
/// said in every life, however fast the cluster is.
const AT_WORK: Duration = Duration::from_secs(2);

/// What becomes of the pods of Jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They end well.
    Succeeded,
    /// They fail.
    Failed,
    /// They never start.
    Pending,
}

/// Looks after the pods of the Jobs of one namespace until it is dropped.
pub struct Worker {
    outcome: watch::Sender<Outcome>,
    task: JoinHandle<()>,
}

impl Worker {
    /// Every pod ends well.
    pub fn start(api: &Api, namespace: &str) -> Self {
        let (outcome, wanted) = watch::channel(Outcome::Succeeded);
        let (api, pods) = (api.clone(), folder(namespace, "pods"));
        let task = tokio::spawn(async move {
            let mut seen = HashMap::new();
            loop {
                let outcome = *wanted.borrow();
                if outcome != Outcome::Pending {
                    end_all(&api, &pods, outcome, &mut seen).await;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { outcome, task }
    }

    /// From now on pods end so.
    pub fn set(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends the pods that have been at work for long enough. `seen` has those that were met, and when first.
async fn end_all(api: &Api, pods: &str, outcome: Outcome, seen: &mut HashMap<String, Instant>) {
    let list = api.get(&format!("{pods}?labelSelector={JOB_LABEL}")).await;
    for pod in
        list["items"].as_array().into_iter().flatten().filter(|pod| pod["status"]["phase"] == "Pending")
    {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if seen.entry(name.to_owned()).or_insert_with(Instant::now).elapsed() < AT_WORK {
            continue;
        }
        // One that is gone in the meantime needs nothing more.
        _ = api
            .patch(
                &format!("{pods}/{name}/status"),
                &json!({ "status": { "phase": format!("{outcome:?}") } }),
            )
            .await;
    }
}
