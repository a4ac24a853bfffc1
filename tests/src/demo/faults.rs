//! Faults of other people's clusters: each is made with a service of its own, and its status names it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Demo;
use crate::{kubectl::Kubectl, wait};

/// How long a status may take to name what is wrong.
const NAMED: Duration = Duration::from_secs(30);
/// How long a service may take to serve once its fault is mended.
const HEALED: Duration = Duration::from_secs(60);
/// Where all but the quota is shown.
const NAMESPACE: &str = "faults";
/// Where a quota admits nothing.
const CROWDED: &str = "faults-crowded";

/// A service with a fault: its name, what is different in its spec, the reason, and words of the message.
struct Fault {
    service: &'static str,
    spec: Value,
    reason: &'static str,
    words: &'static str,
}

fn faults() -> Vec<Fault> {
    let pods = |spec: Value| json!({ "podTemplate": { "spec": spec } });
    let fault = |service, spec, reason, words| Fault { service, spec, reason, words };
    let limited = json!({ "replicaGroups": [
        { "name": "main", "replicas": 1, "resources": { "limits": { "memory": "12Mi" } } },
    ] });
    let with_secret = |secret: &str| {
        json!({ "poolRefs": [{ "name": "accounts" }], "backends": [
            { "name": "mysql", "mysql": { "secretRef": { "name": secret }, "allowPlaintext": true } },
            { "name": "kafka", "kafka": { "secretRef": { "name": "kafka" }, "allowPlaintext": true } },
        ] })
    };
    vec![
        fault(
            "image",
            json!({ "image": "registry.invalid/flyweight:1" }),
            "ImageNotPulled",
            "registry.invalid",
        ),
        fault("place", pods(json!({ "nodeSelector": { "disk": "none" } })), "Unschedulable", "0/1 nodes"),
        fault("memory", limited, "OutOfMemory", "12Mi"),
        fault("password", with_secret("wrong-password"), "WrongPassword", "mysql"),
        fault("host", with_secret("unknown-host"), "UnknownHost", "mysql"),
        fault("key", with_secret("without-url"), "CrashLooping", "url"),
    ]
}

/// Each fault is named within half a minute, and told as an Event; two of them are mended.
pub async fn are_named(demo: &Demo) {
    demo.step("Other clusters' faults: each is named within half a minute");
    let (team, crowded) = (Kubectl::new(NAMESPACE), Kubectl::new(CROWDED));
    for kubectl in [&team, &crowded] {
        must(kubectl.call(&["create", "namespace", kubectl.namespace()]));
        for (name, key, value) in [
            ("mongodb", "url", address(demo, "mongodb")),
            ("kafka", "url", address(demo, "kafka")),
            ("wrong-password", "url", with_account(&address(demo, "mysql"), "shop:wrong")),
            ("unknown-host", "url", "mysql://shop@no-such-host.invalid:3306/shop".to_owned()),
            ("without-url", "address", "mysql://shop@mysql:3306/shop".to_owned()),
        ] {
            let literal = format!("--from-literal={key}={value}");
            must(kubectl.call(&["create", "secret", "generic", name, &literal]));
        }
        for (name, source) in [("users", "mongodb"), ("accounts", "mysql")] {
            let pool = json!({
                "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightPool",
                "metadata": { "name": name },
                "spec": { "entity": "User", "source": { source: { "backendRef": { "name": source } } } },
            });
            must(kubectl.apply(&pool.to_string()));
        }
    }
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none" },
        "spec": { "hard": { "pods": "0" } },
    });
    must(crowded.apply(&quota.to_string()));
    must(crowded.apply(&service("quota", &json!({})).to_string()));
    let all = faults();
    for Fault { service: name, spec, .. } in &all {
        must(team.apply(&service(name, spec).to_string()));
    }
    let crowd = Fault { service: "quota", spec: json!({}), reason: "QuotaExceeded", words: "none" };
    for (kubectl, fault) in all.iter().map(|fault| (&team, fault)).chain([(&crowded, &crowd)]) {
        named(demo, kubectl, fault).await;
    }
    mend(demo, &team).await;
    // A deleted service waits for its events to be published, for a while also where its store is away.
    for kubectl in [&team, &crowded] {
        must(kubectl.call(&["delete", "namespace", kubectl.namespace(), "--wait=false"]));
    }
    for kubectl in [&team, &crowded] {
        let name = format!("namespace/{}", kubectl.namespace());
        must(kubectl.call(&["wait", "--for=delete", &name, "--timeout=150s"]));
    }
}

async fn named(demo: &Demo, kubectl: &Kubectl, fault: &Fault) {
    let Fault { service, reason, words, .. } = fault;
    let what = format!("fws/{service} to say {reason}");
    let start = Instant::now();
    let message = loop {
        let (status, found, message) = Demo::condition(&kubectl.json(&["fws", service]), "Ready");
        if (status.as_str(), found.as_str()) == ("False", *reason) && message.contains(words) {
            break message;
        }
        assert!(start.elapsed() < NAMED, "not within {NAMED:?}: {what}; it says {status} {found}: {message}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    wait::until(&format!("the event {reason}"), NAMED, async || {
        let events = kubectl.items(&["events.events.k8s.io"]);
        let is_it = |event: &Value| event["reason"] == *reason && event["regarding"]["name"] == *service;
        events.iter().any(is_it).then_some(())
    })
    .await;
    demo.show(&format!("{reason:<15} {message}"));
}

/// The nodes have what is asked for, and the registry the image.
async fn mend(demo: &Demo, team: &Kubectl) {
    let remove = r#"[{"op":"remove","path":"/spec/podTemplate"}]"#;
    must(team.call(&["patch", "fws", "place", "--type=json", "-p", remove]));
    let image = r#"{"spec":{"image":"flyweight/dataplane:0.1.0"}}"#;
    must(team.call(&["patch", "fws", "image", "--type=merge", "-p", image]));
    for service in ["place", "image"] {
        let start = Instant::now();
        wait::until(&format!("fws/{service} to serve"), HEALED, async || {
            let (status, ..) = Demo::condition(&team.json(&["fws", service]), "Ready");
            (status == "True").then_some(())
        })
        .await;
        demo.holds(&format!("{service}: mended, and ready after {} s", start.elapsed().as_secs()));
    }
}

fn service(name: &str, change: &Value) -> Value {
    let mut spec = json!({
        "image": "flyweight/dataplane:0.1.0",
        "poolRefs": [{ "name": "users" }],
        "replicaGroups": [{ "name": "main", "replicas": 1 }],
        "backends": [
            {
                "name": "mongodb",
                "mongodb": { "secretRef": { "name": "mongodb" }, "database": "faults", "allowPlaintext": true },
            },
            { "name": "kafka", "kafka": { "secretRef": { "name": "kafka" }, "allowPlaintext": true } },
        ],
    });
    for (field, value) in change.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "flyweight.dev/v1alpha1", "kind": "FlyweightService",
        "metadata": { "name": name }, "spec": spec,
    })
}

/// The address of a store, as the shop has it.
fn address(demo: &Demo, backend: &str) -> String {
    let secret = format!("shop-{backend}");
    must(demo.kubectl.call(&["get", "secret", &secret, "-o", "go-template={{.data.url|base64decode}}"]))
}

/// The address with another account.
fn with_account(url: &str, account: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("mysql", url));
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    format!("{scheme}://{account}@{server}")
}

fn must(result: Result<String, String>) -> String {
    result.unwrap_or_else(|error| panic!("{error}"))
}
