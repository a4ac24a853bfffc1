//! The admin port has threads of its own, so that nothing that callers send keeps probes from being answered.
//! A probe of life still says whether the threads that serve turn.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio::{net::TcpListener, runtime::Builder};
use tower::Service;

use super::serve;
use runtime::supervisor;

/// Threads of the admin port: one that gathers metrics keeps no probe waiting.
const THREADS: usize = 2;
/// How often the threads that serve show that they turn.
const BEAT: Duration = Duration::from_millis(500);
/// How long they may not, before the process is said not to live: no burst takes that long.
const STILL_MAX: Duration = Duration::from_secs(30);

/// Shows that the runtime in which it was started turns.
#[derive(Clone)]
pub struct Pulse {
    started: Instant,
    /// When it beat last, in ms after the start.
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Begins to beat in this runtime, until it ends.
    pub fn start() -> Self {
        let pulse = Self { started: Instant::now(), last_ms: Arc::default() };
        let beating = pulse.clone();
        supervisor::PULSE.spawn(move || beating.clone().beat());
        pulse
    }

    async fn beat(self) {
        loop {
            self.last_ms.store(self.now_ms(), Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Whether it beat lately.
    pub fn beats(&self) -> bool {
        self.has_beaten_within(STILL_MAX)
    }

    /// The answer to a probe of life.
    pub fn answer(&self) -> Response {
        match self.beats() {
            true => "ok".into_response(),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the threads that serve stand still").into_response(),
        }
    }

    fn has_beaten_within(&self, time: Duration) -> bool {
        let silent_ms = self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed));
        Duration::from_millis(silent_ms) < time
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Serves on threads of its own, for as long as the process runs.
///
/// # Errors
/// There are no more threads.
pub fn serve_apart<S>(listener: TcpListener, service: S) -> io::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let listener = listener.into_std()?;
    let runtime =
        Builder::new_multi_thread().worker_threads(THREADS).thread_name("admin").enable_all().build()?;
    let serving = async move {
        match TcpListener::from_std(listener) {
            Ok(listener) => serve(listener, None, service, std::future::pending()).await,
            Err(error) => tracing::error!(%error, "the admin port cannot be served"),
        }
    };
    let run = move || supervisor::ADMIN.run(|| runtime.block_on(serving));
    thread::Builder::new().name("admin".to_owned()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn it_answers_while_the_threads_that_serve_are_held_and_says_so() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (pulse, address) = runtime.block_on(async {
            let (listener, pulse) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Pulse::start());
            let (address, seen) = (listener.local_addr().unwrap(), pulse.clone());
            let answer = async move || if seen.has_beaten_within(BEAT * 2) { "beats" } else { "stands" };
            serve_apart(listener, Router::new().route("/", get(answer))).unwrap();
            tokio::task::yield_now().await;
            (pulse, address)
        });
        // nothing of the first runtime runs any more
        let ask = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let other = Builder::new_current_thread().enable_all().build().unwrap();
        assert!(pulse.beats());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !other.block_on(ask()).ends_with("stands") {
            assert!(Instant::now() < deadline, "it is still said to turn");
        }
        drop(runtime);
    }
}
