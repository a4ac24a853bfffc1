//! Which pool a path is about, and which pods are asked for it.

use std::sync::Arc;

use crds::{pool::Entity, settings::Settings};

use super::registry::{Registry, Upstream};

/// The healthy pods, or else the suspect ones, that serve the pool that the path names. What names no pool goes to those that serve all, or to any where
/// the service has shared its pools out.
pub fn candidates(registry: &Registry, settings: &Settings, path: &str) -> Vec<Arc<Upstream>> {
    let all = registry.all();
    let those = |serves: &dyn Fn(&Upstream) -> bool| {
        let fit = |fit: fn(&Upstream) -> bool| -> Vec<Arc<Upstream>> {
            all.iter().filter(|upstream| fit(upstream) && serves(upstream)).cloned().collect()
        };
        let healthy = fit(Upstream::is_healthy);
        if healthy.is_empty() { fit(Upstream::is_suspect) } else { healthy }
    };
    if let Some(pool) = pool_of(settings, path) {
        return those(&|upstream| upstream.serves(&pool, settings));
    }
    let whole = those(&|upstream| settings.pools.iter().all(|pool| upstream.serves(&pool.name, settings)));
    let mut wholes = settings.groups.iter().filter(|group| group.pools.len() == settings.pools.len()).peekable();
    if !whole.is_empty() || settings.groups.is_empty() {
        return whole;
    }
    match wholes.peek() {
        // until its pods are those of these settings, the former ones serve all that there was
        Some(_) => those(&|upstream| wholes.clone().any(|group| group.name == upstream.group)),
        None => those(&|_| true),
    }
}

/// The pool that a path names: `/api/v1/products/1`, `/api/v1/pools/stores/1`. Events that are sent are of products. What names no pool that there is, is
/// for a pod to refuse.
fn pool_of(settings: &Settings, path: &str) -> Option<String> {
    let mut segments = path.strip_prefix("/api/v1/")?.split('/');
    let (first, second, third) = (segments.next()?, segments.next(), segments.next());
    let entity = match (first, second, third) {
        ("events", None, None) => Entity::Product,
        ("users", Some(_), Some("payments")) => Entity::Payment,
        ("pipeline", None, None) => Entity::Order,
        ("pools", Some(name), _) => {
            return settings.pools.iter().find(|pool| pool.name == name).map(|pool| pool.name.clone());
        }
        _ => entity_of(first)?,
    };
    settings.pools.iter().find(|pool| pool.entity == entity).map(|pool| pool.name.clone())
}

/// The entity whose records have this path.
fn entity_of(collection: &str) -> Option<Entity> {
    Some(match collection {
        "users" => Entity::User,
        "payments" => Entity::Payment,
        "orders" => Entity::Order,
        "products" => Entity::Product,
        "notifications" => Entity::NotificationTemplate,
        "configurations" => Entity::Configuration,
        _ => return None,
    })
}
