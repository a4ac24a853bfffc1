//! Real servers, run by `tests/tools/serve.sh`: started, killed, frozen and started again on the same data.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::{process, root};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
    /// Redis.
    Redis,
    /// Kafka, one broker.
    Kafka,
    /// A server of MongoDB's wire protocol.
    Mongo,
}

/// A running server of a test's own.
pub struct Server {
    kind: Kind,
    dir: tempfile::TempDir,
    port: u16,
    settings: &'static [(&'static str, &'static str)],
    child: Child,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Mongo => "mongo",
        }
    }

    /// Whether the server is installed; if not, why.
    ///
    /// # Errors
    /// One line that says why and what to do.
    pub fn available(self) -> Result<(), String> {
        let output = Command::new(tool("install.sh"))
            .args(["--check", self.name()])
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => {
                Err(format!("{} is not installed: run tests/tools/install.sh {}", self.name(), self.name()))
            }
        }
    }
}

impl Server {
    /// Starts a server on a free port with empty data, and waits until it answers.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[])
    }

    /// The same, with settings in the environment of `serve.sh`.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start_with(kind: Kind, settings: &'static [(&'static str, &'static str)]) -> Self {
        Self::start_on(&std::env::temp_dir(), kind, settings)
    }

    /// The same, with its data in this folder, which may be on a disk of its own.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start_on(disk: &Path, kind: Kind, settings: &'static [(&'static str, &'static str)]) -> Self {
        let dir = tempfile::tempdir_in(disk).unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let port = free_port();
        let child = launch(kind, dir.path().to_path_buf(), port, settings);
        let server = Self { kind, dir, port, settings, child };
        server.wait();
        server
    }

    /// The folder of what clients are given besides the address, for a server with `KAFKA_SECURE`.
    pub fn secret(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// Its address as clients write it.
    pub fn url(&self) -> String {
        let output = Command::new(tool("url.sh"))
            .args([self.kind.name(), "127.0.0.1", &self.port.to_string()])
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// Kills it as a power cut would: SIGKILL, nothing is flushed.
    pub fn kill(&mut self) {
        process::signal(&self.child, "KILL");
        _ = self.child.wait();
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Starts it again on its data and waits until it answers.
    pub fn restart(&mut self) {
        self.child = launch(self.kind, self.dir.path().to_path_buf(), self.port, self.settings);
        self.wait();
    }

    /// Freezes it: connections stay, nothing answers.
    pub fn freeze(&self) {
        process::signal(&self.child, "STOP");
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        process::is_frozen(&self.child)
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        process::signal(&self.child, "CONT");
    }

    fn wait(&self) {
        let status = Command::new(tool("wait.sh"))
            .args([self.kind.name(), "127.0.0.1", &self.port.to_string(), "90"])
            .status();
        let log = self.dir.path().join("server.log");
        assert!(
            status.is_ok_and(|status| status.success()),
            "{} did not come up:\n{}",
            self.kind.name(),
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago, of those that no system gives to outgoing connections: it is still free
/// after a server's restart.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    let mut random = std::iter::repeat_with(|| rand::random_range(20_000..30_000));
    let free = random.by_ref().take(1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.unwrap_or_else(|| panic!("no free port between 20000 and 30000"))
}

fn launch(kind: Kind, dir: PathBuf, port: u16, settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(tool("serve.sh"));
    command.arg(kind.name()).arg(dir).arg(port.to_string()).envs(settings.iter().copied());
    process::spawn(&command).unwrap_or_else(|error| panic!("{} cannot be started: {error}", kind.name()))
}

fn tool(name: &str) -> PathBuf {
    root().join("tests/tools").join(name)
}

/// Runs SQL statements, parted by semicolons, in a database.
///
/// # Panics
/// A statement fails.
pub fn run_sql(url: &str, statements: &str) {
    let (url, statements) = (url.to_owned(), statements.to_owned());
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            use sqlx::Connection;
            let mut connection =
                sqlx::MySqlConnection::connect(&url).await.map_err(|error| error.to_string())?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
                .execute(&mut connection)
                .await
                .map_err(|error| error.to_string())
        })
    })
    .join();
    match done {
        Ok(Ok(_)) => {}
        other => panic!("SQL failed: {other:?}"),
    }
}
