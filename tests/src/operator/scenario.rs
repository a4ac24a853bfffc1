//! One life of a service: made, changed in both ways, scaled, deleted. What stands after each phase must not
//! depend on what went wrong on the way.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Proof,
    api::folder,
    process::{Operator, Options},
    proxy::{Attempt, Proxy},
    shop,
    worker::{JOB_LABEL, Outcome, Worker},
};
use crate::wait;

/// How long nothing may be written before a phase counts as over.
const QUIET: Duration = Duration::from_secs(4);
/// How long faults go on in one phase at most.
pub const FAULTS: Duration = Duration::from_secs(30);
/// What the project promises: how long the operator takes to be done once faults are over.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long a life without faults may take in one phase.
const CALM: Duration = Duration::from_secs(60);
const PHASES: [Phase; 5] = [Phase::Create, Phase::Hot, Phase::Rolling, Phase::Scale, Phase::Delete];

/// What its author does to the service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Create,
    Hot,
    Rolling,
    Scale,
    Delete,
}

/// A namespace with an operator behind a proxy.
pub struct Stage {
    /// The proof that this is part of.
    pub proof: Proof,
    /// The namespace.
    pub namespace: String,
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// The operator.
    pub operator: Operator,
    worker: Worker,
}

/// What a life without faults led to.
#[derive(Clone, Debug, Default)]
pub struct Calm {
    /// The state after each phase.
    pub states: Vec<Value>,
    /// The writes that were tried in it.
    pub writes: Vec<String>,
}

/// How a life under faults went.
#[derive(Clone, Debug, Default)]
pub struct Lived {
    /// The most attempts to write one object within a second, and which object.
    pub busiest: (usize, String),
    /// Phases that ended only when faults were over: how long after.
    pub recoveries: Vec<Duration>,
}

impl Stage {
    /// Makes a namespace with the Secrets, and starts an operator in it.
    pub async fn new(proof: &Proof, name: &str) -> Self {
        Self::by(proof, name, None).await
    }

    /// The same with another program than the one that is built with this.
    pub async fn by(proof: &Proof, name: &str, program: Option<&Path>) -> Self {
        let namespace = format!("{name}-{:x}", rand::random::<u32>());
        proof.api.make_namespace(&namespace).await;
        shop::make_secrets(&proof.api, &namespace).await;
        let proxy = Proxy::start(&proof.api.base).await;
        let base = proxy.base.clone();
        Self::start(proof, &Options { program, ..Options::new(&base, &namespace, "operator") }, proxy)
    }

    /// Starts an operator behind a proxy, in a namespace that is there.
    pub fn start(proof: &Proof, options: &Options<'_>, proxy: Proxy) -> Self {
        let proxy = Arc::new(proxy);
        let operator = Operator::start(options);
        proxy.on_kill(operator.signaller("KILL"));
        let namespace = options.namespace.to_owned();
        let worker = Worker::start(&proof.api, &namespace);
        Self { proof: proof.clone(), namespace, proxy, operator, worker }
    }

    /// The objects of one kind.
    pub async fn items(&self, plural: &str) -> Vec<Value> {
        let list = self.proof.api.get(&folder(&self.namespace, plural)).await;
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// What becomes of the pods of Jobs from now on.
    pub fn jobs(&self, outcome: Outcome) {
        self.worker.set(outcome);
    }

    /// The state of the namespace.
    pub async fn state(&self) -> Value {
        shop::state(&self.proof.api, &self.namespace).await
    }

    /// The service as it is.
    pub async fn service(&self) -> Value {
        self.proof.api.get(&shop::service_path(&self.namespace)).await
    }

    /// Waits until the operator has written nothing for a while.
    pub async fn quiet(&self) {
        let mut since = (Instant::now(), self.proxy.tried());
        wait::until("the operator to have nothing to write", CALM, async || {
            let tried = self.proxy.tried();
            if tried != since.1 || tried == 0 {
                since = (Instant::now(), tried);
            }
            (since.0.elapsed() >= QUIET).then_some(())
        })
        .await;
    }

    /// Whether every Deployment has been looked at and has made its pods, and nothing of a deleted service is
    /// left.
    async fn caught_up(&self) -> bool {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let deployments = self.items("deployments").await;
        let seen = |one: &Value| {
            one["status"]["observedGeneration"] == one["metadata"]["generation"]
                && count(&one["status"]["replicas"]) >= count(&one["spec"]["replicas"])
        };
        let made: u64 = deployments.iter().map(|one| count(&one["status"]["replicas"])).sum();
        let pods = self.items("pods").await;
        let lasting = pods.iter().filter(|pod| pod["metadata"]["labels"][JOB_LABEL].is_null()).count();
        // What a deleted service leaves behind is collected in the controllers' own time.
        let collected = !self.service().await.is_null()
            || shop::children(&self.proof.api, &self.namespace).await.is_empty();
        deployments.iter().all(seen) && lasting as u64 == made && collected
    }

    /// Lives a life without faults.
    pub async fn calm(&self) -> Calm {
        let mut calm = Calm::default();
        for phase in PHASES {
            self.act(phase).await;
            self.settled().await;
            calm.states.push(self.state().await);
        }
        let name = self.namer();
        calm.writes = self.proxy.attempts().iter().map(|one| name(&one.method, &one.path)).collect();
        calm
    }

    /// Waits until the operator has nothing to write, and will not have: what it says while the cluster's own
    /// controllers are late is not its last word.
    async fn settled(&self) {
        wait::until("the cluster's controllers to be done", CALM, async || {
            let before = self.caught_up().await;
            self.quiet().await;
            (before && self.caught_up().await).then_some(())
        })
        .await;
    }

    /// What a write is called whatever the namespace: `PATCH deployments/shop-main`.
    pub fn namer(&self) -> impl Fn(&str, &str) -> String + Send + Sync + use<> {
        let namespace = format!("/{}/", self.namespace);
        move |method, path| {
            format!("{method} {}", path.split_once(&namespace).map_or(path, |(_, below)| below))
        }
    }

    /// Lives a life that must lead to the same states: each phase while faults go on, or within [`RECOVERY`]
    /// once they are over. Until the operator has died the life is not hurried if that is `due`: what is
    /// written late in a phase is written as it was in the calm life.
    pub async fn like(&self, calm: &Calm, what: &str, faults: Duration, due: bool) -> Lived {
        let mut lived = Lived::default();
        for (phase, expected) in PHASES.into_iter().zip(&calm.states) {
            let before = self.proxy.tried();
            self.proxy.faults(true);
            self.act(phase).await;
            if self.differs(expected, faults).await.is_some() {
                lived.recoveries.push(self.recovery(expected, &format!("{what}: {phase:?}")).await);
            } else if due && self.operator.deaths() == 0 {
                self.settled().await;
                self.recovery(expected, &format!("{what}: the end of {phase:?}")).await;
            }
            let (writes, path) = busiest(self.proxy.attempts().get(before..).unwrap_or_default());
            if writes > lived.busiest.0 {
                lived.busiest = (writes, path);
            }
        }
        lived
    }

    /// Waits until the state is as without faults, now that they are over. Returns how long that took.
    async fn recovery(&self, expected: &Value, what: &str) -> Duration {
        self.proxy.faults(false);
        let since = Instant::now();
        if let Some(differences) = self.differs(expected, RECOVERY).await {
            panic!("{what} is not as without faults {RECOVERY:?} after them:\n{differences}");
        }
        since.elapsed()
    }

    /// Waits until the state is this one; what is different when the time is over.
    async fn differs(&self, expected: &Value, time: Duration) -> Option<String> {
        let start = Instant::now();
        loop {
            let state = self.state().await;
            if state == *expected {
                return None;
            }
            if start.elapsed() > time {
                return Some(difference("", expected, &state).join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes the namespace.
    pub async fn end(self) {
        self.proof.api.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await;
    }

    async fn act(&self, phase: Phase) {
        let (api, path) = (&self.proof.api, shop::service_path(&self.namespace));
        let patched = match phase {
            Phase::Create => return shop::make(api, &self.namespace).await,
            Phase::Delete => return api.delete(&path).await,
            Phase::Hot => {
                let tier = format!("{}/hot", folder(&self.namespace, "cachetiers"));
                api.patch(&tier, &json!({ "spec": { "ttl": "90s" } })).await
            }
            Phase::Rolling => {
                api.patch(&path, &json!({ "spec": { "image": "flyweight/dataplane:next" } })).await
            }
            Phase::Scale => api.patch(&format!("{path}/scale"), &json!({ "spec": { "replicas": 5 } })).await,
        };
        if let Err(refusal) = patched {
            panic!("{phase:?} was refused: {refusal}");
        }
    }
}

/// The most attempts to write one object within one second, in one way. Each event is an object of its own,
/// and is tried once.
fn busiest(attempts: &[Attempt]) -> (usize, String) {
    let mut worst = (0, String::new());
    for one in attempts.iter().filter(|one| !one.path.ends_with("/events")) {
        let same = attempts.iter().filter(|other| other.path == one.path && other.method == one.method);
        let count =
            same.filter(|other| other.at >= one.at && other.at < one.at + Duration::from_secs(1)).count();
        if count > worst.0 {
            worst = (count, format!("{} {}", one.method, one.path));
        }
    }
    worst
}

/// Where two values differ, by paths.
pub fn difference(path: &str, expected: &Value, found: &Value) -> Vec<String> {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let below = |name: &String| {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                difference(&format!("{path}/{name}"), &of(a), &of(b))
            };
            names.into_iter().flat_map(below).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .flat_map(|(at, (a, b))| difference(&format!("{path}/{at}"), a, b))
            .collect(),
        (a, b) if a == b => Vec::new(),
        (Value::Array(a), Value::Array(b)) => {
            let only = |these: &[Value], those: &[Value], which: &str| -> Vec<String> {
                let missing = these.iter().filter(|one| !those.contains(one));
                missing.map(|one| format!("{path}: only {which}: {}", short(one))).collect()
            };
            [only(a, b, "expected"), only(b, a, "found")].concat()
        }
        (a, b) => vec![format!("{path}: expected {}, found {}", short(a), short(b))],
    }
}

/// The beginning of a value, for people.
fn short(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_their_paths() {
        let (a, b) = (json!({ "a": [1, { "b": 2 }], "c": 1 }), json!({ "a": [1, { "b": 3 }] }));
        assert_eq!(difference("", &a, &b), ["/a/1/b: expected 2, found 3", "/c: expected 1, found null"]);
        assert!(difference("", &a, &a).is_empty());
        let (a, b) = (json!({ "a": [{ "name": "x" }, 1] }), json!({ "a": [1] }));
        assert_eq!(difference("", &a, &b), [r#"/a: only expected: {"name":"x"}"#]);
    }

    #[test]
    fn the_busiest_second_is_found() {
        let start = Instant::now();
        let write = |ms: u64, path: &str| Attempt {
            at: start + Duration::from_millis(ms),
            method: "PATCH".to_owned(),
            path: path.to_owned(),
            taken: None,
        };
        let writes =
            [write(0, "/a"), write(900, "/a"), write(1500, "/a"), write(1600, "/b"), write(1800, "/a")];
        assert_eq!(busiest(&writes), (3, "PATCH /a".to_owned()));
    }
}
