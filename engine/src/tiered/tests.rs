//! The tiers of a pool against a model of a store: races step by step, then all at once.

mod leases;
mod races;
mod shared;
mod stress;
pub mod support;
mod times;
