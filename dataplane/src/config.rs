//! Where the settings come from: a folder of manifests or the operator's file, watched for changes; the
//! environment wins over both.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crds::{
    fault::Fault,
    service::limits::{MemoryLimit, Share},
    settings::{BackendKind, Settings},
    units::Span,
};
use tokio::sync::watch;
use tracing::{info, warn};

use runtime::supervisor;

/// How often the source is looked at.
const POLL: Duration = Duration::from_secs(1);

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
    /// The most resident memory of this process, in bytes; none where nobody said.
    pub memory_max: Option<u64>,
    /// What the environment says in a form that is going to end, and what to write instead.
    pub deprecated: Option<&'static str>,
}

/// What is said of `CLEANUP_THRESHOLD` with a duration.
const FORMER_THRESHOLD: &str = "CLEANUP_THRESHOLD as a duration is going to end: it is a share of the memory, \
                                as in 0.8; write cleanup.idleAfter into the pools for what it says now";

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
        let get = |name: &str| std::env::var(name).ok();
        let deprecated = apply_environment(&mut settings, get)?;
        let memory_max = memory_max(settings.limits.memory, get);
        Ok(Loaded { settings, hash, rolling_hash, memory_max, deprecated })
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

/// Replaces settings by the variables of the environment that are set. Says which of them has a form that is
/// going to end.
///
/// # Errors
/// The first variable whose value has no sense.
pub fn apply_environment(
    settings: &mut Settings,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<&'static str>, ConfigError> {
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
    if let Some(interval) = span(&get, "GC_INTERVAL")? {
        settings.pools.iter_mut().for_each(|pool| pool.cleanup.interval = interval);
    }
    if let Some(text) = get("MAX_MEMORY_USAGE") {
        settings.limits.memory =
            text.parse::<MemoryLimit>().map_err(|message| fault("MAX_MEMORY_USAGE", &text, &message))?;
    }
    if let Some(timeout) = span(&get, "CONNECTION_TIMEOUT")? {
        if timeout == Span::default() {
            return Err(fault("CONNECTION_TIMEOUT", "0s", "write more than 0s"));
        }
        settings.limits.connection_timeout = timeout;
    }
    if let Some(level) = get("LOG_LEVEL") {
        settings.observability.log_level = serde_json::from_value(level.to_lowercase().into())
            .map_err(|_| fault("LOG_LEVEL", &level, "write error, warn, info, debug or trace"))?;
    }
    threshold(settings, &get)
}

/// `CLEANUP_THRESHOLD`: a share of the memory. Once it was a time without a read.
fn threshold(
    settings: &mut Settings,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<Option<&'static str>, ConfigError> {
    let Some(text) = get("CLEANUP_THRESHOLD") else { return Ok(None) };
    match (text.parse::<Share>(), text.parse::<Span>()) {
        (Ok(share), _) => {
            settings.limits.cleanup_threshold = Some(share);
            Ok(None)
        }
        (Err(_), Ok(idle)) => {
            settings.pools.iter_mut().for_each(|pool| pool.cleanup.idle_after = idle);
            Ok(Some(FORMER_THRESHOLD))
        }
        (Err(message), Err(_)) => Err(fault("CLEANUP_THRESHOLD", &text, &message)),
    }
}

/// The most resident memory of a process, in bytes. `MEMORY_LIMIT` is the limit of its container, which the
/// operator writes.
fn memory_max(limit: MemoryLimit, get: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let of_container =
        get("MEMORY_LIMIT").and_then(|text| text.parse::<u64>().ok()).filter(|bytes| *bytes > 0);
    limit.bytes(of_container)
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
    use crds::units::Bytes;

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
        let variables: [(&str, &str, Set); 15] = [
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
            ("CLEANUP_THRESHOLD", "0.7", |settings| {
                settings.limits.cleanup_threshold = Some("0.7".parse().unwrap());
            }),
            ("MAX_MEMORY_USAGE", "7GB", |settings| {
                settings.limits.memory = MemoryLimit::Size(Bytes(7_000_000_000));
            }),
            ("CONNECTION_TIMEOUT", "7s", |settings| {
                settings.limits.connection_timeout = Span::from_secs(7);
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
            assert_eq!(apply_environment(&mut told, only(name, value)).unwrap(), None);
            set(&mut wanted);
            assert_eq!(told.hash(), wanted.hash(), "{name}");
            assert_ne!(told.hash(), sample().hash(), "{name} changes something");
            let refused = apply_environment(&mut sample(), only(name, "-1 of them")).unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn the_bound_of_memory_is_told_or_a_part_of_the_containers() {
        let bound = |get: &dyn Fn(&str) -> Option<String>| {
            let mut settings = sample();
            apply_environment(&mut settings, get).unwrap();
            memory_max(settings.limits.memory, get)
        };
        assert_eq!(bound(&only("MAX_MEMORY_USAGE", "512Mi")), Some(512 << 20));
        assert_eq!(bound(&only("MEMORY_LIMIT", "1000")), Some(850));
        assert_eq!(bound(&only("WORKERS", "1")), None);
        let both =
            |name: &str| ["MAX_MEMORY_USAGE", "MEMORY_LIMIT"].contains(&name).then(|| "1000".to_owned());
        assert_eq!(bound(&both), Some(1_000));
        for wrong in ["much", "0", "0GB"] {
            assert!(apply_environment(&mut sample(), only("MAX_MEMORY_USAGE", wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_founding_documents_variables_are_read_together() {
        let said = "BATCH_SIZE=1000 BATCH_FLUSH_INTERVAL=1s MAX_CONNECTIONS=100 CONNECTION_TIMEOUT=30s \
                    MAX_RETRY_ATTEMPTS=3 INITIAL_RETRY_DELAY=100ms MAX_RETRY_DELAY=30s \
                    CIRCUIT_BREAKER_THRESHOLD=5 CIRCUIT_BREAKER_TIMEOUT=60s MAX_MEMORY_USAGE=1GB \
                    CLEANUP_THRESHOLD=0.8 GC_INTERVAL=30s WORKERS=5 QUEUE_SIZE=2000 PORT=8080 LOG_LEVEL=debug";
        let get = |name: &str| {
            let mut variables = said.split_whitespace().filter_map(|variable| variable.split_once('='));
            variables.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let mut settings = sample();
        assert_eq!(apply_environment(&mut settings, get).unwrap(), None);
        assert_eq!(memory_max(settings.limits.memory, get), Some(1_000_000_000));
        assert_eq!(settings.limits.cleanup_threshold.unwrap().of(1_000_000_000), 800_000_000);
        assert_eq!(settings.limits.connection_timeout, Span::from_secs(30));
        assert_eq!((settings.ingest.workers, settings.ingest.queue_size), (5, 2_000));
        assert!(settings.pools.iter().all(|pool| pool.cleanup.interval == Span::from_secs(30)));
    }

    #[test]
    fn a_threshold_in_its_former_form_is_taken_and_told() {
        let (mut settings, mut wanted) = (sample(), sample());
        let told = apply_environment(&mut settings, only("CLEANUP_THRESHOLD", "30m")).unwrap();
        assert!(told.is_some_and(|told| told.contains("as in 0.8")), "{told:?}");
        wanted.pools.iter_mut().for_each(|pool| pool.cleanup.idle_after = Span::from_secs(1_800));
        assert_eq!(settings, wanted);
    }
}
