//! The harness: starts real servers, the data plane as users run it, and the local cluster, for the suites
//! and the demo.

pub mod bank;
pub mod client;
pub mod clock;
pub mod connection;
pub mod dataplane;
pub mod demo;
pub mod history;
pub mod kubectl;
pub mod manifests;
pub mod operator;
pub mod process;
pub mod raw;
pub mod scale;
pub mod seed;
pub mod server;
pub mod wait;
pub mod way;

use std::path::PathBuf;

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Tells on the terminal that a test was skipped, and why. With `CI=true` a skip is a failure.
///
/// # Panics
/// With `CI=true`.
pub fn skipped(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    assert!(std::env::var("CI").is_err(), "with CI set nothing may be skipped: {test}: {why}");
}
