//! The time that caches go by: milliseconds since 1970, never backwards within a process.
//!
//! It is for what one process stamps and compares. What leaves the process is changed to the clock of whoever
//! keeps it (`redis::link::Epoch`), so that a clock that was wrong at the start, or was corrected since, is
//! nobody else's concern.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use model::value::Timestamp;

/// Tells the time. The system's clock is asked once, so that its corrections make no entry live longer.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant, start_ms: u64 },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The time that passes by itself.
    pub fn system() -> Self {
        Self(Source::System { start: Instant::now(), start_ms: Timestamp::now().0.max(0) as u64 })
    }

    /// A time that stands still but for what a test adds to it.
    pub fn manual() -> (Self, Arc<AtomicU64>) {
        let ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        (Self(Source::Manual(ms.clone())), ms)
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            Source::System { start, start_ms } => start_ms + start.elapsed().as_millis() as u64,
            Source::Manual(ms) => ms.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}
