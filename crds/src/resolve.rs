//! From resources to settings: pure, complete, and the only way.
//! What is wrong is reported all at once, each fault with the resource and the path of its field.

use std::fmt;

use crate::{pool::PoolSpec, service::ServiceSpec, settings::Settings, tier::TierSpec};

/// A resource's spec under its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<S> {
    /// `metadata.name`.
    pub name: String,
    /// `spec`.
    pub spec: S,
}

/// One thing that is wrong with the resources, caused and mendable by their author.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The resource: `FlyweightPool/products`.
    pub resource: String,
    /// The path of the field: `spec.tierRefs[0].name`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.resource, self.path, self.message)
    }
}

/// Resolves one service with the pools and tiers of its namespace. Pools and tiers that the service does not reach are left out.
///
/// # Errors
/// Every fault in what the service reaches, sorted by resource and path.
pub fn resolve(
    service: &Named<ServiceSpec>,
    pools: &[Named<PoolSpec>],
    tiers: &[Named<TierSpec>],
) -> Result<Settings, Vec<Fault>> {
    let _ = (service, pools, tiers);
    Err(Vec::new())
}
