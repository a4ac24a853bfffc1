//! The data plane as users run it: a process of its own, over embedded or real stores.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc,
    time::Duration,
};

use crate::{process, server::free_port, wait};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);
/// The signal by which a process ends that aborts.
const ABORTED: i32 = 6;

/// A running data plane.
pub struct DataPlane {
    /// Where the API is: `http://127.0.0.1:1234`.
    pub url: String,
    /// Where the admin port is.
    pub admin: String,
    program: PathBuf,
    args: Vec<String>,
    child: Child,
}

/// What a process printed when it was ready.
struct Ready {
    url: String,
    admin: String,
}

/// The folder with the built programs: `FLYWEIGHT_BIN_DIR`, or where this one was built.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("FLYWEIGHT_BIN_DIR") {
        return dir.into();
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("."));
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
}

impl DataPlane {
    /// The program that was built.
    pub fn built() -> PathBuf {
        bin_dir().join("flyweight-dataplane")
    }

    /// Serves a folder of manifests with embedded stores in a data folder.
    pub fn embedded(manifests: &Path, data: &Path) -> Self {
        Self::embedded_of(Self::built(), manifests, data)
    }

    /// The same by another program than the one that was built.
    pub fn embedded_of(program: PathBuf, manifests: &Path, data: &Path) -> Self {
        Self::start_of(program, &["serve", "--manifests", &text(manifests), "--data-dir", &text(data)])
    }

    /// Serves a folder of manifests with the real stores whose addresses are in a folder of backends.
    pub fn real(manifests: &Path, backends: &Path, security: &Path) -> Self {
        Self::real_of(Self::built(), manifests, backends, security)
    }

    /// The same by another program than the one that was built.
    pub fn real_of(program: PathBuf, manifests: &Path, backends: &Path, security: &Path) -> Self {
        let [manifests, backends, security] = [manifests, backends, security].map(text);
        Self::start_of(
            program,
            &["serve", "--manifests", &manifests, "--backends", &backends, "--security", &security],
        )
    }

    /// Starts the program with these arguments on free ports and waits until it says that it is ready.
    ///
    /// # Panics
    /// It does not become ready; the message holds what it printed.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// The same with these variables in its environment, which a restart does not repeat.
    ///
    /// # Panics
    /// It does not become ready; the message holds what it printed.
    pub fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_in(Self::built(), args, environment)
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    /// It does not become ready: what it printed.
    pub fn try_start(args: &[&str], environment: &[(&str, &str)]) -> Result<Self, String> {
        Self::try_start_of(Self::built(), args, environment)
    }

    fn start_of(program: PathBuf, args: &[&str]) -> Self {
        Self::start_in(program, args, &[])
    }

    fn start_in(program: PathBuf, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::try_start_of(program, args, environment)
            .unwrap_or_else(|printed| panic!("the data plane did not become ready:\n{printed}"))
    }

    fn try_start_of(program: PathBuf, args: &[&str], environment: &[(&str, &str)]) -> Result<Self, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let [port, admin_port] = [free_port(), free_port()].map(|port| port.to_string());
        let (child, ready) = launch(&program, &args, environment, &port, &admin_port);
        ready.map(|Ready { url, admin }| Self { url, admin, program, args, child })
    }

    /// Kills it: SIGKILL, nothing is flushed.
    pub fn kill(&mut self) {
        process::signal(&self.child, "KILL");
        _ = self.child.wait();
    }

    /// Freezes it: connections stay, nothing goes on.
    pub fn freeze(&self) {
        process::signal(&self.child, "STOP");
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        process::is_frozen(&self.child)
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        process::signal(&self.child, "CONT");
    }

    /// Asks it to stop and waits until it has.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.ask_to_stop();
        self.child.wait().unwrap_or_default()
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        process::signal(&self.child, "TERM");
    }

    /// Waits until it has ended by itself; how.
    ///
    /// # Panics
    /// It did not within the time.
    pub async fn ended(&mut self, within: Duration) -> std::process::ExitStatus {
        wait::until("the data plane to end", within, async || self.child.try_wait().ok()?).await
    }

    /// Starts it again on the same ports with the same arguments.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// Starts it again with these variables in its environment.
    ///
    /// # Panics
    /// It does not become ready; the message holds what it printed.
    pub fn restart_with(&mut self, environment: &[(&str, &str)]) {
        if let Err(printed) = self.try_restart(environment) {
            panic!("the data plane did not become ready:\n{printed}");
        }
    }

    /// Starts it again, to crash at a failpoint: once it is ready, or before where what it finds leads there
    /// at once.
    ///
    /// # Panics
    /// It neither becomes ready nor crashes; the message holds what it printed.
    pub fn restart_to_crash(&mut self, point: &str) {
        if let Err(printed) = self.try_restart(&[("FLYWEIGHT_CRASH_AT", point)]) {
            let status = self.child.wait().unwrap_or_default();
            assert_eq!(status.signal(), Some(ABORTED), "{point}: neither ready nor crashed:\n{printed}");
        }
    }

    fn try_restart(&mut self, environment: &[(&str, &str)]) -> Result<(), String> {
        let port = |url: &str| url.rsplit(':').next().unwrap_or("0").to_owned();
        let (child, ready) =
            launch(&self.program, &self.args, environment, &port(&self.url), &port(&self.admin));
        self.child = child;
        ready.map(drop)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the program; where it says that it listens, or what it printed instead before it ended, or was
/// ended when its time was over.
fn launch(
    program: &Path,
    args: &[String],
    environment: &[(&str, &str)],
    port: &str,
    admin_port: &str,
) -> (Child, Result<Ready, String>) {
    let mut command = Command::new(program);
    command.args(args).args([
        "--port",
        port,
        "--admin-port",
        admin_port,
        "--log-format",
        "json",
        "--drain-delay",
        "0s",
    ]);
    command.envs(environment.iter().copied());
    let mut child =
        process::spawn(&command).unwrap_or_else(|error| panic!("the data plane cannot be started: {error}"));
    let Some(stderr) = child.stderr.take() else { panic!("no standard error") };
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if std::env::var_os("FLYWEIGHT_TEST_LOGS").is_some() {
                eprintln!("{line}");
            }
            _ = sender.send(line);
        }
    });
    let mut printed = Vec::new();
    let deadline = std::time::Instant::now() + START;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
        if let Some(ready) = ready(&line) {
            return (child, Ok(ready));
        }
        printed.push(line);
    }
    _ = child.kill();
    _ = child.wait();
    (child, Err(printed.join("\n")))
}

/// The line in which the data plane says where it listens.
fn ready(line: &str) -> Option<Ready> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let place =
        |field: &str| Some(format!("http://127.0.0.1:{}", entry.get(field)?.as_str()?.rsplit(':').next()?));
    (entry.get("message")? == "ready").then(|| Some(Ready { url: place("addr")?, admin: place("admin")? }))?
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
