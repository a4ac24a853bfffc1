//! Whether a store has room for what is written: known by its refusals, until a write goes through or they
//! are long ago.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::StoreError;

/// How long a refusal says that there is no room: whoever writes nothing finds out again.
const KEPT: Duration = Duration::from_secs(30);

/// Whether a store has room.
#[derive(Default)]
pub struct Room(Mutex<Option<(Instant, String)>>);

impl Room {
    /// Notes how a write ended.
    pub fn note<T>(&self, outcome: &Result<T, StoreError>) {
        match outcome {
            Err(StoreError::Full(why)) => {
                let news = self.0.lock().replace((Instant::now(), why.clone())).is_none();
                if news {
                    tracing::warn!(why, "a store has no room left: writes are refused, reads go on");
                }
            }
            Ok(_) => *self.0.lock() = None,
            Err(_) => (),
        }
    }

    /// Why there is no room; none where there is, as far as is known.
    pub fn full(&self) -> Option<String> {
        self.full_at(Instant::now())
    }

    fn full_at(&self, now: Instant) -> Option<String> {
        let noted = self.0.lock();
        noted.as_ref().filter(|(at, _)| now.duration_since(*at) < KEPT).map(|(_, why)| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_until_a_write_goes_through_or_the_refusal_is_long_ago() {
        let room = Room::default();
        let full = || Err::<(), _>(StoreError::Full("the disk is full".to_owned()));
        assert_eq!(room.full(), None);
        room.note(&full());
        room.note(&Err::<(), _>(StoreError::NotFound));
        assert_eq!(room.full().as_deref(), Some("the disk is full"), "another refusal says nothing of it");
        room.note(&Ok(()));
        assert_eq!(room.full(), None);
        room.note(&full());
        assert_eq!(room.full_at(Instant::now() + KEPT), None);
    }
}
