//! A pool as the API serves it.

use std::sync::Arc;

use crds::pool::Entity;
use model::routes;

use super::resource::Resource;

/// One served pool.
#[derive(Clone)]
pub struct Pool {
    /// Its entity.
    pub entity: Entity,
    /// Its records.
    pub resource: Arc<Resource>,
    /// Where they are.
    pub source: Source,
}

/// Where the records of a pool are.
#[derive(Clone, Debug)]
pub struct Source {
    /// The type of the repository: `mysql` or `mongodb`.
    pub kind: &'static str,
    /// The name of the backend.
    pub backend: String,
}

/// The path of a pool's collection.
pub fn path_of(entity: Entity, pool: &str) -> String {
    routes::home_of(entity).replace("{pool}", pool)
}

/// Whether PUT creates a record that is not there.
pub fn upserts(entity: Entity) -> bool {
    entity.definition().upserts
}
