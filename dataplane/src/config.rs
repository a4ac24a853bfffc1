//! Where the settings come from: a folder of manifests or the operator's file, watched for changes; the
//! environment wins over both.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crds::{
    fault::Fault,
    settings::{BackendKind, Settings},
    units::{Bytes, Span},
};
use tokio::sync::watch;
use tracing::{info, warn};

use runtime::supervisor;

/// How often the source is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How much of the memory that a container is given the process may take, where nothing else is said, in
/// percent.
const MEMORY_PERCENT: u64 = 85;

/// The largest settings file, in bytes: the bound of a ConfigMap.
const MAX_BYTES: u64 = 1 << 20;

/// Where the settings come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder with the three kinds as YAML.
    Manifests {
        /// The folder.
        dir: PathBuf,
        /// The service, where the folder has more than one.
        service: Option<String>,
    },
    /// Resolved settings as JSON, as the operator writes them.
    File(PathBuf),
}

/// The settings that run, and what identifies them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, with the environment applied.
    pub settings: Settings,
    /// The hash of the settings as they were written, before the environment.
    pub hash: String,
    /// The hash of the part that a running process cannot change.
    pub rolling_hash: String,
    /// What only the environment says.
    pub limits: ProcessLimits,
}

/// Limits of one process, which only the environment says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// The most resident memory: `MAX_MEMORY_USAGE`, or a part of `MEMORY_LIMIT`, which the operator sets to
    /// the limit of the container.
    pub memory_max: Option<Bytes>,
    /// How long a call waits for a connection to MySQL: `CONNECTION_TIMEOUT`.
    pub connection_timeout: Option<Span>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The resources have faults.
    #[error("{}", list(.0))]
    Faults(Vec<Fault>),
    /// A file cannot be read.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// Why, and what to do.
        message: String,
    },
    /// A variable of the environment has no sense.
    #[error("environment variable {name}=\"{value}\": {message}")]
    Environment {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        message: String,
    },
}

impl Source {
    /// Reads the settings and applies the environment.
    ///
    /// # Errors
    /// All faults of the resources, or the file or variable that has no sense.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut settings = match self {
            Self::Manifests { dir, service } => {
                crds::manifest::load(dir, service.as_deref()).map_err(ConfigError::Faults)?
            }
            Self::File(path) => read_file(path)?,
        };
        let (hash, rolling_hash) = (settings.hash(), settings.rolling_hash());
        apply_environment(&mut settings, |name| std::env::var(name).ok())?;
        let limits = process_limits(|name| std::env::var(name).ok())?;
        Ok(Loaded { settings, hash, rolling_hash, limits })
    }

    /// Follows the source. A receiver sees each new sound configuration whose restart-only part is that of
    /// `running`; anything else is logged once and the last good configuration goes on.
    pub fn watch(self, running: Loaded) -> watch::Receiver<Arc<Loaded>> {
        let rolling_hash = running.rolling_hash.clone();
        let mut seen = running.hash.clone();
        let (sender, receiver) = watch::channel(Arc::new(running));
        supervisor::CONFIGURATION.spawn(async move {
            let mut trouble = String::new();
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(POLL) => {}
                }
                let source = self.clone();
                let loaded = match tokio::task::spawn_blocking(move || source.load()).await {
                    Ok(loaded) => loaded,
                    Err(_) => continue,
                };
                match loaded {
                    Ok(new) if new.hash == seen => trouble.clear(),
                    Ok(new) if new.rolling_hash != rolling_hash => {
                        warn!(
                            configuration = new.hash,
                            "the new configuration needs a restart; the old one goes on"
                        );
                        seen = new.hash;
                    }
                    Ok(new) => {
                        info!(configuration = new.hash, "configuration applied without a restart");
                        seen.clone_from(&new.hash);
                        trouble.clear();
                        _ = sender.send(Arc::new(new));
                    }
                    Err(error) if error.to_string() == trouble => {}
                    Err(error) => {
                        trouble = error.to_string();
                        warn!("the new configuration has faults; the last good one goes on: {trouble}");
                    }
                }
            }
        });
        receiver
    }
}

/// Replaces settings by the variables of the environment that are set.
///
/// # Errors
/// The first variable whose value has no sense.
pub fn apply_environment(
    settings: &mut Settings,
    get: impl Fn(&str) -> Option<String>,
) -> Result<(), ConfigError> {
    if let Some(workers) = number(&get, "WORKERS")? {
        settings.ingest.workers = workers;
    }
    if let Some(size) = number(&get, "QUEUE_SIZE")? {
        settings.ingest.queue_size = size;
    }
    if let Some(size) = number(&get, "BATCH_SIZE")? {
        settings.ingest.batch_size = size;
    }
    if let Some(interval) = span(&get, "BATCH_FLUSH_INTERVAL")? {
        settings.ingest.batch_flush_interval = interval;
    }
    if let Some(max) = number(&get, "MAX_CONNECTIONS")? {
        for backend in &mut settings.backends {
            if let BackendKind::Mysql { max_connections } = &mut backend.kind {
                *max_connections = max;
            }
        }
    }
    if let Some(attempts) = number(&get, "MAX_RETRY_ATTEMPTS")? {
        settings.pipeline.retry.max_attempts = attempts;
    }
    if let Some(delay) = span(&get, "INITIAL_RETRY_DELAY")? {
        settings.pipeline.retry.initial_delay = delay;
    }
    if let Some(delay) = span(&get, "MAX_RETRY_DELAY")? {
        settings.pipeline.retry.max_delay = delay;
    }
    if let Some(threshold) = number(&get, "CIRCUIT_BREAKER_THRESHOLD")? {
        settings.pipeline.breaker.threshold = threshold;
    }
    if let Some(timeout) = span(&get, "CIRCUIT_BREAKER_TIMEOUT")? {
        settings.pipeline.breaker.timeout = timeout;
    }
    if let Some(idle) = span(&get, "CLEANUP_THRESHOLD")? {
        settings.pools.iter_mut().for_each(|pool| pool.cleanup.idle_after = idle);
    }
    if let Some(interval) = span(&get, "GC_INTERVAL")? {
        settings.pools.iter_mut().for_each(|pool| pool.cleanup.interval = interval);
    }
    if let Some(level) = get("LOG_LEVEL") {
        settings.observability.log_level = serde_json::from_value(level.to_lowercase().into())
            .map_err(|_| fault("LOG_LEVEL", &level, "write error, warn, info, debug or trace"))?;
    }
    Ok(())
}

/// The limits that are in the environment.
///
/// # Errors
/// The first variable whose value has no sense.
pub fn process_limits(get: impl Fn(&str) -> Option<String>) -> Result<ProcessLimits, ConfigError> {
    // what the kernel gives the container: some is left for what is not counted as this process's own
    let given = get("MEMORY_LIMIT").and_then(|text| text.parse::<u64>().ok()).filter(|bytes| *bytes > 0);
    let memory_max = match get("MAX_MEMORY_USAGE") {
        None => given.map(|bytes| Bytes(bytes / 100 * MEMORY_PERCENT)),
        Some(text) => match text.parse::<Bytes>() {
            Ok(bytes) if bytes.0 > 0 => Some(bytes),
            _ => return Err(fault("MAX_MEMORY_USAGE", &text, "write bytes, as in 512Mi")),
        },
    };
    Ok(ProcessLimits { memory_max, connection_timeout: span(&get, "CONNECTION_TIMEOUT")? })
}

fn read_file(path: &PathBuf) -> Result<Settings, ConfigError> {
    let fault = |message: String| ConfigError::File { path: path.display().to_string(), message };
    let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(fault(format!("{size} bytes are more than the {MAX_BYTES} that settings may have")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| fault(format!("not the settings of this version of the data plane: {error}")))
}

fn number(get: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<u32>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    match value.parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        _ => Err(fault(name, &value, "write a whole number above 0")),
    }
}

fn span(get: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<Span>, ConfigError> {
    let Some(value) = get(name) else { return Ok(None) };
    value.parse().map(Some).map_err(|message: String| fault(name, &value, &message))
}

fn fault(name: &'static str, value: &str, message: &str) -> ConfigError {
    ConfigError::Environment { name, value: value.to_owned(), message: message.to_owned() }
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sample() -> Settings {
        crds::manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/samples"), None).unwrap()
    }

    /// Only this variable is set.
    fn only(name: &'static str, value: &'static str) -> impl Fn(&str) -> Option<String> {
        move |asked| (asked == name).then(|| value.to_owned())
    }

    #[test]
    fn each_variable_changes_its_setting_and_nothing_else() {
        type Set = fn(&mut Settings);
        let variables: [(&str, &str, Set); 13] = [
            ("WORKERS", "7", |settings| settings.ingest.workers = 7),
            ("QUEUE_SIZE", "7", |settings| settings.ingest.queue_size = 7),
            ("BATCH_SIZE", "7", |settings| settings.ingest.batch_size = 7),
            ("BATCH_FLUSH_INTERVAL", "7s", |settings| {
                settings.ingest.batch_flush_interval = Span::from_secs(7)
            }),
            ("MAX_CONNECTIONS", "7", |settings| {
                for backend in &mut settings.backends {
                    if let BackendKind::Mysql { max_connections } = &mut backend.kind {
                        *max_connections = 7;
                    }
                }
            }),
            ("MAX_RETRY_ATTEMPTS", "7", |settings| settings.pipeline.retry.max_attempts = 7),
            ("INITIAL_RETRY_DELAY", "7s", |settings| {
                settings.pipeline.retry.initial_delay = Span::from_secs(7)
            }),
            ("MAX_RETRY_DELAY", "7s", |settings| settings.pipeline.retry.max_delay = Span::from_secs(7)),
            ("CIRCUIT_BREAKER_THRESHOLD", "7", |settings| settings.pipeline.breaker.threshold = 7),
            ("CIRCUIT_BREAKER_TIMEOUT", "7s", |settings| {
                settings.pipeline.breaker.timeout = Span::from_secs(7)
            }),
            ("CLEANUP_THRESHOLD", "7s", |settings| {
                settings.pools.iter_mut().for_each(|pool| pool.cleanup.idle_after = Span::from_secs(7));
            }),
            ("GC_INTERVAL", "7s", |settings| {
                settings.pools.iter_mut().for_each(|pool| pool.cleanup.interval = Span::from_secs(7));
            }),
            ("LOG_LEVEL", "TRACE", |settings| {
                settings.observability.log_level = serde_json::from_value("trace".into()).unwrap();
            }),
        ];
        for (name, value, set) in variables {
            let (mut told, mut wanted) = (sample(), sample());
            apply_environment(&mut told, only(name, value)).unwrap();
            set(&mut wanted);
            assert_eq!(told.hash(), wanted.hash(), "{name}");
            assert_ne!(told.hash(), sample().hash(), "{name} changes something");
            let refused = apply_environment(&mut sample(), only(name, "-1 of them")).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn the_bound_of_memory_is_told_or_a_part_of_the_containers() {
        let bound = |name, value| process_limits(only(name, value)).unwrap().memory_max;
        assert_eq!(bound("MAX_MEMORY_USAGE", "512Mi"), Some(Bytes(512 << 20)));
        assert_eq!(bound("MEMORY_LIMIT", "1000"), Some(Bytes(850)));
        assert_eq!(bound("CONNECTION_TIMEOUT", "1s"), None);
        let both =
            |name: &str| ["MAX_MEMORY_USAGE", "MEMORY_LIMIT"].contains(&name).then(|| "1000".to_owned());
        assert_eq!(process_limits(both).unwrap().memory_max, Some(Bytes(1_000)));
        assert!(process_limits(only("MAX_MEMORY_USAGE", "much")).is_err());
    }
}
