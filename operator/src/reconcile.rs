//! One reconcile, on one screen: observe, validate, rollout, apply, status.

use std::sync::Arc;

use crds::{pool::FlyweightPool, service::FlyweightService, tier::CacheTier};
use kube::{Resource, runtime::controller::Action};
use tracing::{Instrument, debug_span};

use crate::{
    apply,
    context::Context,
    deletion,
    model::error::Error,
    observe,
    pace::{IDLE, SETTLED, UNDER_WAY},
    publish, rollout, validate,
};

/// Makes the cluster as the service wants it, and says how far that is.
///
/// # Errors
/// When the API server refuses or fails; what the author of the resources caused is a condition instead.
pub async fn service(service: Arc<FlyweightService>, context: Arc<Context>) -> Result<Action, Error> {
    if service.meta().deletion_timestamp.is_some() {
        return deletion::finish(&service, &context).await;
    }
    if !deletion::is_guarded(&service) {
        return deletion::guard(&service, &context).await;
    }
    let observed = observe::observe(&service, &context).instrument(debug_span!("observe")).await;
    let verdict = debug_span!("validate").in_scope(|| validate::validate(&observed));
    let plan = debug_span!("rollout").in_scope(|| rollout::plan(&observed, &verdict));
    let applied = apply::apply(&plan, &observed, &context).instrument(debug_span!("apply")).await;
    let report =
        publish::service(&observed, &verdict, &plan, &applied, &context).instrument(debug_span!("status"));
    let settled = report.await?;
    let pause = match settled && !applied.again {
        true if observed.pods.is_empty() => IDLE,
        true => SETTLED,
        false => UNDER_WAY,
    };
    applied.outcome.map(|()| Action::requeue(pause))
}

/// Says whether the pool is served, and with which figures.
///
/// # Errors
/// When the API server refuses or fails.
pub async fn pool(pool: Arc<FlyweightPool>, context: Arc<Context>) -> Result<Action, Error> {
    publish::pool(&pool, &context).await
}

/// Says whether the tier is used, and with which figures.
///
/// # Errors
/// When the API server refuses or fails.
pub async fn tier(tier: Arc<CacheTier>, context: Arc<Context>) -> Result<Action, Error> {
    publish::tier(&tier, &context).await
}
