//! Real Redis servers that a test starts, stops, kills and starts again.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use testing::until;

/// A running server with a folder of its own.
pub struct Server {
    pub port: u16,
    /// Where the nodes of a cluster talk: by default too far up for a port that the system gives.
    pub bus_port: u16,
    program: PathBuf,
    options: Vec<String>,
    dir: PathBuf,
    child: Child,
}

/// The files of a server's certificate.
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Says why a test does not run; where servers are required, that is a failure.
fn skip<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("FLYWEIGHT_REQUIRE_SERVERS").is_none(), "servers are required: {why}");
    println!("skipped: {why}");
    None
}

/// The Redis that the project installed.
pub fn redis_program() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools");
    let script =
        format!("cd '{}' && . ./lib.sh && ./install.sh --check redis && tool_dir redis", tools.display());
    let output = Command::new("bash").args(["-c", &script]).stderr(Stdio::null()).output().unwrap();
    let dir = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
    let program = Path::new(&dir).join("redis-server");
    if output.status.success() && program.exists() {
        Some(program)
    } else {
        skip("Redis is not installed: tests/tools/install.sh redis")
    }
}

/// A certificate for localhost, signed by itself.
pub fn tls_files() -> Option<TlsFiles> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = folder();
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(&dir).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
        let made = openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem")
            && openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out request.pem")
            && openssl(
                "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out cert.pem",
            );
        made.then_some(dir)
    });
    let Some(dir) = dir else { return skip("openssl is not there to make a certificate") };
    Some(TlsFiles { ca: dir.join("ca.pem"), certificate: dir.join("cert.pem"), key: dir.join("key.pem") })
}

/// Of those that no system gives to outgoing connections: it is still free after a restart.
fn free_port() -> u16 {
    let mut random = std::iter::repeat_with(|| rand::random_range(20_000..30_000));
    random.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

fn folder() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("flyweight-redis-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl Server {
    /// A server with some options, ready to be asked.
    pub async fn start(program: &Path, options: &[&str]) -> Self {
        Self::on_port("--port", program, options).await
    }

    /// A server that speaks TLS only.
    pub async fn start_tls(program: &Path, options: &[&str]) -> Self {
        Self::on_port("--tls-port", program, &[&["--port", "0"], options].concat()).await
    }

    async fn on_port(option: &str, program: &Path, options: &[&str]) -> Self {
        let [port, bus_port] = [free_port(), free_port()];
        let (dir, ports) = (folder(), [port, bus_port].map(|port| port.to_string()));
        let folder = dir.to_str().unwrap();
        let fixed = [
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
            option,
            &ports[0],
            "--cluster-port",
            &ports[1],
        ];
        let options: Vec<String> = fixed.iter().chain(options).map(|option| (*option).to_owned()).collect();
        let child = spawn(program, &options);
        let server = Self { port, bus_port, program: program.to_owned(), options, dir, child };
        server.ready().await;
        server
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its data.
    pub async fn again(&mut self) {
        self.child = spawn(&self.program, &self.options);
        self.ready().await;
    }

    /// Sends it a signal by its name.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn ready(&self) {
        until("Redis accepts connections", async || {
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok()
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // a stopped process is killed all the same
        _ = self.child.kill();
        _ = self.child.wait();
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(program: &Path, options: &[String]) -> Child {
    Command::new(program).args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
