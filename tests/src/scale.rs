//! How much a suite does: minutes by default, more with `make soak` (`FLYWEIGHT_SOAK=1`).

/// The first number by default, the second one in a soak.
pub fn of(short: usize, soak: usize) -> usize {
    if is_soak() { soak } else { short }
}

/// Whether this is a soak.
pub fn is_soak() -> bool {
    std::env::var_os("FLYWEIGHT_SOAK").is_some_and(|value| value != "0")
}
