//! Alerts and dashboards: what they ask for is there, and every alert has its runbook.

use std::{collections::BTreeSet, fs, path::PathBuf};

use harness::{client::Api, dataplane::DataPlane, manifests};
use serde_json::Value;

/// The name of every metric of the project starts with this.
const PREFIX: &str = "flyweight_";
/// What Prometheus adds to the name of a histogram.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

#[tokio::test]
async fn alerts_and_dashboards_ask_for_metrics_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let [samples, data, security] =
        [manifests::samples(), dir.path().join("data"), dir.path().join("security")];
    manifests::write_encryption_key(&security);
    let [samples, data, security] = [samples, data, security].map(|path| path.display().to_string());
    let data_plane =
        DataPlane::start(&["serve", "--manifests", &samples, "--data-dir", &data, "--security", &security]);
    // A family with labels appears with its first sample.
    assert_eq!(Api::at(&data_plane.url).get("/api/v1/products/none").await.status, 404);
    let metrics = Api::at(&data_plane.admin).get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let operator = fs::read_to_string(root().join("operator/src/metrics.rs")).unwrap();
    let mut asked = BTreeSet::new();
    for path in [
        "configs/alerts/flyweight.yaml",
        "configs/dashboards/service.json",
        "configs/dashboards/operator.json",
    ] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        asked.extend(names(&text));
    }
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        let family = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        let of_operator = family.strip_prefix("flyweight_operator_");
        let exists = match of_operator {
            Some(rest) => {
                operator.contains(&format!("\"{rest}\"")) || operator.contains(&format!("\"{family}\""))
            }
            None => metrics.text.contains(&format!("# TYPE {family} ")),
        };
        assert!(exists, "nobody counts {family}");
    }
}

#[test]
fn every_alert_has_its_runbook() {
    let alerts = fs::read_to_string(root().join("configs/alerts/flyweight.yaml")).unwrap();
    let runbooks = fs::read_to_string(root().join("docs/operations/runbooks.md")).unwrap();
    let rules: Value = serde_yaml_ng::from_str(&alerts).unwrap();
    let mut seen = 0;
    for rule in rules["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        let name = rule["alert"].as_str().unwrap();
        assert!(runbooks.contains(&format!("\n## {name}\n")), "{name} has no runbook");
        let link = format!("docs/operations/runbooks.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], link.as_str());
        seen += 1;
    }
    assert_eq!(seen, runbooks.matches("\n## ").count(), "a runbook has no alert");
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.len() > PREFIX.len() && word.starts_with(PREFIX)).map(str::to_owned).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
