//! The API against its own document: schemathesis asks in every way, and every answer must be one that the
//! document has.

use std::process::{Command, Stdio};

use harness::{root, skipped};
use reqwest::Method;
use serde_json::Value;

use crate::{browser::tool, stage::Stage};

/// No answer of a status, media type, header or body that the document does not have; no 5xx.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method";

#[tokio::test]
async fn every_described_path_allows_what_is_described() {
    let stage = Stage::embedded();
    let document = stage.api.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        let example = path
            .split('/')
            .map(|part| if part.starts_with('{') { "a" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let answer = stage.api.send(Method::TRACE, &example, &[], &Value::Null).await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.text);
        let allowed = answer.header("allow");
        for method in item.as_object().unwrap().keys() {
            assert!(
                allowed.split(',').any(|one| one.eq_ignore_ascii_case(method)),
                "{path}: {method} is not in {allowed}"
            );
        }
    }
}

#[tokio::test]
async fn no_answer_is_outside_the_document() {
    let Some(installed) = tool("schemathesis") else {
        skipped(
            "the API against its document",
            "schemathesis is not installed: run tests/tools/install.sh schemathesis",
        );
        return;
    };
    let stage = Stage::embedded();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(installed.join("venv/bin/schemathesis"));
    command
        .arg("run")
        .arg(format!("{}/openapi.json", stage.api.base()))
        .args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "6"])
        .args(["--generation-deterministic", "--suppress-health-check", "all"])
        // these two never end
        .args(["--exclude-path-regex", "(/ws|/events/stream)$"])
        .args(["--request-timeout", "20", "--warnings", "off", "--no-color", "--workers", "1"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", root().join("tests/openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: Vec<&str> =
        printed.lines().filter(|line| line.contains("generated") || line.contains("Tested")).collect();
    eprintln!("schemathesis: {}", summary.join(";"));
}
