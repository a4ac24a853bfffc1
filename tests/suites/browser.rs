//! The dashboard and the API's description in a real browser.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use harness::{root, skipped};

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_show_live_data_and_ask_no_other_host() {
    let Some(playwright) = tool("browser") else {
        skipped("the pages in a browser", "there is none: run tests/tools/install.sh browser");
        return;
    };
    let stage = Stage::embedded();
    let output = tokio::task::block_in_place(|| {
        Command::new("node")
            .arg(root().join("tests/browser/check.mjs"))
            .arg(stage.api.base())
            .env("PLAYWRIGHT", playwright.join("node_modules/playwright-core"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("browser: {}", printed.trim().replace('\n', "; "));
}

/// Where a tool is, if it is installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let script =
        ". tests/tools/lib.sh && tests/tools/install.sh --check \"$0\" >/dev/null && tool_dir \"$0\"";
    let output = Command::new("bash").args(["-c", script, name]).current_dir(root()).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
