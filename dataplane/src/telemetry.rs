//! Logs: JSON in a pod, readable on a terminal, with a level that changes in place.

pub mod trace;

use std::io::IsTerminal;

use clap::ValueEnum;
use crds::service::LogLevel;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The form of log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One line of text an entry.
    Text,
    /// One JSON object an entry.
    Json,
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

/// Starts logging to standard error. Libraries log from `warn` on, whatever the level.
pub fn start(format: LogFormat, level: LogLevel) -> LogControl {
    let (filter, handle) = reload::Layer::new(filter(level));
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !std::io::stderr().is_terminal());
    let base = tracing_subscriber::registry().with(filter);
    // A second call, as in tests, keeps the first subscriber.
    if json {
        _ = base
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init();
    } else {
        _ = base
            .with(tracing_subscriber::fmt::layer().with_target(false).with_writer(std::io::stderr))
            .try_init();
    }
    LogControl(handle)
}

impl LogControl {
    /// Logs from this level on.
    pub fn set(&self, level: LogLevel) {
        _ = self.0.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!(
        "{},dataplane={level},flyweight_dataplane={level}",
        if level == "error" { "error" } else { "warn" }
    ))
}
