//! The way down: stop being ready, go on serving while clients move away, finish what is under way, end.

use std::time::Duration;

use tokio::{signal::unix, sync::watch};
use tracing::info;

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
    /// Waits for SIGTERM or SIGINT in the background. From then on [`Self::draining`] holds; `drain_delay` later [`Self::stopped`] returns.
    /// A second signal skips the delay.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn on_signal(drain_delay: Duration) -> std::io::Result<Self> {
        let mut terminate = unix::signal(unix::SignalKind::terminate())?;
        let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
        let (sender, phase) = watch::channel(Phase::Running);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            info!(delay_ms = drain_delay.as_millis() as u64, "told to stop: no longer ready, still serving");
            sender.send_replace(Phase::Draining);
            tokio::select! {
                () = tokio::time::sleep(drain_delay) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            sender.send_replace(Phase::Stopped);
        });
        Ok(Self(phase))
    }

    /// One that never comes.
    #[cfg(test)]
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
