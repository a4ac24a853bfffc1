//! The operator as a process that is started again when it dies, as kubelet would.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use super::api::http_client;
use crate::{process, server::free_port};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 200;

/// A running operator.
pub struct Operator {
    state: Arc<State>,
    _dir: tempfile::TempDir,
}

struct State {
    command: Mutex<Box<dyn Fn() -> Child + Send>>,
    admin_port: Arc<AtomicU16>,
    child: Mutex<Child>,
    ended: AtomicBool,
    deaths: AtomicUsize,
    log: Log,
}

/// The latest lines of its log, at most [`LOG_LINES`].
type Log = Arc<Mutex<VecDeque<String>>>;

/// How an operator is started.
pub struct Options<'a> {
    /// Where its API server is.
    pub base: &'a str,
    /// The namespace that it works in, and that its Lease is in.
    pub namespace: &'a str,
    /// Its name in the Lease.
    pub identity: &'a str,
    /// The seconds of its Lease.
    pub lease_seconds: u16,
    /// The certificate of the API server's authority, as a kubeconfig has it; none for plain HTTP.
    pub authority: Option<&'a str>,
    /// The token of its account; none where whoever starts it has all rights.
    pub token: Option<&'a str>,
    /// The program; none for the one that is built with this.
    pub program: Option<&'a Path>,
}

impl<'a> Options<'a> {
    /// As most are started.
    pub fn new(base: &'a str, namespace: &'a str, identity: &'a str) -> Self {
        Self { base, namespace, identity, lease_seconds: 10, authority: None, token: None, program: None }
    }
}

impl Operator {
    /// Starts it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(options: &Options<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let kubeconfig = write_kubeconfig(dir.path(), options);
        let Options { namespace, identity, lease_seconds, .. } = options;
        let program = options.program.map_or_else(program, Path::to_path_buf);
        let (namespace, identity, seconds) =
            ((*namespace).to_owned(), (*identity).to_owned(), lease_seconds.to_string());
        let admin_port = Arc::new(AtomicU16::new(0));
        let port = admin_port.clone();
        let log = Log::default();
        let lines = log.clone();
        let start = move || {
            port.store(free_port(), Ordering::Relaxed);
            let mut command = Command::new(&program);
            command
                .env("KUBECONFIG", &kubeconfig)
                .args(["run", "--log-level", "warn", "--lease-seconds", &seconds, "--identity", &identity])
                .args(["--namespace", &namespace, "--lease-namespace", &namespace])
                .args(["--admin-port", &port.load(Ordering::Relaxed).to_string()]);
            launch(&command, lines.clone())
        };
        let child = Mutex::new(start());
        let state = State {
            command: Mutex::new(Box::new(start)),
            admin_port,
            child,
            ended: AtomicBool::new(false),
            deaths: AtomicUsize::new(0),
            log,
        };
        let state = Arc::new(state);
        let watched = state.clone();
        std::thread::spawn(move || watched.supervise());
        Self { state, _dir: dir }
    }

    /// A way to send it a signal from elsewhere.
    pub fn signaller(&self, name: &'static str) -> impl Fn() + Send + Sync + 'static {
        let state = self.state.clone();
        move || process::signal(&lock(&state.child), name)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        process::signal(&lock(&self.state.child), name);
    }

    /// Whether its log has a line with this text.
    pub fn has_said(&self, text: &str) -> bool {
        lock(&self.state.log).iter().any(|line| line.contains(text))
    }

    /// How often it died.
    pub fn deaths(&self) -> usize {
        self.state.deaths.load(Ordering::Relaxed)
    }

    /// The sum of one of its counters over all labels; none while it does not answer.
    pub async fn counted(&self, name: &str) -> Option<f64> {
        Some(self.counters(name).await?.into_iter().map(|(_, value)| value).sum())
    }

    /// The counters whose lines begin so, each with what follows.
    pub async fn counters(&self, name: &str) -> Option<Vec<(String, f64)>> {
        let url = format!("http://127.0.0.1:{}/metrics", self.state.admin_port.load(Ordering::Relaxed));
        let text = http_client(reqwest::Client::builder()).get(url).send().await.ok()?.text().await.ok()?;
        let counter = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            Some((labels.to_owned(), value.parse().ok()?))
        };
        Some(text.lines().filter_map(counter).collect())
    }

    /// Its resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", lock(&self.state.child).id());
        let statm = std::fs::read_to_string(path).unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    /// The CPU time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", lock(&self.state.child).id()))
            .unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 =
            after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        process::signal(&lock(&self.state.child), "KILL");
    }
}

impl State {
    fn supervise(&self) {
        loop {
            std::thread::sleep(LOOK_EVERY);
            let mut child = lock(&self.child);
            let dead = child.try_wait().is_ok_and(|status| status.is_some());
            match (dead, self.ended.load(Ordering::Relaxed)) {
                (true, true) => return,
                (true, false) => {
                    self.deaths.fetch_add(1, Ordering::Relaxed);
                    *child = lock(&self.command)();
                }
                (false, _) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn launch(command: &Command, log: Log) -> Child {
    let mut child =
        process::spawn(command).unwrap_or_else(|error| panic!("the operator cannot be started: {error}"));
    let stderr = child.stderr.take();
    std::thread::spawn(move || {
        // Read to its end, shown on demand: a full pipe would stop the operator.
        for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok))
        {
            if std::env::var_os("FLYWEIGHT_TEST_LOGS").is_some() {
                eprintln!("{line}");
            }
            let mut log = lock(&log);
            log.push_back(line);
            if log.len() > LOG_LINES {
                log.pop_front();
            }
        }
    });
    child
}

fn write_kubeconfig(dir: &Path, options: &Options<'_>) -> PathBuf {
    let path = dir.join("kubeconfig");
    let mut cluster = json!({ "server": options.base });
    if let Some(authority) = options.authority {
        cluster["certificate-authority-data"] = json!(authority);
    }
    let user = options.token.map_or_else(|| json!({}), |token| json!({ "token": token }));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "c", "cluster": cluster }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    std::fs::write(&path, config.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// The program that was built with this one, or the one that is to be measured.
fn program() -> PathBuf {
    std::env::var_os("FLYWEIGHT_OPERATOR").map_or_else(|| bin_dir().join("flyweight-operator"), PathBuf::from)
}

fn bin_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.parent().map(Path::to_path_buf).unwrap_or_default()
}
