//! The stores and brokers of a service, each by a Secret.

use serde::{Deserialize, Serialize};

use crate::pool::Ref;

/// A store or broker: exactly one of `mysql`, `mongodb`, `redis` and `kafka`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "[has(self.mysql), has(self.mongodb), has(self.redis), has(self.kafka)].filter(x, x).size() == 1", "message": "name exactly one of mysql, mongodb, redis and kafka" },
    ]))
)]
pub struct Backend {
    /// The backend's name, which pools and tiers refer to.
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// MySQL 8 or later, or MariaDB 10.11 or later. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlBackend>,
    /// MongoDB 5 or later, or a server of its wire protocol. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongodbBackend>,
    /// Redis 6.2 or later, standalone or cluster. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisBackend>,
    /// Kafka 3 or later. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaBackend>,
}

/// A MySQL backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct MysqlBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
    /// TLS with other authorities than the Secret's; left out, TLS is used where the Secret has `ca.crt` or
    /// its address asks for it. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether an account may sign in where others can read along: without TLS, to a host that is not this
    /// one. Left out, what proves a password is sent there, and never a password itself; a service that ran
    /// before this field was there goes on with a warning, for this release. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
    /// The most connections that one pod opens. Rolling.
    #[serde(default = "default_max_connections")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000)))]
    pub max_connections: u32,
}

/// A MongoDB backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct MongodbBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
    /// TLS with other authorities than the Secret's; left out, TLS is used where the Secret has `ca.crt` or
    /// its address asks for it. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether an account may sign in where others can read along: without TLS, to a host that is not this
    /// one. Left out, what proves a password is sent there, and never a password itself; a service that ran
    /// before this field was there goes on with a warning, for this release. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
    /// The database. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9_-]+$")))]
    pub database: String,
}

/// A Redis backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct RedisBackend {
    /// The Secret with the key `url`, and `ca.crt`, `tls.crt`, `tls.key` where TLS is used. Rolling.
    pub secret_ref: Ref,
    /// TLS with other authorities than the Secret's; left out, TLS is used where the Secret has `ca.crt` or
    /// its address asks for it. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether an account may sign in where others can read along: without TLS, to a host that is not this
    /// one. Left out, what proves a password is sent there, and never a password itself; a service that ran
    /// before this field was there goes on with a warning, for this release. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
}

/// A Kafka backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct KafkaBackend {
    /// The Secret with the key `url` (the bootstrap brokers), and `ca.crt`, `tls.crt`, `tls.key`, `username`,
    /// `password` where they are used. Rolling.
    pub secret_ref: Ref,
    /// TLS with other authorities than the Secret's; left out, TLS is used where the Secret has `ca.crt` or
    /// its address asks for it. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// Whether an account may sign in where others can read along: without TLS, to a host that is not this
    /// one. Left out, what proves a password is sent there, and never a password itself; a service that ran
    /// before this field was there goes on with a warning, for this release. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
    /// What every topic's name starts with. Left out, it is made of namespace and service, so that two
    /// services never meet in one Kafka. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9._-]*$")))]
    pub topic_prefix: Option<String>,
}

/// Whose certificates a backend's servers must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct BackendTls {
    /// Who must have signed the servers' certificates, whose names are checked; TLS is used whatever the
    /// address says, and `ca.crt` of the Secret is not. Rolling.
    pub authorities: Authorities,
}

/// Who must have signed a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Authorities {
    /// Those that the system of the process trusts: in the image, the public ones. TLS is used whatever the
    /// address says, and `ca.crt` of the Secret is not: certificates for clients often come with the one that
    /// signed them.
    System,
}

impl Backend {
    /// Whether the author says that passwords may be readable on the way; none where nothing is said.
    pub fn allow_plaintext(&self) -> Option<bool> {
        let Self { name: _, mysql, mongodb, redis, kafka } = self;
        let mysql = mysql.as_ref().and_then(|backend| backend.allow_plaintext);
        let mongodb = mongodb.as_ref().and_then(|backend| backend.allow_plaintext);
        let redis = redis.as_ref().and_then(|backend| backend.allow_plaintext);
        let kafka = kafka.as_ref().and_then(|backend| backend.allow_plaintext);
        mysql.or(mongodb).or(redis).or(kafka)
    }
}

fn default_max_connections() -> u32 {
    100
}
