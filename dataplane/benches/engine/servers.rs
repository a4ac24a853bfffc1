//! Servers that the benches compare with, each a process of its own that ends with the value.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its folder, which goes with it.
    _dir: TempDir,
}

/// How long a server may take to come up.
const START: Duration = Duration::from_secs(30);
/// Tests give servers little memory; here they have what one that serves has at least: neither side shall
/// wait for a cache that is too small.
const ROOMY: [(&str, &str); 2] = [
    ("MYSQL_OPTS", "--innodb-buffer-pool-size=1G --innodb-redo-log-capacity=1G"),
    ("KAFKA_OPTS", "-Xms1g -Xmx1g"),
];
/// Clock ticks in a second, in `/proc/PID/stat`: `USER_HZ`, the same on every Linux of today.
const TICKS: f64 = 100.0;

impl Server {
    /// A real server as the tests run it: `redis`, `mysql`, `kafka`.
    pub fn real(kind: &str) -> Result<Self> {
        let (dir, addr) = (tempfile::tempdir()?, free_addr()?);
        let mut command = Command::new(tool("serve.sh"));
        command.arg(kind).arg(dir.path()).arg(addr.port().to_string());
        command.envs(ROOMY);
        let server = Self::start(command, addr, dir)?;
        let port = addr.port().to_string();
        let up = Command::new(tool("wait.sh")).args([kind, "127.0.0.1", &port, "60"]).status()?;
        if up.success() {
            Ok(server)
        } else {
            bail!("{kind} did not start: run tests/tools/install.sh {kind}")
        }
    }

    /// nginx with one worker on one core, serving the files of a folder. `more` goes into its configuration.
    pub fn nginx(files: &Path, core: &str, more: &str) -> Result<Self> {
        let (dir, addr) = (tempfile::tempdir()?, free_addr()?);
        let root = dir.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {root}/{kind};"))
            .join(" ");
        let configuration = format!(
            "daemon off; master_process off; error_log {root}/error.log; pid {root}/pid;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; default_type application/json;\n\
             {temporary}\n{more}\n\
             server {{ listen {addr}; root {}; }} }}\n",
            files.display()
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = on_cores(core, Path::new("nginx"));
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file);
        Self::start(command, addr, dir)?.up()
    }

    /// The data plane on some cores, with these manifests: with embedded stores, or over the backends that
    /// are named with their addresses. `secret` is the key of its tokens.
    pub fn flyweight(
        cores: &str,
        manifests: &str,
        secret: Option<&str>,
        backends: &[(&str, String)],
    ) -> Result<Self> {
        let (dir, addr) = (tempfile::tempdir()?, free_addr()?);
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("manifests"))?;
        fs::write(path("manifests/all.yaml"), manifests)?;
        let mut command = on_cores(cores, Path::new(env!("CARGO_BIN_EXE_flyweight-dataplane")));
        command.args(["serve", "--bind", "127.0.0.1", "--admin-port", "0", "--drain-delay", "0s"]);
        command.args(["--port", &addr.port().to_string()]);
        command.arg("--manifests").arg(path("manifests"));
        match backends.is_empty() {
            true => command.arg("--data-dir").arg(path("data")),
            false => command.arg("--backends").arg(path("backends")),
        };
        for (name, url) in backends {
            fs::create_dir_all(path("backends").join(name))?;
            fs::write(path("backends").join(name).join("url"), url)?;
        }
        if let Some(secret) = secret {
            fs::create_dir_all(path("security/jwt"))?;
            fs::write(path("security/jwt/secret"), secret)?;
            command.arg("--security").arg(path("security"));
        }
        let server = Self::start(command, addr, dir)?.up()?;
        let ready = || matches!(request(addr, "GET", "/readyz", "", ""), Ok((200, _)));
        if until(ready) { Ok(server) } else { bail!("the data plane did not become ready") }
    }

    /// Freezes it, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &self.id()]).status()?;
        if done.success() { Ok(()) } else { bail!("{signal} failed") }
    }

    /// Its process id.
    pub fn id(&self) -> String {
        self.child.id().to_string()
    }

    /// Its address as a URL.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.addr)
    }

    /// The processor time that it has used, its system calls included.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(") ").context("no name in stat")?.1.split(' ').collect();
        let [user, system] = fields.get(11..13).context("stat is too short")? else {
            bail!("stat is too short")
        };
        Ok(Duration::from_secs_f64((user.parse::<f64>()? + system.parse::<f64>()?) / TICKS))
    }

    fn start(mut command: Command, addr: SocketAddr, dir: TempDir) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child
            .with_context(|| format!("{command:?} cannot be run: run tests/tools/install.sh bench redis"))?;
        Ok(Self { child, addr, _dir: dir })
    }

    fn up(self) -> Result<Self> {
        let connects = || TcpStream::connect(self.addr).is_ok();
        if until(connects) { Ok(self) } else { bail!("nothing listens on {} after {START:?}", self.addr) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Sends one request on a connection of its own. `headers` are whole lines. Gives status and body.
pub fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(addr)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok((status, answer.split_off(end + 4)))
}

/// A program that runs on some cores only: `0`, `0-1`.
pub fn on_cores(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools").join(name)
}

fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn until(holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + START;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
