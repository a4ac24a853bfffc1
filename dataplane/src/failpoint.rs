//! Named points at which a test lets the process die, as if it were killed: `FLYWEIGHT_CRASH_AT=relay.published`, or `relay.published:3` for the
//! third time, or `mysql.relay.published:3` for the third time of one part among several that pass it. Only in debug builds: a release has none of it.

/// Dies here where the environment says so. `part` is who passes: a backend, or a kind of store.
#[cfg(debug_assertions)]
pub fn reach(part: &str, point: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    };

    static PLAN: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let text = std::env::var("FLYWEIGHT_CRASH_AT").ok()?;
        let (point, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), AtomicI64::new(times.parse().unwrap_or(1))))
    });
    let is_here = |planned: &str| {
        planned == point || planned.strip_prefix(part).and_then(|rest| rest.strip_prefix('.')) == Some(point)
    };
    if let Some((planned, left)) = plan
        && is_here(planned)
        && left.fetch_sub(1, Ordering::AcqRel) == 1
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_part: &str, _point: &str) {}
