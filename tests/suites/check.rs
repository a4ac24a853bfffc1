//! `check`: every fault of a folder at once, each with its path.

use std::{fs, process::Command};

use harness::{dataplane::bin_dir, manifests};
use serde_json::Value;

fn check(dir: &std::path::Path, output: &str) -> (Option<i32>, String) {
    let output = Command::new(bin_dir().join("flyweight-dataplane"))
        .args(["check", "-o", output, "--manifests"])
        .arg(dir)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_samples_have_no_fault() {
    let (code, text) = check(&manifests::samples(), "text");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn five_faults_are_five_lines_with_paths() {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(manifests::samples()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(
        dir.path().join("faulty.yaml"),
        r#"
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: { name: odd }
spec:
  memory: { maxBytes: 256Mi, policy: MRU }
  ttl: soon
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: odds }
spec:
  entity: Custom
  colour: red
  source: { mysql: { backendRef: { name: nowhere }, table: odds, key: code, version: version } }
  fields: [ { name: code, type: String } ]
  tierRefs: [ { name: absent } ]
"#,
    )
    .unwrap();
    let service = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path).unwrap().contains("kind: FlyweightService"))
        .unwrap();
    let text = fs::read_to_string(&service).unwrap();
    fs::write(&service, text.replacen("poolRefs:", "poolRefs: # with one more\n    - { name: odds }", 1))
        .unwrap();

    let (code, text) = check(dir.path(), "json");
    assert_eq!(code, Some(1), "{text}");
    let faults: Value = serde_json::from_str(&text).unwrap();
    let found: Vec<String> = faults["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| format!("{} {}", fault["resource"].as_str().unwrap(), fault["path"].as_str().unwrap()))
        .collect();
    for expected in [
        "CacheTier/odd spec.memory.policy",
        "CacheTier/odd spec.ttl",
        "FlyweightPool/odds spec.colour",
        "FlyweightPool/odds spec.source.mysql.backendRef.name",
        "FlyweightPool/odds spec.tierRefs[0].name",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} is not among {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}
