//! Asks for reconciles.

use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::Sender;

/// Asks for reconciles.
#[derive(Clone)]
pub struct Wake {
    /// Services to look at.
    pub services: Sender<ObjectRef<FlyweightService>>,
    /// Pools to look at.
    pub pools: Sender<ObjectRef<FlyweightPool>>,
    /// Tiers to look at.
    pub tiers: Sender<ObjectRef<CacheTier>>,
}

/// What to look at after a change.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// A service, its children and its status.
    Service(ObjectRef<FlyweightService>),
    /// A pool's status.
    Pool(ObjectRef<FlyweightPool>),
    /// A tier's status.
    Tier(ObjectRef<CacheTier>),
}

impl Wake {
    /// Asks for one reconcile. Requests for the same object while one waits are one.
    pub async fn send(&self, request: Request) {
        // The receivers end with the process' term of office, and the requests with them.
        let _ = match request {
            Request::Service(service) => self.services.send(service).await.map_err(drop),
            Request::Pool(pool) => self.pools.send(pool).await.map_err(drop),
            Request::Tier(tier) => self.tiers.send(tier).await.map_err(drop),
        };
    }
}
