//! `kubectl flyweight` against a cluster in which a shop runs.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

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
    let status: Value = serde_json::from_str(&well(demo, &["status", "shop", "-o", "json"])).unwrap_or_default();
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
        wait::until(verb, STATUS, async || (Demo::condition(&demo.service(), "Progressing").1 == reason).then_some(()))
            .await;
    }
    demo.holds("paused and resumed, as the status says");
}

fn well(demo: &Demo, args: &[&str]) -> String {
    let (text, well) = plugin(demo, args);
    assert!(well, "kubectl flyweight {args:?}: {text}");
    text
}

/// What it prints, and whether it says that all is well.
fn plugin(demo: &Demo, args: &[&str]) -> (String, bool) {
    let exe = std::env::current_exe().unwrap_or_default();
    let program = exe.parent().unwrap_or(Path::new(".")).join("kubectl-flyweight");
    let output = Command::new(&program).args(["--namespace", demo.kubectl.namespace()]).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}
