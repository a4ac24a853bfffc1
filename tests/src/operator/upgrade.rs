//! What the operator of the version before has made is taken over by this one.
//!
//! The former operator is built from the history (`tests/tools/former.sh`), with the definitions of its chart. What is covered: its children, annotations,
//! field managers and statuses, and the change from its definitions to these. What is not: its data plane, which would need nodes (that pods of two versions
//! understand each other's reports, events and tables is the data plane's own tests' matter), and the way back to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Proof,
    process::{Operator, Options},
    scenario::{Stage, difference},
    shop,
};
use crate::{kubectl::Kubectl, root};

/// The program, in the environment.
const FORMER: &str = "FLYWEIGHT_FORMER_OPERATOR";
/// The Lease of one that was killed has to run out first.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(45);

/// Lets the former operator make a shop, and this one go on.
///
/// # Panics
/// Something is not as this one would have made it, or was made anew.
pub async fn run(proof: &Proof) {
    let Some(program) = std::env::var_os(FORMER).map(PathBuf::from) else {
        return crate::skipped("upgrade", &format!("{FORMER} names no operator of the version before"));
    };
    proof.step("A shop of the operator of the version before is taken over");
    let fresh = Stage::new(proof, "fresh").await;
    shop::make(&proof.api, &fresh.namespace).await;
    fresh.quiet().await;
    let wanted = shop::state(&proof.api, &fresh.namespace).await;
    fresh.end().await;

    let chart = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
    unpack(chart.path());
    define(&chart.path().join("flyweight/files/crds"));
    let mut stage = Stage::by(proof, "former", Some(&program)).await;
    shop::make(&proof.api, &stage.namespace).await;
    stage.quiet().await;
    let before = uids(&stage).await;
    assert!(before.len() > 5, "the former operator made {before:?}");
    define(&root().join("crds/generated"));
    let options = Options::new(&stage.proxy.base, &stage.namespace, "next");
    stage.operator = Operator::start(&options);
    let start = Instant::now();
    loop {
        let found = shop::state(&proof.api, &stage.namespace).await;
        if found == wanted {
            break;
        }
        assert!(
            start.elapsed() < TAKEN_OVER_WITHIN,
            "not taken over within {TAKEN_OVER_WITHIN:?}:\n{}",
            difference("", &wanted, &found).join("\n")
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let after = uids(&stage).await;
    let anew: Vec<&String> =
        before.iter().filter(|(name, uid)| after.get(*name) != Some(*uid)).map(|(name, _)| name).collect();
    assert!(anew.is_empty(), "made anew or lost: {anew:?}");
    proof.holds(&format!("{} children taken over after {} s, none made anew", before.len(), start.elapsed().as_secs()));
    stage.quiet().await;
    proof.holds("and then nothing is written");
    stage.end().await;
}

/// The newest packed chart.
fn unpack(folder: &Path) {
    let script = "cd \"$1\" && . tests/tools/lib.sh && tar -xzf \"$(former_chart)\" -C \"$2\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).args([root().as_path(), folder]);
    let done = command.status();
    assert!(done.as_ref().is_ok_and(std::process::ExitStatus::success), "the former chart: {done:?}");
}

/// The definitions of the resources become those of a folder.
fn define(folder: &Path) {
    let kubectl = Kubectl::new("default");
    let folder = folder.display().to_string();
    for args in [
        &["apply", "--server-side", "--force-conflicts", "-f", &folder][..],
        &["wait", "--for=condition=Established", "--timeout=60s", "-f", &folder],
    ] {
        kubectl.call(args).unwrap_or_else(|error| panic!("{folder}: {error}"));
    }
}

/// The children by what they are.
async fn uids(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for plural in shop::CHILDREN {
        for object in stage.items(plural).await {
            if object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == json!("flyweight-operator") {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                all.insert(format!("{plural}/{name}"), object["metadata"]["uid"].clone());
            }
        }
    }
    all
}
