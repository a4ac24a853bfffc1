//! Suites over the data plane as users run it: a process, its ports, and embedded or real stores behind it.

#![expect(clippy::unwrap_used, reason = "a suite ends where it fails")]

mod bad_input;
mod check;
mod contract;
mod durability;
mod faults;
mod gateway;
mod observability;
mod stage;
mod staleness;
mod startup;
