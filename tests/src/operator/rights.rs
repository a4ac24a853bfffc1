//! The rights of the chart are exactly those that the operator makes use of: without any of them something would be refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Proof, api::folder, certificates, scenario::Stage, shop};
use crate::root;

/// Used only where pods run: the demo, with these very rights, shows a change of a running pod's settings, and a canary that goes with its own.
const ONLY_WITH_PODS: [&str; 2] = ["pods patch", "configmaps delete"];

/// Lives a life in which everything is made and unmade once, and compares.
pub async fn run(proof: &Proof) {
    proof.step("The chart's rights are those that are used, and no others");
    certificates::define(&proof.api).await;
    let stage = Stage::new(proof, "rights").await;
    let (api, path) = (&proof.api, shop::service_path(&stage.namespace));
    shop::make(api, &stage.namespace).await;
    let secret = json!({ "metadata": { "name": "shop-tls" }, "stringData": { "tls.crt": "c", "tls.key": "k" } });
    api.create(&folder(&stage.namespace, "secrets"), &secret).await;
    let pool = format!("{}/products", folder(&stage.namespace, "flyweightpools"));
    let encrypted = json!({ "spec": { "fields": [{ "name": "description", "encrypt": true }] } });
    let more = json!({ "spec": {
        "replicaGroups": [{ "name": "main", "replicas": 1 }, { "name": "side", "replicas": 1 }],
        "autoscaling": { "minReplicas": 2, "maxReplicas": 4 }, "gateway": {},
        "security": { "tls": { "issuerRef": { "name": "authority" } } },
        "image": "flyweight/dataplane:next",
    }});
    let less = json!({ "spec": {
        "replicaGroups": [{ "name": "main", "replicas": 1 }], "autoscaling": null, "gateway": null, "networkPolicy": false,
        "security": { "tls": null },
    }});
    for (path, patch) in [(&pool, &encrypted), (&path, &more), (&path, &less)] {
        if let Err(refusal) = api.patch(path, patch).await {
            panic!("{patch}: {refusal}");
        }
        stage.quiet().await;
    }
    api.delete(&path).await;
    stage.quiet().await;
    let used: BTreeSet<String> = stage.proxy.rights().into_iter().filter(|right| !right.contains("leases")).collect();
    let granted = granted();
    let missing: Vec<_> = used.difference(&granted).collect();
    assert!(missing.is_empty(), "used, but not granted: {missing:?}");
    let idle: Vec<_> = granted.difference(&used).filter(|right| !ONLY_WITH_PODS.contains(&right.as_str())).collect();
    assert!(idle.is_empty(), "granted, but never used: {idle:?}");
    proof.holds(&format!("{} rights, each used", granted.len()));
    stage.end().await;
}

/// The rules of the chart, each as `group resource verb`.
fn granted() -> BTreeSet<String> {
    let path = root().join("charts/flyweight/templates/_helpers.tpl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let begin = "{{- define \"flyweight.rules\" -}}";
    let rules = text.split(begin).nth(1).and_then(|rest| rest.split("{{- end }}").next()).unwrap_or_default();
    let rules: Value = serde_yaml_ng::from_str(rules).unwrap_or_else(|error| panic!("the chart's rules: {error}"));
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let mut all = BTreeSet::new();
    for rule in rules.as_array().cloned().unwrap_or_default() {
        for group in list(&rule, "apiGroups") {
            for resource in list(&rule, "resources") {
                let rights = list(&rule, "verbs").into_iter().map(|verb| format!("{group} {resource} {verb}"));
                all.extend(rights.map(|right| right.trim_start().to_owned()));
            }
        }
    }
    all
}
