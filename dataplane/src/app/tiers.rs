//! What a service's settings say of its tiers, as the engine takes it.

use crds::{
    settings::{TierKind, TierSettings},
    tier,
};
use engine::{
    memory::Policy,
    tiered::{TierConfig, TierPlace, WriteStrategy},
};

/// One tier.
pub fn tier_config(settings: &TierSettings) -> TierConfig {
    let TierSettings { name, kind, ttl, jitter, negative_ttl, stale_while_revalidate, stale_if_error, write } =
        settings;
    TierConfig {
        name: name.clone(),
        place: match kind {
            TierKind::Memory { .. } => TierPlace::Memory,
            TierKind::Redis { key_prefix, .. } => TierPlace::Shared { key_prefix: key_prefix.clone() },
        },
        ttl: ttl.0,
        jitter_percent: *jitter,
        negative_ttl: negative_ttl.0,
        stale_while_revalidate: stale_while_revalidate.0,
        stale_if_error: stale_if_error.0,
        // write-behind puts the new state where readers see it, as write-through does; its log is not the
        // tier's
        write: match write {
            tier::WriteStrategy::CacheAside => WriteStrategy::CacheAside,
            tier::WriteStrategy::WriteThrough | tier::WriteStrategy::WriteBehind => {
                WriteStrategy::WriteThrough
            }
        },
    }
}

/// Which entry leaves a full tier.
pub fn policy(policy: tier::Policy) -> Policy {
    match policy {
        tier::Policy::Lru => Policy::Lru,
        tier::Policy::Lfu => Policy::Lfu,
        tier::Policy::Fifo => Policy::Fifo,
        tier::Policy::S3Fifo => Policy::S3Fifo,
        tier::Policy::Sieve => Policy::Sieve,
    }
}
