//! What one service says about its pools and tiers, for the statuses of those.

use std::{collections::BTreeMap, sync::Arc};

use crds::{fault::Fault, settings::Settings};

use super::report::PodReport;

/// What one service knows of its pools.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// The service's name.
    pub service: String,
    /// Whether requests find a pod.
    pub available: bool,
    /// The reason why the service is not ready; empty when it is.
    pub trouble: String,
    /// Whether every pod runs by the resources as they are.
    pub applied: bool,
    /// Which generation of its pools and tiers it has seen, by kind and name.
    pub seen: BTreeMap<String, i64>,
    /// What is wrong with its resources.
    pub faults: Vec<Fault>,
    /// What its pods run by.
    pub settings: Option<Arc<Settings>>,
    /// What its pods say.
    pub reports: Vec<PodReport>,
}
