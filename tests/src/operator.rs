//! Proof of the operator: it is killed, misled and refused by its API server, and must end where it would
//! have ended anyway.
//!
//! A control plane without nodes is enough: what is looked at are the objects. `tests/operator.sh` brings one
//! up.

pub mod account;
pub mod api;
pub mod certificates;
pub mod crash;
pub mod drift;
pub mod faults;
pub mod fields;
pub mod lease;
pub mod lost;
pub mod migrations;
pub mod plugin;
pub mod process;
pub mod proxy;
pub mod rights;
pub mod scale;
pub mod scenario;
pub mod shop;
pub mod steady;
pub mod transitions;
pub mod worker;

use self::api::Api;

/// How thorough a run is, and where.
#[derive(Clone)]
pub struct Proof {
    /// The API server.
    pub api: Api,
    /// What random choices come from.
    pub seed: u64,
    /// Whether to try everything rather than a sample.
    pub soak: bool,
}

impl Proof {
    /// Prints what begins.
    pub fn step(&self, title: &str) {
        println!("\n\x1b[1m== {title}\x1b[0m");
    }

    /// Prints what was shown to hold.
    pub fn holds(&self, what: &str) {
        println!("   \x1b[32mok\x1b[0m {what}");
    }
}
