//! The fifth step, its first half: how things are. Pure; `publish` writes it.

pub mod conditions;
pub mod essence;
pub mod facts;
pub mod figures;
pub mod pool;
pub mod readiness;
pub mod service;
#[cfg(test)]
mod tests;
pub mod tier;
pub mod update;
