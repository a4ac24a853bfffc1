//! Who charges customers and how they are told: the parts of the pipeline that reach out of the service.

use serde::{Deserialize, Serialize};

use crate::{pool::Ref, units::Span};

/// Who charges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Payments {
    /// How long one call may take. Hot.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// The built-in stand-in, which charges nobody; used where `http` is left out. Hot.
    #[serde(default)]
    pub simulator: Simulator,
    /// A provider that is called over HTTP. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPayments>,
}

/// The built-in stand-in of a payment provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Simulator {
    /// How many of a hundred payments are declined. Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 100)))]
    pub decline_percent: u32,
    /// How many of a hundred calls charge, but never answer. Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 100)))]
    pub timeout_percent: u32,
    /// How many of a hundred calls fail in a way that may pass. Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 100)))]
    pub failure_percent: u32,
    /// How many of a hundred charges come twice, under the same key: the first is made, and its answer lost.
    /// Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 100)))]
    pub duplicate_percent: u32,
    /// How long each call takes. Hot.
    #[serde(default)]
    pub latency: Span,
}

/// A payment provider that is called over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct HttpPayments {
    /// Where it is: `/charges` and `/reversals` are called below this address. It holds no account: an
    /// address with one is a Secret's. Hot.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(min = 8, max = 2048)))]
    pub url: String,
    /// The Secret with the key `key`, which calls are signed with (HMAC-SHA256), the key `url`, which is the
    /// address and wins over `url` of the spec, or both. Without `key` calls are not signed. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Ref>,
}

/// How customers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Notifications {
    /// Where messages are posted; left out, they are written to the log. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 8, max = 2048)))]
    pub webhook_url: Option<String>,
    /// The Secret whose key `url` says where messages are posted, for an address that is a secret itself; it
    /// wins over `webhookUrl`. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Ref>,
}

impl Default for Payments {
    fn default() -> Self {
        Self { timeout: default_timeout(), simulator: Simulator::default(), http: None }
    }
}

fn default_timeout() -> Span {
    Span::from_secs(5)
}
