//! `CacheTier`: how entries are cached, in memory or in Redis.

use serde::{Deserialize, Serialize};

use crate::{
    pool::Ref,
    units::{Bytes, Span},
};

/// One cache tier: exactly one of `memory` and `redis`, and how long entries live in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(kube::CustomResource, schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "flyweight.dev",
        version = "v1alpha1",
        kind = "CacheTier",
        plural = "cachetiers",
        shortname = "ctier",
        category = "flyweight",
        namespaced,
        derive = "PartialEq",
        status = "crate::status::TierStatus",
        doc = "How entries are cached: in memory or in Redis, for how long, and how writes pass through.",
        printcolumn(name = "Kind", type_ = "string", json_path = ".status.kind"),
        printcolumn(name = "TTL", type_ = "string", json_path = ".spec.ttl"),
        printcolumn(name = "Write", type_ = "string", json_path = ".spec.write"),
        printcolumn(
            name = "Ready",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].status"
        ),
        printcolumn(
            name = "Reason",
            type_ = "string",
            json_path = ".status.conditions[?(@.type=='Ready')].reason"
        ),
        printcolumn(name = "Entries", type_ = "integer", json_path = ".status.entries"),
        printcolumn(name = "Hit ratio", type_ = "string", json_path = ".status.hitRatio"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    )
)]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "has(self.memory) != has(self.redis)", "message": "name exactly one of memory and redis" },
        { "rule": "has(self.memory) == has(oldSelf.memory)", "message": "a tier does not change between memory and redis: create another tier" },
    ]))
)]
pub struct TierSpec {
    /// Keeps entries in the memory of each pod. Fixed (a tier does not change its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryTier>,
    /// Keeps entries in a Redis that the pods share. Fixed (a tier does not change its kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisTier>,
    /// How long an entry may be served. Hot.
    #[serde(default = "default_ttl")]
    pub ttl: Span,
    /// By how many percent an entry's time to live is shortened at random, so that entries do not expire
    /// together. Hot.
    #[serde(default = "default_jitter")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 50)))]
    pub jitter: u32,
    /// How long the answer "there is no such record" may be served; 0s turns it off. Hot.
    #[serde(default = "default_negative_ttl")]
    pub negative_ttl: Span,
    /// How long after its time to live an entry may still be served while a fresh one is loaded. Hot.
    #[serde(default)]
    pub stale_while_revalidate: Span,
    /// How long after its time to live an entry may still be served, marked as stale, while the store fails.
    /// Hot.
    #[serde(default)]
    pub stale_if_error: Span,
    /// What a write does to this tier. Rolling.
    #[serde(default)]
    pub write: WriteStrategy,
}

/// A tier in the memory of each pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct MemoryTier {
    /// The most memory that the tier's entries take in one pod. Hot.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: Bytes,
    /// Which entry leaves when the tier is full. Rolling.
    #[serde(default)]
    pub policy: Policy,
}

/// A tier in a shared Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct RedisTier {
    /// The Redis backend, by its name in the service. Rolling.
    pub backend_ref: Ref,
    /// What every key starts with. Left out, it is made of namespace and service, so that two services never
    /// meet in one Redis. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9:._-]*$")))]
    pub key_prefix: Option<String>,
}

/// Which entry leaves a full memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Policy {
    /// The least recently used.
    #[serde(rename = "LRU")]
    Lru,
    /// The least frequently used.
    #[serde(rename = "LFU")]
    Lfu,
    /// The oldest.
    #[serde(rename = "FIFO")]
    Fifo,
    /// The oldest of a small queue for new entries, unless it was asked for again (S3-FIFO).
    #[default]
    #[serde(rename = "S3FIFO")]
    S3Fifo,
    /// The first that was not asked for since the hand last passed (SIEVE).
    #[serde(rename = "SIEVE")]
    Sieve,
}

/// What a write does to a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum WriteStrategy {
    /// The entry is dropped; the next read loads it.
    #[default]
    CacheAside,
    /// The new version is put in after the commit.
    WriteThrough,
    /// The write is acknowledged when it is in the durable log, and applied to the store from there.
    WriteBehind,
}

fn default_ttl() -> Span {
    Span::from_secs(60)
}

fn default_jitter() -> u32 {
    10
}

fn default_negative_ttl() -> Span {
    Span::from_secs(2)
}

fn default_max_bytes() -> Bytes {
    Bytes(256 << 20)
}
