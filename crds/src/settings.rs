//! What the data plane runs by: the resources of one service, resolved and complete.
//!
//! The operator writes it into a ConfigMap, `serve --config` reads it, and `serve --manifests` makes it in
//! place. Every field belongs to one class: *hot* ones act in a running process, the others need a new one
//! ([`Settings::rolling_hash`]).

pub use model::passage::Plaintext;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::names::Origin;
use crate::{
    pool::{Access, Cleanup, Entity, FieldSpec, PoolLimits, WarmUp},
    service::{
        Audit, Observability,
        backends::BackendTls,
        gateway::Gateway,
        limits::Limits,
        messaging::{Ingest, Pipeline, WebSocket},
        security::RateLimit,
        tokens::TokenIssuer,
    },
    tier::{Policy, WriteStrategy},
    units::{Bytes, Span},
};

pub mod names;

/// The resolved settings of one `FlyweightService`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The name of the `FlyweightService`.
    pub service: String,
    /// The pools, in the order in which the service names them.
    pub pools: Vec<PoolSettings>,
    /// The groups of pods and what each serves.
    pub groups: Vec<GroupSettings>,
    /// The declared stores and brokers. Embedded stores stand in for them where a data folder is given.
    pub backends: Vec<BackendSettings>,
    /// The order pipeline. Hot.
    pub pipeline: Pipeline,
    /// The ingestion of events. Hot.
    pub ingest: Ingest,
    /// The gateway, when there is one. Hot, but for its being there.
    pub gateway: Option<Gateway>,
    /// Who may call.
    pub security: SecuritySettings,
    /// The live feed. Hot.
    pub web_socket: WebSocket,
    /// Logs. Hot.
    pub observability: Observability,
    /// What manifests say of whose this is. In a cluster the pods know it themselves, and it is left out.
    #[serde(default, skip_serializing_if = "Origin::is_unknown")]
    pub origin: Origin,
    /// The audit. Hot.
    #[serde(default, skip_serializing_if = "Audit::is_default")]
    pub audit: Audit,
    /// What one process may take. Hot, but for the time that calls wait for a connection.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
}

/// One pool with everything that it refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSettings {
    /// The name of the `FlyweightPool`.
    pub name: String,
    /// The kind of entity.
    pub entity: Entity,
    /// Where the records are.
    pub source: SourceSettings,
    /// The fields that the pool says something about; all of them for a Custom pool.
    pub fields: Vec<FieldSpec>,
    /// The tiers that a read asks, in order.
    pub tiers: Vec<TierSettings>,
    /// The most entities in memory. Hot.
    pub capacity: u64,
    /// When idle entries are dropped. Hot.
    pub cleanup: Cleanup,
    /// What is loaded before a pod is ready. Hot.
    pub warm_up: WarmUp,
    /// Bounds on single records. Hot.
    pub limits: PoolLimits,
    /// Who may read and write. Hot.
    pub access: Access,
}

/// Where a pool's records are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSettings {
    /// The backend's name.
    pub backend: String,
    /// The table or collection.
    pub collection: String,
    /// The column or field that identifies a record: `id` for built-in entities.
    pub key: String,
    /// The column that holds the version; none makes the pool read-only.
    pub version: Option<String>,
}

/// One cache tier of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierSettings {
    /// The name of the `CacheTier`.
    pub name: String,
    /// In memory, or in a Redis.
    pub kind: TierKind,
    /// How long an entry may be served. Hot.
    pub ttl: Span,
    /// The random shortening of the time to live, in percent. Hot.
    pub jitter: u32,
    /// How long "there is no such record" may be served. Hot.
    pub negative_ttl: Span,
    /// How long a stale entry may be served while a fresh one is loaded. Hot.
    pub stale_while_revalidate: Span,
    /// How long a stale entry may be served while the store fails. Hot.
    pub stale_if_error: Span,
    /// What a write does to the tier.
    pub write: WriteStrategy,
}

/// In memory, or in a Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type", deny_unknown_fields)]
pub enum TierKind {
    /// In the memory of each pod. Pools that name the same tier share its bytes.
    Memory {
        /// The most memory in one pod. Hot.
        max_bytes: Bytes,
        /// Which entry leaves.
        policy: Policy,
    },
    /// In a shared Redis.
    Redis {
        /// The backend's name.
        backend: String,
        /// What every key starts with.
        key_prefix: String,
    },
}

/// A group of pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupSettings {
    /// The group's name.
    pub name: String,
    /// The names of the pools that it serves.
    pub pools: Vec<String>,
    /// Its share of the gateway's traffic. Hot.
    pub weight: u32,
}

/// A declared store or broker. Its address and password are files: `<backends>/<name>/url` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendSettings {
    /// The backend's name.
    pub name: String,
    /// The Secret that holds its address.
    pub secret: String,
    /// TLS with other authorities than the Secret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether its password may be readable on the way.
    #[serde(default, skip_serializing_if = "Plaintext::is_warned")]
    pub plaintext: Plaintext,
    /// Which kind, with what is particular to it.
    pub kind: BackendKind,
}

/// The kind of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type", deny_unknown_fields)]
pub enum BackendKind {
    /// MySQL or MariaDB.
    Mysql {
        /// The most connections of one pod.
        max_connections: u32,
    },
    /// MongoDB.
    Mongodb {
        /// The database.
        database: String,
    },
    /// Redis.
    Redis {},
    /// Kafka.
    Kafka {
        /// What every topic's name starts with.
        topic_prefix: String,
    },
}

/// Who may call, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecuritySettings {
    /// The Secret with the keys that tokens are verified by; none lets everybody call.
    pub jwt_secret: Option<String>,
    /// Whose tokens are good besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<TokenIssuer>,
    /// The Secret with the key of encrypted fields; none where no field is encrypted.
    pub encryption_secret: Option<String>,
    /// The Secret with the key that calls of the payment provider are signed with; none where they are not
    /// signed.
    #[serde(default)]
    pub payments_secret: Option<String>,
    /// The Secret with the address that messages to customers are posted to; none where it is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications_secret: Option<String>,
    /// The Secret with the certificate of the API; none where it is served over plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<String>,
    /// Requests per caller. Hot.
    pub rate_limit: Option<RateLimit>,
    /// Origins that browsers may call from. Hot.
    pub cors_allow_origins: Vec<String>,
}

impl SecuritySettings {
    /// Whether callers show tokens.
    pub fn asks_for_tokens(&self) -> bool {
        self.jwt_secret.is_some() || !self.issuers.is_empty()
    }
}

impl Settings {
    /// Identifies these settings: 12 hexadecimal digits of the SHA-256 of their JSON.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(json).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Identifies what a running process cannot change in place: pods are replaced when it changes.
    pub fn rolling_hash(&self) -> String {
        self.without_hot().hash()
    }

    /// The same settings with every hot field at a fixed value. Each field is named, so that a new one must
    /// choose its class.
    fn without_hot(&self) -> Self {
        let Self {
            service,
            pools,
            groups,
            backends,
            pipeline: _,
            ingest: _,
            gateway,
            security,
            web_socket: _,
            observability: _,
            origin,
            audit: _,
            limits: Limits { memory: _, cleanup_threshold: _, connection_timeout },
        } = self.clone();
        let SecuritySettings {
            jwt_secret,
            issuers,
            encryption_secret,
            payments_secret,
            notifications_secret,
            tls_secret,
            rate_limit: _,
            cors_allow_origins: _,
        } = security;
        Self {
            service,
            pools: pools.into_iter().map(PoolSettings::without_hot).collect(),
            groups: groups
                .into_iter()
                .map(|GroupSettings { name, pools, weight: _ }| GroupSettings { name, pools, weight: 0 })
                .collect(),
            backends,
            pipeline: Pipeline::default(),
            ingest: Ingest::default(),
            gateway: gateway.map(
                |Gateway {
                     replicas: _,
                     strategy: _,
                     health_check: _,
                     trusted_proxies: _,
                     resources: _,
                     pod_template: _,
                 }| Gateway {
                    replicas: 0,
                    strategy: Default::default(),
                    health_check: Default::default(),
                    trusted_proxies: Vec::new(),
                    resources: Default::default(),
                    pod_template: None,
                },
            ),
            security: SecuritySettings {
                jwt_secret,
                issuers,
                encryption_secret,
                payments_secret,
                notifications_secret,
                tls_secret,
                rate_limit: None,
                cors_allow_origins: Vec::new(),
            },
            web_socket: WebSocket::default(),
            observability: Observability::default(),
            origin,
            audit: Audit::default(),
            limits: Limits { connection_timeout, ..Limits::default() },
        }
    }
}

impl PoolSettings {
    fn without_hot(self) -> Self {
        let Self {
            name,
            entity,
            source,
            fields,
            tiers,
            capacity: _,
            cleanup: _,
            warm_up: _,
            limits: _,
            access: _,
        } = self;
        Self {
            name,
            entity,
            source,
            fields,
            tiers: tiers.into_iter().map(TierSettings::without_hot).collect(),
            capacity: 0,
            cleanup: Cleanup::default(),
            warm_up: WarmUp::None,
            limits: PoolLimits::default(),
            access: Access::default(),
        }
    }
}

impl TierSettings {
    fn without_hot(self) -> Self {
        let Self {
            name,
            kind,
            ttl: _,
            jitter: _,
            negative_ttl: _,
            stale_while_revalidate: _,
            stale_if_error: _,
            write,
        } = self;
        let kind = match kind {
            TierKind::Memory { max_bytes: _, policy } => TierKind::Memory { max_bytes: Bytes(0), policy },
            redis @ TierKind::Redis { .. } => redis,
        };
        Self {
            name,
            kind,
            ttl: Span::default(),
            jitter: 0,
            negative_ttl: Span::default(),
            stale_while_revalidate: Span::default(),
            stale_if_error: Span::default(),
            write,
        }
    }
}
