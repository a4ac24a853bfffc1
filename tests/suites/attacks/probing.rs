//! Asks a process whether it lives, as a kubelet does, and says how long the answers took.

use std::{
    fmt::{self, Display},
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use harness::dataplane::DataPlane;

use super::{LIVEZ_P99_MAX, address};

/// The pause between two probes.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one may take before it counts as lost.
const LOST: Duration = Duration::from_secs(5);
/// Fewer say little about the slowest of them.
const PROBES_MIN: usize = 60;

/// Probes that go on until they are ended, on a thread of their own: what the test itself does keeps none of
/// them waiting.
pub struct Probing {
    what: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

/// How long things took.
pub struct Times(Vec<Duration>);

impl Probing {
    /// Begins to ask for `/livez` on the admin port.
    pub fn start(what: &str, process: &DataPlane) -> Self {
        let (address, stop) = (address(&process.admin).to_owned(), Arc::<AtomicBool>::default());
        let (stopped, name) = (stop.clone(), what.to_owned());
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = probe(&address).unwrap_or_else(|error| panic!("{name}: /livez: {error}"));
                times.push(begun.elapsed());
                assert!(answer.starts_with("HTTP/1.1 200"), "{name}: /livez: {answer}");
                std::thread::sleep(PAUSE);
            }
            times
        });
        Self { what: what.to_owned(), stop, thread }
    }

    /// Ends, says the times and holds them against the bound.
    ///
    /// # Panics
    /// A probe was lost or not answered with 200, too few were made, or more than one in a hundred took too
    /// long.
    pub fn end(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let times =
            self.thread.join().unwrap_or_else(|_| panic!("{during}: a probe of the {} failed", self.what));
        let times = Times::of(times);
        eprintln!("{during}: /livez of the {}: {times}", self.what);
        assert!(times.count() >= PROBES_MIN, "{during}: only {} probes", times.count());
        assert!(times.p99() < LIVEZ_P99_MAX, "{during}: /livez of the {}: {times}", self.what);
    }
}

/// One probe, on a connection of its own.
fn probe(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LOST))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

impl Times {
    /// These times.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All but one in a hundred took less.
    pub fn p99(&self) -> Duration {
        self.part(99)
    }

    fn part(&self, percent: usize) -> Duration {
        self.0
            .get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

impl Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, most) = (self.part(50), self.p99(), self.part(100));
        write!(out, "{} answers, p50 {p50:.1?}, p99 {p99:.1?}, longest {most:.1?}", self.count())
    }
}
