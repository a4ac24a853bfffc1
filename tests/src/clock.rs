//! Another clock for a process: libfaketime, which `tests/tools/install.sh faketime` gets. Only the time of
//! day differs, not how time passes.

use std::{path::PathBuf, process::Command};

use crate::root;

/// Whether the library is installed; if not, why.
///
/// # Errors
/// One line that says why and what to do.
pub fn available() -> Result<(), String> {
    match library("threads.so").exists() {
        true => Ok(()),
        false => Err("libfaketime is not installed: run tests/tools/install.sh faketime".to_owned()),
    }
}

/// The environment of a process whose clock is ahead by so many milliseconds, or behind.
pub fn ahead(ms: i64) -> [(&'static str, String); 3] {
    [
        (
            "LD_PRELOAD",
            format!("{}:{}", library("threads.so").display(), library("libfaketime.so").display()),
        ),
        ("FAKETIME", format!("{:+.3}", ms as f64 / 1_000.0)),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn library(name: &str) -> PathBuf {
    let script = ". tests/tools/lib.sh && tool_dir faketime";
    let dir = Command::new("bash").args(["-c", script]).current_dir(root()).output();
    let dir = dir.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    PathBuf::from(dir).join(name)
}
