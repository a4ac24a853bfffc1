//! Logs: JSON in a pod, readable on a terminal. At level `debug` each reconcile is traced: its steps as
//! spans, with the time that each took.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter,
    filter::ParseError,
    fmt::{self, format::FmtSpan},
    prelude::*,
};

use crate::args::LogFormat;

/// Starts logging to standard error.
///
/// # Errors
/// When `level` is not a filter such as `info` or `info,kube=debug`.
pub fn start(format: Option<LogFormat>, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(level)?;
    let format =
        format.unwrap_or_else(|| if stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json });
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_span_events(FmtSpan::CLOSE);
            registry.with(layer.with_writer(stderr)).init();
        }
        LogFormat::Text => {
            registry.with(fmt::layer().with_span_events(FmtSpan::CLOSE).with_writer(stderr)).init()
        }
    }
    Ok(())
}
