//! The way down: stop being ready, go on serving while clients move away, finish what is under way, end.
//! Whatever is away then, it ends in time.

use std::{process::exit, thread, time::Duration};

use tokio::{signal::unix, sync::watch};
use tracing::{error, info};

use crate::supervisor;

/// What is left after the delay at least, of the time that a stop may take.
const AFTER_DELAY: Duration = Duration::from_secs(25);

/// How far the process is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Stopped,
}

/// Whether the process is on its way down, for whoever must know.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

impl Shutdown {
    /// Waits for SIGTERM or SIGINT in the background. From then on [`Self::draining`] holds; `drain_delay`
    /// later [`Self::stopped`] returns. A second signal skips the delay, and a background task that the
    /// process cannot do without needs none.
    ///
    /// `grace` after the signal the process ends, whatever still is under way: nothing that was acknowledged
    /// is in memory alone.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn on_signal(drain_delay: Duration, grace: Duration) -> std::io::Result<Self> {
        let mut terminate = unix::signal(unix::SignalKind::terminate())?;
        let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
        let (sender, phase) = watch::channel(Phase::Running);
        tokio::spawn(async move {
            let delay = tokio::select! {
                _ = terminate.recv() => drain_delay,
                _ = interrupt.recv() => drain_delay,
                _ = supervisor::ended() => Duration::ZERO,
            };
            info!(delay_ms = delay.as_millis() as u64, "told to stop: no longer ready, still serving");
            // whoever serves on for longer has the usual time from then
            end_after(grace.max(delay.saturating_add(AFTER_DELAY.min(grace))));
            sender.send_replace(Phase::Draining);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(Phase::Stopped);
        });
        Ok(Self(phase))
    }

    /// One that never comes.
    pub fn never() -> Self {
        Self(watch::channel(Phase::Running).1)
    }

    /// Whether new clients should go elsewhere.
    pub fn draining(&self) -> bool {
        *self.0.borrow() != Phase::Running
    }

    /// Returns when new clients should go elsewhere.
    pub async fn drain(&self) {
        _ = self.0.clone().wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Returns when no new connection is to be taken.
    pub async fn stopped(&self) {
        _ = self.0.clone().wait_for(|phase| *phase == Phase::Stopped).await;
    }
}

/// Ends the process after a time, from a thread of its own: those of the runtime may all wait for a server
/// that is away.
fn end_after(grace: Duration) {
    thread::spawn(move || {
        thread::sleep(grace);
        error!(
            grace_ms = grace.as_millis() as u64,
            "not stopped in time: the process ends in the middle of what is under way"
        );
        exit(1);
    });
}
