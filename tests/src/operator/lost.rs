//! An API server that loses single events of watches that go on as if nothing were: what they told is found
//! out within half a minute.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Proof, api::folder, scenario::Stage, shop};
use crate::wait;

/// What the project promises.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// A change whose event is lost.
struct Loss {
    plural: &'static str,
    name: &'static str,
    /// What is merged into it; none where it is deleted.
    patch: Option<Value>,
    expect: Expect,
}

/// What tells that the change was found out.
#[derive(PartialEq)]
enum Expect {
    /// The children follow it.
    Followed,
    /// The children are again as before.
    Undone,
    /// The service is not ready, for this reason.
    Reason(&'static str),
}

/// Loses the event of one change after the other.
pub async fn run(proof: &Proof) {
    proof.step("Single watch events are lost, and the watches go on");
    let stage = Stage::new(proof, "lost").await;
    shop::make(&proof.api, &stage.namespace).await;
    stage.quiet().await;
    let loss = |plural, name, patch, expect| Loss { plural, name, patch, expect };
    for loss in [
        loss("flyweightservices", "shop", Some(json!({ "spec": { "replicas": 3 } })), Expect::Followed),
        loss("cachetiers", "hot", Some(json!({ "spec": { "ttl": "75s" } })), Expect::Followed),
        loss("flyweightpools", "users", Some(json!({ "spec": { "capacity": 77 } })), Expect::Followed),
        loss("deployments", "shop-main", None, Expect::Undone),
        loss(
            "configmaps",
            "shop-settings",
            Some(json!({ "data": { "settings.json": "{}" } })),
            Expect::Undone,
        ),
        loss("secrets", "shop-redis", None, Expect::Reason("SecretMissing")),
    ] {
        let took = found_out(&stage, &loss).await;
        let how = if loss.patch.is_some() { "changed" } else { "deleted" };
        proof.holds(&format!(
            "{}/{} {how}: found out after {:.1} s",
            loss.plural,
            loss.name,
            took.as_secs_f64()
        ));
        stage.quiet().await;
    }
    stage.end().await;
}

async fn found_out(stage: &Stage, loss: &Loss) -> Duration {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    let path = format!("{}/{}", folder(namespace, loss.plural), loss.name);
    let before = shop::children(api, namespace).await;
    stage.proxy.lose_next(loss.plural);
    match &loss.patch {
        Some(patch) => {
            drop(api.patch(&path, patch).await.unwrap_or_else(|refusal| panic!("{path}: {refusal}")))
        }
        None => api.delete(&path).await,
    }
    let start = Instant::now();
    wait::until("the event to be lost", FOUND_WITHIN, async || stage.proxy.has_lost().then_some(())).await;
    wait::until(&format!("{path} to be found out"), FOUND_WITHIN, async || {
        let seen = match loss.expect {
            Expect::Followed => shop::children(api, namespace).await != before,
            Expect::Undone => shop::children(api, namespace).await == before,
            Expect::Reason(reason) => shop::condition(&stage.service().await, "Ready").1 == reason,
        };
        seen.then_some(())
    })
    .await;
    start.elapsed()
}
