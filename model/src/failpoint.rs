//! Named points at which a test lets the process die, as if it were killed:
//! `FLYWEIGHT_CRASH_AT=relay.published`, or `relay.published:3` for the third time, or
//! `mysql.relay.published:3` for the third time of one part among several that pass it. `FLYWEIGHT_PANIC_AT`
//! lets the task panic that passes. Only in debug builds: a release has none of it.

/// Dies or panics here where the environment says so. `part` is who passes: a backend, or a kind of store.
///
/// # Panics
/// The environment says so.
#[cfg(debug_assertions)]
pub fn reach(part: &str, point: &str) {
    use std::sync::OnceLock;

    static CRASH: OnceLock<Option<Plan>> = OnceLock::new();
    static PANIC: OnceLock<Option<Plan>> = OnceLock::new();
    let is_due = |plan: &'static OnceLock<Option<Plan>>, variable| {
        plan.get_or_init(|| Plan::of(variable)).as_ref().is_some_and(|plan| plan.is_due(part, point))
    };
    if is_due(&CRASH, "FLYWEIGHT_CRASH_AT") {
        std::process::abort();
    }
    assert!(!is_due(&PANIC, "FLYWEIGHT_PANIC_AT"), "a test lets {part}.{point} panic");
}

/// Where something is to happen, and after how many times more.
#[cfg(debug_assertions)]
struct Plan {
    point: String,
    left: std::sync::atomic::AtomicI64,
}

#[cfg(debug_assertions)]
impl Plan {
    fn of(variable: &str) -> Option<Self> {
        let text = std::env::var(variable).ok()?;
        let (point, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Self { point: point.to_owned(), left: times.parse().unwrap_or(1).into() })
    }

    fn is_due(&self, part: &str, point: &str) -> bool {
        let is_here = self.point == point
            || self.point.strip_prefix(part).and_then(|rest| rest.strip_prefix('.')) == Some(point);
        is_here && self.left.fetch_sub(1, std::sync::atomic::Ordering::AcqRel) == 1
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_part: &str, _point: &str) {}
