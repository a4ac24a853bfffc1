//! The operator works under the chart's own account, with the chart's own rights, and each of them is needed:
//! without it the API server refuses something, and the operator says so.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Proof,
    account::{self, Server},
    api::{Api, folder},
    certificates,
    process::Options,
    proxy::Proxy,
    scenario::Stage,
    shop,
};
use crate::wait;

/// How many lives are lived at once.
const AT_ONCE: usize = 6;
/// One step of a life.
const STEP: Duration = Duration::from_secs(60);

/// Lives one life with all rights, and one without each.
///
/// # Panics
/// A right is missing, or none is missed without it.
pub async fn run(proof: &Proof) {
    proof.step("The chart's rights are enough for a whole life, and each of them is needed");
    certificates::define(&proof.api).await;
    let (chart, server) = (account::rendered().await, Server::find());
    let stage = stage(proof, &chart, &server, "rights", None).await;
    begin(&stage).await;
    pods_have_none(&stage, &server).await;
    proof.holds("the account of the pods may do nothing that not every account may");
    go_on(&stage).await;
    let (granted, used) = (granted(&chart), stage.proxy.rights());
    assert_eq!(stage.proxy.forbidden(), BTreeSet::new(), "used, but not granted");
    let idle: Vec<_> = granted.difference(&used).collect();
    assert!(idle.is_empty(), "granted, but never used: {idle:?}");
    proof.holds(&format!(
        "a whole life under the chart's account: {} rights, each used, none missing",
        granted.len()
    ));
    stage.end().await;
    let lives = stream::iter(&granted).map(|right| without(proof, &chart, &server, right));
    let lives: Vec<()> = lives.buffer_unordered(AT_ONCE).collect().await;
    proof.holds(&format!("{} lives without one right each: refused, and said, every time", lives.len()));
}

/// A life without one right, until that is noticed.
async fn without(proof: &Proof, chart: &[Value], server: &Server, right: &str) {
    let stage = stage(proof, chart, server, "without", Some(right)).await;
    let what = format!("the operator to miss {right}");
    let noticed = wait::until(&what, STEP * 4, async || {
        // Nothing else is missing, so whatever is refused is refused for this.
        (!stage.proxy.forbidden().is_empty() && stage.operator.has_said("forbidden")).then_some(())
    });
    tokio::select! {
        biased;
        () = noticed => {}
        () = life(&stage) => panic!("without {right} nothing is missing"),
    }
    let forbidden = stage.proxy.forbidden();
    assert!(forbidden.contains(right), "without {right} it was {forbidden:?} that was refused");
    // The operator goes before its service, and would keep it.
    _ = proof
        .api
        .patch(&shop::service_path(&stage.namespace), &json!({ "metadata": { "finalizers": null } }))
        .await;
    stage.end().await;
}

/// Everything that an operator does where no pod ever starts.
async fn life(stage: &Stage) {
    begin(stage).await;
    go_on(stage).await;
}

/// Every child is made.
async fn begin(stage: &Stage) {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    make(api, namespace).await;
    wait::until("all children", STEP, async || {
        let mut all = !stage.items("pods").await.is_empty();
        for (plural, name) in [
            ("deployments", "shop-side"),
            ("deployments", "shop-gateway"),
            ("certificates", "shop-tls"),
            ("secrets", "shop-encryption"),
            ("horizontalpodautoscalers", "shop"),
        ] {
            all &= is_there(stage, plural, name).await;
        }
        all.then_some(())
    })
    .await;
}

/// A Secret and the image change, what is not wanted goes, and the service is deleted.
async fn go_on(stage: &Stage) {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    let path = shop::service_path(namespace);
    // Only pods that were there before are told, and times have seconds.
    let pod = &stage.items("pods").await[0]["metadata"]["creationTimestamp"];
    wait::until("the next second", STEP, async || {
        let clock = Some(("application/json", &json!({ "metadata": { "generateName": "clock-" } })));
        let now = api.call(Method::POST, &folder(namespace, "configmaps"), clock).await.ok()?.1;
        (now["metadata"]["creationTimestamp"].as_str() > pod.as_str()).then_some(())
    })
    .await;
    let rotated = json!({ "stringData": { "rotated": "yes" } });
    change(api, &format!("{}/shop-redis", folder(namespace, "secrets")), &rotated).await;
    wait::until("a pod to be told", STEP, async || {
        let is_told =
            |pod: &Value| pod["metadata"]["annotations"]["flyweight.dev/secrets-telling"].is_string();
        stage.items("pods").await.iter().any(is_told).then_some(())
    })
    .await;
    stray(stage).await;
    wait::until("what nobody wants to go", STEP, async || {
        (!is_there(stage, "configmaps", "shop-stray").await).then_some(())
    })
    .await;
    change(api, &path, &json!({ "spec": { "image": "flyweight/dataplane:next" } })).await;
    wait::until("the next image", STEP, async || {
        let main = api.get(&format!("{}/shop-main", folder(namespace, "deployments"))).await;
        let image = &main["spec"]["template"]["spec"]["containers"][0]["image"];
        (image == "flyweight/dataplane:next").then_some(())
    })
    .await;
    let less = json!({ "spec": {
        "replicaGroups": [{ "name": "main", "replicas": 1 }], "autoscaling": null, "gateway": null, "networkPolicy": false,
        "security": { "tls": null },
    }});
    change(api, &path, &less).await;
    wait::until("what is not wanted to go", STEP, async || {
        let mut none = true;
        for plural in ["jobs", "networkpolicies", "horizontalpodautoscalers", "certificates"] {
            none &= stage.items(plural).await.is_empty();
        }
        for plural in ["deployments", "services", "poddisruptionbudgets"] {
            none &= !is_there(stage, plural, "shop-side").await;
        }
        none.then_some(())
    })
    .await;
    api.delete(&path).await;
    wait::until("the service to go", STEP, async || api.get(&path).await.is_null().then_some(())).await;
}

/// A shop with everything that makes a child.
async fn make(api: &Api, namespace: &str) {
    shop::make_secrets(api, namespace).await;
    let tls = json!({ "metadata": { "name": "shop-tls" }, "stringData": { "tls.crt": "c", "tls.key": "k" } });
    api.create(&folder(namespace, "secrets"), &tls).await;
    api.create(&folder(namespace, "cachetiers"), &shop::resource("CacheTier", "hot", shop::tier())).await;
    let mut products = shop::pool("Product");
    products["fields"] = json!([{ "name": "description", "encrypt": true }]);
    for (name, spec) in [("users", shop::pool("User")), ("products", products)] {
        api.create(&folder(namespace, "flyweightpools"), &shop::resource("FlyweightPool", name, spec)).await;
    }
    let mut service = shop::service();
    service["replicaGroups"] = json!([{ "name": "main", "replicas": 1 }, { "name": "side", "replicas": 1 }]);
    service["autoscaling"] = json!({ "minReplicas": 2, "maxReplicas": 4 });
    service["gateway"] = json!({});
    service["security"] = json!({ "tls": { "issuerRef": { "name": "authority" } } });
    api.create(&folder(namespace, "flyweightservices"), &shop::resource("FlyweightService", "shop", service))
        .await;
}

async fn is_there(stage: &Stage, plural: &str, name: &str) -> bool {
    !stage.proof.api.get(&format!("{}/{name}", folder(&stage.namespace, plural))).await.is_null()
}

/// A child of the service that nobody wants.
async fn stray(stage: &Stage) {
    let service = stage.service().await;
    let map = json!({ "metadata": {
        "name": "shop-stray",
        "labels": { "app.kubernetes.io/managed-by": "flyweight-operator", "app.kubernetes.io/instance": "shop" },
        "ownerReferences": [{ "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightService", "name": "shop",
            "uid": service["metadata"]["uid"], "controller": true }],
    }});
    stage.proof.api.create(&folder(&stage.namespace, "configmaps"), &map).await;
}

async fn change(api: &Api, path: &str, patch: &Value) {
    if let Err(refusal) = api.patch(path, patch).await {
        panic!("{path} {patch}: {refusal}");
    }
}

/// A namespace with an operator under the chart's account, without one of its rights.
async fn stage(proof: &Proof, chart: &[Value], server: &Server, name: &str, without: Option<&str>) -> Stage {
    let namespace = format!("{name}-{:x}", rand::random::<u32>());
    proof.api.make_namespace(&namespace).await;
    let mut chart = chart.to_vec();
    for object in &mut chart {
        if let (Some(right), Some(rules)) = (without, object["rules"].as_array()) {
            object["rules"] = rules.iter().flat_map(|rule| reduced(rule, right)).collect();
        }
    }
    let token = account::make(&proof.api, server, &chart, &namespace).await;
    let proxy = Proxy::over(&server.base, server.client.clone()).await;
    let base = proxy.base.clone();
    Stage::start(
        proof,
        &Options { token: Some(&token), ..Options::new(&base, &namespace, "operator") },
        proxy,
    )
}

/// What the pods' own account may do in its namespace is what every account may.
async fn pods_have_none(stage: &Stage, server: &Server) {
    let (api, namespace) = (&stage.proof.api, &stage.namespace);
    api.create(&folder(namespace, "serviceaccounts"), &json!({ "metadata": { "name": "nobody" } })).await;
    let mut rules = Vec::new();
    for name in ["shop", "nobody"] {
        rules.push(server.rules_of(&account::token(api, namespace, name).await, namespace).await);
    }
    assert_eq!(rules[0], rules[1]);
}

/// The rights of all roles, each as `group resource verb`.
fn granted(chart: &[Value]) -> BTreeSet<String> {
    let rules = chart.iter().filter_map(|object| object["rules"].as_array()).flatten();
    rules.flat_map(|rule| single(rule).into_iter().map(|(right, _)| right)).collect()
}

/// A rule without one right.
fn reduced(rule: &Value, without: &str) -> Vec<Value> {
    single(rule).into_iter().filter(|(right, _)| right != without).map(|(_, rule)| rule).collect()
}

/// A rule as rules of one right each.
fn single(rule: &Value) -> Vec<(String, Value)> {
    let list = |field: &str| -> Vec<String> {
        let values = rule[field].as_array().cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let mut all = Vec::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            for verb in list("verbs") {
                let right = format!("{group} {resource} {verb}").trim_start().to_owned();
                let mut one = rule.clone();
                (one["apiGroups"], one["resources"], one["verbs"]) =
                    (json!([group]), json!([resource]), json!([verb]));
                all.push((right, one));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_taken_apart_and_loses_one_right() {
        let rule = json!({ "apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["list", "watch"], "resourceNames": ["a"] });
        let chart = [json!({ "rules": [rule] }), json!({ "kind": "ServiceAccount" })];
        let rights: Vec<String> = granted(&chart).into_iter().collect();
        assert_eq!(rights, ["pods list", "pods watch", "secrets list", "secrets watch"]);
        let left = reduced(&rule, "pods watch");
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|one| one["resourceNames"] == json!(["a"])
            && (&one["resources"], &one["verbs"]) != (&json!(["pods"]), &json!(["watch"]))));
    }
}
