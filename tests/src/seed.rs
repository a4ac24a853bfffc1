//! The seed of a suite's random choices: printed, so that they can be made again by `FLYWEIGHT_SEED`.

use rand::{SeedableRng, rngs::StdRng};

/// The seed of a suite: `FLYWEIGHT_SEED`, or another one each time.
///
/// # Panics
/// The variable is set and no whole number.
pub fn of(suite: &str) -> u32 {
    let seed = match std::env::var("FLYWEIGHT_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("FLYWEIGHT_SEED={text}: {error}")),
        Err(_) => rand::random(),
    };
    eprintln!("{suite}: FLYWEIGHT_SEED={seed}");
    seed
}

/// The random choices of a seed.
pub fn choices(seed: u32) -> StdRng {
    StdRng::seed_from_u64(seed.into())
}
