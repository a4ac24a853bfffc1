//! Ids of events: UUIDs of version 7 that ascend in the order of their making, in one process. Only where the
//! clock is set back do they begin again.
//!
//! The `uuid` crate asks the kernel for random bits, a system call for each id; an event of price and stock
//! costs little more than that.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Builder, Uuid};

use super::value::Timestamp;

/// The time and count of the newest id: milliseconds, then `COUNT_BITS`.
static NEWEST: AtomicU64 = AtomicU64::new(0);
/// Ids of one millisecond are counted in so many bits. More of them borrow from the next millisecond.
const COUNT_BITS: u32 = 12;

/// By how much ids may be ahead of the clock, in ms: more is a clock that was wrong and is right now. Ids
/// tell its time, not that of the error.
const AHEAD_MS_MAX: u64 = 10_000;

/// A new id, greater than all before it, unless the clock was set back by more than 10 s.
pub fn next() -> Uuid {
    let now = Timestamp::now().0.unsigned_abs();
    let newest = NEWEST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| Some(after(newest, now)));
    let ticks = after(newest.unwrap_or_else(|newest| newest), now);
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(ticks as u16).to_be_bytes());
    bytes[2..].copy_from_slice(&rand::random::<[u8; 8]>());
    // the builder puts version and variant over the bits that are theirs
    Builder::from_unix_timestamp_millis(ticks >> COUNT_BITS, &bytes).into_uuid()
}

/// The time and count of the id after another, at a time in ms.
fn after(newest: u64, now_ms: u64) -> u64 {
    let now = now_ms << COUNT_BITS;
    let is_corrected = newest >> COUNT_BITS > now_ms.saturating_add(AHEAD_MS_MAX);
    if is_corrected { now } else { now.max(newest + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_followed_and_one_that_jitters_is_not() {
        let now_ms: u64 = 1_790_000_000_000;
        let at = |ms: u64| ms << COUNT_BITS;
        assert_eq!(after(at(now_ms) + 5, now_ms - 9_000), at(now_ms) + 6);
        let days = 8 * 24 * 3_600_000;
        assert_eq!(after(at(now_ms + days) + 5, now_ms), at(now_ms), "it was 8 days ahead");
        assert_eq!(after(at(now_ms), now_ms + days), at(now_ms + days));
    }

    #[test]
    fn ids_ascend_also_within_a_millisecond_and_tell_their_time() {
        let before = Timestamp::now().0.unsigned_abs();
        let ids: Vec<Uuid> = (0..20_000).map(|_| next()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        let (seconds, nanos) = ids[0].get_timestamp().unwrap().to_unix();
        assert!((before..before + 5_000).contains(&(seconds * 1_000 + u64::from(nanos) / 1_000_000)));
        assert_eq!(ids[0].get_version_num(), 7);
    }
}
