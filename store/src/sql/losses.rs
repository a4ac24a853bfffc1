//! When connections were lost.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// When a connection was last lost: those that were idle since before then are asked whether they still live.
#[derive(Clone, Default)]
pub struct Losses(Arc<Mutex<Option<Instant>>>);

impl Losses {
    /// Notes that one was lost just now.
    pub fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether one was lost at or after this time.
    pub fn any_since(&self, at: Instant) -> bool {
        self.0.lock().is_some_and(|lost| lost >= at)
    }

    /// Whether one was lost within this time before now.
    pub fn any_within(&self, time: Duration) -> bool {
        self.0.lock().is_some_and(|lost| lost.elapsed() <= time)
    }
}
