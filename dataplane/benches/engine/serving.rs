//! Requests per second and processor time per request of one server core, against nginx serving the same
//! bytes as files, in the same run.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tempfile::TempDir;

use super::{
    products::{record, schema},
    servers::{Server, on_cores, request},
};

/// Products that are asked for in turn.
const PRODUCTS: u64 = 1_000;
/// Subjects before Flyweight's.
const PEERS: usize = 2;
const ROUNDS: usize = 3;
const SECONDS: u64 = 5;
const CONNECTIONS: u64 = 32;
/// Between two requests of a connection at half load, in ms: the shortest that wrk knows, since all that
/// pause ask again at the same tick of its clock.
const PAUSE_MS: u64 = 1;
/// Runs until the number of pausing connections is right.
const FITTINGS: usize = 5;
/// The aims: requests against nginx, p99 at half load; processor time of a request where no token is checked.
const RATIO_MIN: f64 = 1.3;
const CPU_US_MAX: f64 = 12.0;
const P99_MS_MAX: f64 = 2.0;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OPEN_FILES: &str = "open_file_cache max=10000; open_file_cache_valid 60s;";
/// What both servers are asked, in turn; with a pause where `PAUSE` is set.
const SCRIPT: &str = r#"
local requests, at, pause = {}, 0, tonumber(os.getenv("PAUSE"))
function init()
    local token = os.getenv("TOKEN")
    if token then wrk.headers["Authorization"] = "Bearer " .. token end
    for path in io.lines(os.getenv("PATHS")) do requests[#requests + 1] = wrk.format("GET", path) end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
if pause then function delay() return pause end end
"#;
const MANIFESTS: &str = "
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: { name: hot }
spec: { memory: { maxBytes: 64Mi, policy: S3FIFO }, ttl: 1h, jitter: 10 }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: products }
spec:
  entity: Product
  tierRefs: [{ name: hot }]
  fields: [FIELDS]
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightService
metadata: { name: bench }
spec:
  image: flyweight/dataplane:bench
  poolRefs: [{ name: products }]
  replicaGroups: [{ name: main, replicas: 1 }]
  backends: [{ name: mongodb, mongodb: { secretRef: { name: bench-mongodb }, database: bench } }]
  security:
    rateLimit: { requestsPerSecond: 10000000, burst: 10000000 }
    JWT
";

/// What one run of the client saw.
struct Run {
    per_second: f64,
    cpu_us: f64,
    p99: Duration,
}

/// Who is asked, and how.
struct Subject<'a> {
    name: &'static str,
    server: &'a Server,
    token: Option<&'a str>,
    runs: Vec<Run>,
}

/// The table of requests on one core.
pub fn compare() -> Result<()> {
    let token = token()?;
    let open = Server::flyweight(SERVER_CORE, &manifests(false), None, &[])?;
    let guarded = Server::flyweight(SERVER_CORE, &manifests(true), Some(SECRET), &[])?;
    let files = tempfile::tempdir()?;
    let paths = fill(&open, None, Some(&files))?;
    fill(&guarded, Some(&token), None)?;
    let plain = Server::nginx(files.path(), SERVER_CORE, "")?;
    let cached = Server::nginx(files.path(), SERVER_CORE, OPEN_FILES)?;

    let client = Client::new(&paths)?;
    let subject = |name, server, token| Subject { name, server, token, runs: Vec::new() };
    let mut subjects = [
        subject("nginx, static files", &plain, None),
        subject("nginx, static files, `open_file_cache`", &cached, None),
        subject("**Flyweight**: metrics, limit per address", &open, None),
        subject("**Flyweight**: metrics, token, roles, limit per caller", &guarded, Some(token.as_str())),
    ];
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.runs.push(client.run(subject.server, subject.token, CONNECTIONS, None)?);
        }
    }
    print(&client, &subjects)
}

fn print(client: &Client, subjects: &[Subject<'_>]) -> Result<()> {
    println!(
        "\n## Serving: GET of one of {PRODUCTS} products, keep-alive, one server core, {CONNECTIONS} connections\n"
    );
    println!("| server | requests/s | against nginx | µs of CPU per request | p99 at half load |");
    println!("|---|---:|---:|---:|---:|");
    let nginx = median(&subjects[0].runs, |run| run.per_second);
    let mut missed = Vec::new();
    for (number, Subject { name, server, token, runs }) in subjects.iter().enumerate() {
        let (per_second, cpu_us) = (median(runs, |run| run.per_second), median(runs, |run| run.cpu_us));
        let half = at_half(client, server, *token, per_second / 2.0)?;
        let (p99, load) = (half.p99.as_secs_f64() * 1e3, half.per_second / per_second * 100.0);
        let ratio = per_second / nginx;
        println!("| {name} | {per_second:.0} | {ratio:.2} | {cpu_us:.1} | {p99:.2} ms at {load:.0} % |");
        let too_dear = token.is_none() && cpu_us > CPU_US_MAX;
        if number >= PEERS && (ratio < RATIO_MIN || too_dear || p99 >= P99_MS_MAX) {
            missed.push(*name);
        }
    }
    ensure!(
        missed.is_empty(),
        "not {RATIO_MIN} times nginx, {CPU_US_MAX} µs and {P99_MS_MAX} ms: {}",
        missed.join("; ")
    );
    Ok(())
}

/// A run with so many requests a second, or nearly.
fn at_half(client: &Client, server: &Server, token: Option<&str>, wanted: f64) -> Result<Run> {
    let mut connections = wanted * PAUSE_MS as f64 / 1e3;
    let mut runs = Vec::new();
    for _ in 0..FITTINGS {
        let run = client.run(server, token, connections as u64, Some(PAUSE_MS))?;
        // a pause takes longer than it says, and the longer the more connections there are
        connections *= (wanted / run.per_second).sqrt();
        runs.push(run);
    }
    let off = |run: &Run| (run.per_second - wanted).abs();
    runs.into_iter().min_by(|a, b| off(a).total_cmp(&off(b))).context("no run")
}

/// The client: wrk, with its script and the paths in a folder.
struct Client(TempDir);

impl Client {
    fn new(paths: &[String]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("paths"), paths.join("\n"))?;
        fs::write(dir.path().join("script.lua"), SCRIPT)?;
        Ok(Self(dir))
    }

    fn run(
        &self,
        server: &Server,
        token: Option<&str>,
        connections: u64,
        pause_ms: Option<u64>,
    ) -> Result<Run> {
        let before = server.cpu()?;
        let mut wrk = on_cores(CLIENT_CORE, Path::new("wrk"));
        wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "--latency", "-s"]);
        wrk.arg(self.0.path().join("script.lua"))
            .arg(server.url("http"))
            .env("PATHS", self.0.path().join("paths"));
        pause_ms.map(|pause| wrk.env("PAUSE", pause.to_string()));
        token.map(|token| wrk.env("TOKEN", token));
        let output = wrk.output().context("wrk cannot be run: run tests/tools/install.sh bench")?;
        let cpu = server.cpu()?.saturating_sub(before);
        let said = String::from_utf8(output.stdout)?;
        if !output.status.success() || said.contains("Non-2xx") || said.contains("Socket errors") {
            bail!("wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        let word_before = |what: &str| {
            let line = said.lines().find(|line| line.contains(what));
            line.and_then(|line| line.split_whitespace().next())
                .with_context(|| format!("wrk: no {what} in {said}"))
        };
        let word_after = |what: &str| {
            let rest = said.split_once(what).and_then(|(_, rest)| rest.split_whitespace().next());
            rest.with_context(|| format!("wrk: no {what} in {said}"))
        };
        let requests: f64 = word_before("requests in")?.parse()?;
        let (per_second, p99) = (word_after("Requests/sec:")?.parse()?, duration(word_after("99%")?)?);
        Ok(Run { per_second, cpu_us: cpu.as_secs_f64() * 1e6 / requests, p99 })
    }
}

/// A time as wrk writes it.
fn duration(text: &str) -> Result<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).with_context(|| format!("{text} has no unit"))?;
    let seconds = match &text[unit..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        other => bail!("{other} is no unit"),
    };
    Ok(Duration::from_secs_f64(text[..unit].parse::<f64>()? * seconds))
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(of).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn manifests(guarded: bool) -> String {
    let fields = schema(true).fields.into_iter().filter(|field| !field.internal);
    let fields = fields.map(|field| format!("{{ name: {}, role: {:?} }}", field.name, field.role));
    let jwt = if guarded { "jwt: { secretRef: { name: bench-jwt } }" } else { "" };
    MANIFESTS.replace("FIELDS", &fields.collect::<Vec<_>>().join(", ")).replace("JWT", jwt)
}

fn token() -> Result<String> {
    let claims = json!({ "sub": "bench", "exp": jsonwebtoken::get_current_timestamp() + 86_400, "roles": ["shop", "catalog-admin"] });
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

/// Creates the products and reads each twice, so that memory has them all. Gives their paths; their bodies go
/// into files for nginx.
fn fill(server: &Server, token: Option<&str>, files: Option<&TempDir>) -> Result<Vec<String>> {
    let headers = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let mut paths = Vec::new();
    for n in 0..PRODUCTS {
        let record = record(n, PRODUCTS)?;
        let mut body = serde_json::from_str::<serde_json::Value>(&record.to_json(&schema(true)))?;
        for name in ["version", "created_at", "updated_at"] {
            body.as_object_mut().map(|fields| fields.remove(name));
        }
        let (status, answer) = request(server.addr, "POST", "/api/v1/products", &headers, &body.to_string())?;
        if status != 201 {
            bail!("{status} {}", String::from_utf8_lossy(&answer));
        }
        paths.push(format!("/api/v1/products/{}", record.key));
    }
    for path in &paths {
        request(server.addr, "GET", path, &headers, "")?;
        let (status, body) = request(server.addr, "GET", path, &headers, "")?;
        if status != 200 {
            bail!("{status} {}", String::from_utf8_lossy(&body));
        }
        if let Some(files) = files {
            let file = files.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(file.parent().unwrap_or(files.path()))?;
            fs::write(file, body)?;
        }
    }
    Ok(paths)
}
