//! What a cache tier must be, alone and in a pool.

use super::{
    Named, Report,
    backend::{Backends, Wanted},
};
use crate::{
    settings::{TierKind, TierSettings, names::BY_OWNER},
    tier::TierSpec,
    units::{Bytes, Span},
};

const MEMORY_BYTES_MIN: Bytes = Bytes(1 << 20);
const JITTER_PERCENT_MAX: u32 = 50;

/// The settings of one tier, or its faults.
pub(super) fn settings(
    tier: &Named<TierSpec>,
    backends: &Backends,
    report: &mut Report<'_>,
) -> Option<TierSettings> {
    let TierSpec { memory, redis, ttl, jitter, negative_ttl, stale_while_revalidate, stale_if_error, write } =
        &tier.spec;
    report.ensure(*ttl > Span::default(), "spec.ttl", "must be more than 0s");
    report.ensure(
        *jitter <= JITTER_PERCENT_MAX,
        "spec.jitter",
        format!("must be at most {JITTER_PERCENT_MAX} percent"),
    );
    let kind = match (memory, redis) {
        (Some(memory), None) => {
            let enough = memory.max_bytes >= MEMORY_BYTES_MIN;
            report.ensure(enough, "spec.memory.maxBytes", format!("must be at least {MEMORY_BYTES_MIN}"));
            Some(TierKind::Memory { max_bytes: memory.max_bytes, policy: memory.policy })
        }
        (None, Some(redis)) => match backends.find(&redis.backend_ref.name, Wanted::Redis) {
            Ok(backend) => {
                let key_prefix = redis.key_prefix.clone().unwrap_or_else(|| BY_OWNER.to_owned());
                Some(TierKind::Redis { backend: backend.to_owned(), key_prefix })
            }
            Err(message) => {
                report.add("spec.redis.backendRef.name", message);
                None
            }
        },
        _ => {
            report.add("spec", "name exactly one of memory and redis");
            None
        }
    };
    Some(TierSettings {
        name: tier.name.clone(),
        kind: kind?,
        ttl: *ttl,
        jitter: *jitter,
        negative_ttl: *negative_ttl,
        stale_while_revalidate: *stale_while_revalidate,
        stale_if_error: *stale_if_error,
        write: *write,
    })
}
