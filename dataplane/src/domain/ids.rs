//! Ids of events: UUIDs of version 7 that ascend in the order of their making, in one process.
//!
//! The `uuid` crate asks the kernel for random bits, a system call for each id; an event of price and stock costs little more than that.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Builder, Uuid};

use super::value::Timestamp;

/// The time and count of the newest id: milliseconds, then `COUNT_BITS`.
static NEWEST: AtomicU64 = AtomicU64::new(0);
/// Ids of one millisecond are counted in so many bits. More of them borrow from the next millisecond.
const COUNT_BITS: u32 = 12;

/// A new id, greater than all before it.
pub fn next() -> Uuid {
    let now = Timestamp::now().0.unsigned_abs() << COUNT_BITS;
    let after = |newest: u64| now.max(newest + 1);
    let newest = NEWEST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| Some(after(newest)));
    let ticks = after(newest.unwrap_or_else(|newest| newest));
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(ticks as u16).to_be_bytes());
    bytes[2..].copy_from_slice(&rand::random::<[u8; 8]>());
    // the builder puts version and variant over the bits that are theirs
    Builder::from_unix_timestamp_millis(ticks >> COUNT_BITS, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

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
