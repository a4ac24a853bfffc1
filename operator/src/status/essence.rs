//! What of a status is told at once, and what may wait.

use crds::status::{PoolStatus, ServiceStatus, TierStatus};
use serde::Serialize;

/// A status, and what of it may wait.
pub trait Status: Clone + PartialEq + Serialize {
    /// The same without figures.
    fn essence(&self) -> Self;
}

impl Status for ServiceStatus {
    fn essence(&self) -> Self {
        Self { pools: Vec::new(), ..self.clone() }
    }
}

impl Status for PoolStatus {
    fn essence(&self) -> Self {
        Self {
            conditions: self.conditions.clone(),
            observed_generation: self.observed_generation,
            ..Self::default()
        }
    }
}

impl Status for TierStatus {
    fn essence(&self) -> Self {
        Self { entries: None, hit_ratio: None, ..self.clone() }
    }
}
