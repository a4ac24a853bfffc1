//! Five times the load that can be borne, on one server core: how much is still done, how quickly, and how
//! soon all is well again.

use std::{
    env,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant as Tick, sleep_until};

use super::{
    client::Connection,
    servers::{Server, on_cores, request},
};

/// Connections of the load that is borne: each waits for its answer before it asks again.
const CLIENTS: usize = 64;
/// Connections of the overload. Since refusals are held back, so many cannot ask as often as they want.
const CLIENTS_MANY: usize = 640;
/// Connections that are so many that requests are not held back by them.
const CLIENTS_TOO_MANY: usize = 8_000;
/// How many times the load that is borne is too much.
const TOO_MUCH: f64 = 5.0;
const SECONDS: u64 = 20;
const SECONDS_OVER: u64 = 60;
/// What must hold: goodput beside the peak, p99 beside the normal one, and how soon it recovers.
const GOODPUT_MIN: f64 = 0.9;
const P99_MAX: f64 = 4.0;
const RECOVERY_MAX: Duration = Duration::from_secs(5);
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
const MANIFESTS: &str = "
apiVersion: flyweight.dev/v1alpha1
kind: CacheTier
metadata: { name: hot }
spec: { memory: { maxBytes: 64Mi }, ttl: 60s }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightPool
metadata: { name: users }
spec: { entity: User, tierRefs: [{ name: hot }] }
---
apiVersion: flyweight.dev/v1alpha1
kind: FlyweightService
metadata: { name: bench }
spec:
  image: flyweight/dataplane:bench
  poolRefs: [{ name: users }]
  replicaGroups: [{ name: main, replicas: 1 }]
  backends: [{ name: mysql, mysql: { secretRef: { name: bench-mysql } } }]
  security: { rateLimit: { requestsPerSecond: 10000000, burst: 10000000 } }
";

/// A load: so many connections, so many requests a second in all; 0 is as many as are answered.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Plan {
    addr: SocketAddr,
    connections: usize,
    per_second: f64,
    seconds: u64,
}

/// What a load got until its time was over. Times in milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Outcome {
    offered_per_second: f64,
    done_per_second: f64,
    refused: usize,
    p50_ms: f64,
    p99_ms: f64,
    refused_p99_ms: f64,
}

/// The table of overload.
pub fn compare() -> Result<()> {
    let server = Server::flyweight(SERVER_CORE, MANIFESTS, None, &[])?;
    let borne = Plan { addr: server.addr, connections: CLIENTS, per_second: 0.0, seconds: SECONDS };
    println!("\n## Overload: creating users, embedded stores, one server core\n");
    println!(
        "| load | offered/s | done/s | refused/s | p50 of what was done | p99 of what was done | p99 of refusals |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let peak = format!("{CLIENTS} connections, each waits for its answer");
    let mut before = run(borne)?;
    print(&peak, &before, SECONDS);
    ensure!(before.refused == 0, "the load of {CLIENTS} connections is borne");
    let rate = before.done_per_second * TOO_MUCH;
    let mut found = Vec::new();
    for connections in [CLIENTS_MANY, CLIENTS_TOO_MANY] {
        let plan = Plan { connections, per_second: rate, seconds: SECONDS_OVER, ..borne };
        let (over, slowest_probe) = probed(server.addr, || run(plan))?;
        print(&format!("{connections} connections that want {TOO_MUCH} times as much"), &over, SECONDS_OVER);
        let recovered = recovery(borne)?;
        let after = run(borne)?;
        print(&peak, &after, SECONDS);
        found.push(Found { connections, over, recovered, slowest_probe, peaks: [before, after] });
        before = after;
    }
    println!();
    found.iter().for_each(Found::tell);
    found.iter().try_for_each(Found::check)
}

/// What came of one overload.
struct Found {
    connections: usize,
    over: Outcome,
    recovered: Duration,
    slowest_probe: Duration,
    /// A table that grows takes more time: what can be borne is the mean of before and after.
    peaks: [Outcome; 2],
}

impl Found {
    fn goodput(&self) -> f64 {
        self.over.done_per_second / self.borne(|outcome| outcome.done_per_second)
    }

    fn p99(&self) -> f64 {
        self.over.p99_ms / self.borne(|outcome| outcome.p99_ms)
    }

    fn borne(&self, of: fn(&Outcome) -> f64) -> f64 {
        let [before, after] = self.peaks;
        f64::midpoint(of(&before), of(&after))
    }

    fn tell(&self) {
        println!(
            "With {} connections: goodput {:.0} % of the peak, p99 {:.1} times the normal one, recovered in {:.1} s, slowest probe {:.1?}.",
            self.connections,
            self.goodput() * 100.0,
            self.p99(),
            self.recovered.as_secs_f64(),
            self.slowest_probe,
        );
    }

    fn check(&self) -> Result<()> {
        let connections = self.connections;
        ensure!(self.over.refused > 0, "{connections} connections were no overload");
        ensure!(
            self.goodput() >= GOODPUT_MIN,
            "{connections} connections: goodput fell below {GOODPUT_MIN} of the peak"
        );
        ensure!(
            self.p99() <= P99_MAX,
            "{connections} connections: what was accepted took more than {P99_MAX} times its normal time"
        );
        Ok(())
    }
}

/// How long it takes until nothing is refused any more.
fn recovery(plan: Plan) -> Result<Duration> {
    let went = Instant::now();
    while run(Plan { connections: 8, seconds: 1, ..plan })?.refused > 0 {
        ensure!(went.elapsed() < RECOVERY_MAX, "it does not recover");
    }
    // the run that found it well took a second of its own
    Ok(went.elapsed().saturating_sub(Duration::from_secs(1)))
}

fn print(name: &str, outcome: &Outcome, seconds: u64) {
    let Outcome { offered_per_second, done_per_second, refused, p50_ms, p99_ms, refused_p99_ms } = outcome;
    println!(
        "| {name} | {offered_per_second:.0} | {done_per_second:.0} | {:.0} | {p50_ms:.1} ms | {p99_ms:.1} ms | {refused_p99_ms:.1} ms |",
        *refused as f64 / seconds as f64
    );
}

/// Makes a load from a process of its own, on the other core.
fn run(plan: Plan) -> Result<Outcome> {
    let plan = serde_json::to_string(&plan)?;
    let output = on_cores(CLIENT_CORE, &env::current_exe()?).args(["--load", &plan]).output()?;
    if !output.status.success() {
        bail!("the load: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the load said nothing")
}

/// Does something while the server's health is asked for again and again; gives the slowest answer too.
fn probed<T>(addr: SocketAddr, act: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let probes = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let (status, _) = request(addr, "GET", "/readyz", "", "")?;
                ensure!(status == 200, "a probe was answered with {status}");
                slowest = slowest.max(asked.elapsed());
                thread::sleep(Duration::from_millis(100));
            }
            Ok(slowest)
        });
        let acted = act();
        done.store(true, Ordering::Relaxed);
        let slowest = probes.join().map_err(|_| anyhow::anyhow!("the probes panicked"))??;
        Ok((acted?, slowest))
    })
}

/// Makes the load of a plan in this process, and prints what it got.
pub fn load(plan: &str) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (start, length) = (Tick::now(), Duration::from_secs(plan.seconds));
        let clients = (0..plan.connections).map(|number| client(plan, number, start, start + length));
        let times = try_join_all(clients).await?;
        anyhow::Ok(outcome(times, length))
    })?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn outcome(times: Vec<(Vec<Duration>, Vec<Duration>)>, took: Duration) -> Outcome {
    let (done, refused): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let sorted = |times: Vec<Vec<Duration>>| {
        let mut times: Vec<Duration> = times.into_iter().flatten().collect();
        times.sort();
        times
    };
    let (done, refused) = (sorted(done), sorted(refused));
    let at = |times: &[Duration], percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    Outcome {
        offered_per_second: (done.len() + refused.len()) as f64 / took.as_secs_f64(),
        done_per_second: done.len() as f64 / took.as_secs_f64(),
        refused: refused.len(),
        p50_ms: at(&done, 50),
        p99_ms: at(&done, 99),
        refused_p99_ms: at(&refused, 99),
    }
}

/// Creates users over one connection, at the times of the plan whatever the answers are. Gives the times of
/// what was done and refused before the end.
async fn client(plan: Plan, number: usize, start: Tick, end: Tick) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    let mut connection = Connection::open(plan.addr).await?;
    let interval = if plan.per_second > 0.0 {
        Duration::from_secs_f64(plan.connections as f64 / plan.per_second)
    } else {
        Duration::ZERO
    };
    // the connections take turns
    let mut due = start + interval.mul_f64(number as f64 / plan.connections as f64);
    loop {
        sleep_until(due).await;
        if Tick::now() >= end {
            return Ok((done, refused));
        }
        let body = format!("{{\"email\":\"{:x}@example.com\",\"name\":\"A\"}}", rand::random::<u128>());
        let sent = Tick::now();
        let status = connection.post("/api/v1/users", "application/json", body.as_bytes()).await?;
        if Tick::now() >= end {
            return Ok((done, refused));
        }
        match status {
            201 => done.push(sent.elapsed()),
            503 => refused.push(sent.elapsed()),
            other => bail!("an answer of {other}"),
        }
        due += interval;
    }
}
