//! The status of a pool: whether it is served, by whom, and its figures over all its services. Pure.

use std::sync::Arc;

use crds::{
    conditions::{ConditionType, Reason},
    pool::FlyweightPool,
    settings::PoolSettings,
    status::PoolStatus,
};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::{
    conditions::{Draft, Holds, settle},
    figures::{self, PoolSum},
    readiness::{Acknowledgement, is_late, ready},
    update::label,
};
use crate::model::{report::UnavailableReport, update::StatusUpdate};

/// The status of the pool, from what the services say that serve it.
pub fn status(
    pool: &FlyweightPool,
    updates: &[Arc<StatusUpdate>],
    former: &PoolStatus,
    now: Timestamp,
) -> PoolStatus {
    let name = pool.name_any();
    let resource = label(pool);
    let find =
        |update: &StatusUpdate| update.settings.as_ref()?.pools.iter().find(|one| one.name == name).cloned();
    let needed = Acknowledgement::of(pool, former.observed_generation, &former.conditions);
    let is_late = is_late(&resource, pool.meta().generation);
    let mut ready = ready(&resource, updates, (needed, is_late), |update| {
        find(update).map(|pool| vec![pool.source.backend])
    });
    let reports = updates.iter().flat_map(|update| &update.reports).flat_map(|report| &report.pools);
    let unavailable =
        reports.filter(|pool| pool.name == name).filter_map(|pool| pool.unavailable.as_ref()).min();
    if let Some(UnavailableReport { reason, message }) = unavailable.filter(|_| ready.holds == Holds::Yes) {
        ready = Draft::reported(ConditionType::Ready, Holds::No, reason, message.clone());
    }
    let is_read_only = |pool: PoolSettings| pool.source.version.is_none();
    if ready.holds == Holds::Yes && updates.iter().any(|update| find(update).is_some_and(is_read_only)) {
        ready.message.push_str("; read-only: its source declares no version column");
    }
    let sum = figures::pool(updates.iter().flat_map(|update| &update.reports), &name);
    let conditions = std::iter::once(ready).chain(sum.as_ref().and_then(unreadable)).collect();
    PoolStatus {
        conditions: settle(conditions, &former.conditions, pool.meta().generation, now),
        observed_generation: pool.meta().generation,
        entities: sum.as_ref().map(|sum| figures::count(sum.entities)),
        distinct: sum.as_ref().map(|sum| figures::count(sum.distinct)),
        bytes: sum.as_ref().map(|sum| figures::bytes(sum.bytes)),
        bytes_saved: sum.as_ref().map(|sum| figures::bytes(sum.bytes_saved)),
        hit_ratio: sum.as_ref().and_then(|sum| figures::ratio(sum.hits, sum.misses)),
        tiers: sum.as_ref().map(PoolSum::shares).unwrap_or_default(),
        backlog: sum.as_ref().and_then(|sum| sum.backlog.map(figures::count)),
        staleness: sum.as_ref().and_then(PoolSum::staleness),
    }
}

/// Says that stored records cannot be read, and names one; nothing where no pod knows of any.
fn unreadable(sum: &PoolSum) -> Option<Draft> {
    let count = (sum.unreadable > 0).then_some(sum.unreadable)?;
    let example = sum.unreadable_example.as_ref().map_or(String::new(), |one| {
        format!(", such as {} of {:?}", one.field, one.key.as_deref().unwrap_or("a record without a key"))
    });
    let message = format!(
        "{count} stored records hold what has no exact meaning in their fields{example}: \
         lists name them, and replacing or deleting one mends it"
    );
    Some(Draft::new(ConditionType::UnreadableRecords, Holds::Yes, Reason::NoExactMeaning, message))
}
