//! What every reconcile of one namespace (or of all) shares.

use std::sync::Arc;

use kube::Client;

use crate::{
    caches::Caches, events::Events, memory::Memory, metrics::Metrics, poller::Poller, updates::StatusUpdates,
    wake::Wake, writer::Writer,
};

/// What every reconcile shares.
pub struct Context {
    /// The connection to the API server, for reads.
    pub client: Client,
    /// The gate that every write passes.
    pub writer: Writer,
    /// What is known of the cluster.
    pub caches: Arc<Caches>,
    /// Asks for further reconciles.
    pub wake: Wake,
    /// What was done before.
    pub memory: Memory,
    /// What each service says about its pools.
    pub updates: StatusUpdates,
    /// Asks data plane pods.
    pub poller: Poller,
    /// Events for `kubectl describe`.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Metrics,
}
