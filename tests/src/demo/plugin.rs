//! `kubectl flyweight` against a cluster in which a shop runs.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Demo;
use crate::{manifests, wait};

const STATUS: Duration = Duration::from_secs(30);

/// Asks everything, and pauses and resumes the shop.
///
/// # Panics
/// An answer is not as it should be.
pub async fn all(demo: &Demo) {
    demo.step("kubectl flyweight: status, explain, top, dead-letters, check, diff, pause and resume");
    let tree = well(demo, &["status", "shop"]);
    demo.show(&tree);
    for part in ["conditions", "groups", "pools", "hot", "Ready"] {
        assert!(tree.contains(part), "no {part}");
    }
    let status: Value =
        serde_json::from_str(&well(demo, &["status", "shop", "-o", "json"])).unwrap_or_default();
    assert_eq!(status[0]["service"], "shop");
    demo.show(&well(demo, &["explain", "products"]));
    let top = well(demo, &["top", "shop"]);
    demo.show(&top);
    assert!(top.contains("shop-main-"), "no pod");
    well(demo, &["dead-letters", "shop"]);
    let samples = manifests::samples();
    let samples = samples.to_str().unwrap_or_default();
    well(demo, &["check", "-f", samples]);
    let (diff, _) = plugin(demo, &["diff", "-f", samples]);
    demo.show(&diff);
    demo.holds("each answers from the pods and the resources");
    for (verb, reason) in [("pause", "Paused"), ("resume", "Settled")] {
        well(demo, &[verb, "shop"]);
        wait::until(verb, STATUS, async || {
            (Demo::condition(&demo.service(), "Progressing").1 == reason).then_some(())
        })
        .await;
    }
    demo.holds("paused and resumed, as the status says");
}

/// What could not be done is replayed or dropped; all pods are ended and brought back. [`super::changes`]
/// restarts and drains under load.
///
/// # Panics
/// An answer, or what becomes of the pods, is not as it should be.
pub async fn acts(demo: &Demo) {
    demo.step("kubectl flyweight: replay and drop a dead letter; drain the whole service, and bring it back");
    letters(demo).await;
    let before = demo.pods().len();
    assert_eq!(json(demo, &["drain", "shop"])["action"], "drain");
    assert_eq!(demo.pods().len(), 0, "it said that all had ended");
    assert_eq!(json(demo, &["resume", "shop"])["drained"], true);
    wait::until("the pods to be back", STATUS * 2, async || {
        let service = demo.service();
        let is = |kind: &str, status: &str| Demo::condition(&service, kind).0 == status;
        (demo.pods().len() == before && is("Ready", "True") && is("Progressing", "False")).then_some(())
    })
    .await;
    demo.holds(&format!("all drained, and {before} pods brought back"));
}

/// Two orders whose message uses what is not given: one is handed in again when its text is mended, one is
/// dropped.
async fn letters(demo: &Demo) {
    let [mended, dropped] = ["mended", "dropped"].map(|name| format!("{name}-{:x}", rand::random::<u32>()));
    let text = "/api/v1/notifications/templates/told";
    let made = [
        (
            "/api/v1/notifications/templates",
            json!({ "id": "told", "template": "order_completed", "subject": "Done", "body": "{{ nobody }}" }),
        ),
        ("/api/v1/products", json!({ "id": "wanted", "name": "P", "price": 1, "stock": 2 })),
        ("/api/v1/orders", order(&mended)),
        ("/api/v1/orders", order(&dropped)),
    ];
    for (path, body) in made {
        let taken = demo.api.post(path, &body).await;
        assert_eq!(taken.status, 201, "{path}: {}", taken.text);
    }
    let of = |subject: &str| {
        let list = json(demo, &["dead-letters", "shop"]);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let letter = items.into_iter().find(|letter| letter["subject"] == subject)?;
        Some(letter["id"].as_str()?.to_owned())
    };
    let find = async |subject: &str| wait::until("a dead letter", STATUS, async || of(subject)).await;
    let (again, never) = (find(&mended).await, find(&dropped).await);
    let (refusal, replayed) = plugin(demo, &["dead-letters", "shop", "--replay", "none"]);
    assert!(!replayed && refusal.contains("404"), "there is no such letter: {refusal}");
    assert_eq!(demo.api.send(Method::PATCH, text, &[], &json!({ "body": "It is there." })).await.status, 200);
    assert_eq!(json(demo, &["dead-letters", "shop", "--replay", &again])["id"], again.as_str());
    // a pod that has not yet heard of the mended text sets the order aside once more
    wait::until("the message to be sent", STATUS, async || {
        if let Some(letter) = of(&mended) {
            plugin(demo, &["dead-letters", "shop", "--replay", &letter]);
        }
        let timeline = demo.api.get(&format!("/api/v1/orders/{mended}/timeline")).await;
        (timeline.json()["stage"] == "done").then_some(())
    })
    .await;
    assert_eq!(json(demo, &["dead-letters", "shop", "--delete", &never])["action"], "delete");
    assert_eq!((of(&mended), of(&dropped)), (None, None));
    demo.holds("a dead letter applied by a replay, and one dropped");
}

fn order(id: &str) -> Value {
    json!({ "id": id, "user_id": "u1", "items": [{ "product_id": "wanted", "quantity": 1 }] })
}

/// What it says to programs.
///
/// # Panics
/// It fails, or says something else than JSON.
pub fn json(demo: &Demo, args: &[&str]) -> Value {
    let text = well(demo, &[args, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("kubectl flyweight {args:?}: {error}: {text}"))
}

fn well(demo: &Demo, args: &[&str]) -> String {
    let (text, well) = plugin(demo, args);
    assert!(well, "kubectl flyweight {args:?}: {text}");
    text
}

fn plugin(demo: &Demo, args: &[&str]) -> (String, bool) {
    demo.kubectl.flyweight(args, &[])
}
