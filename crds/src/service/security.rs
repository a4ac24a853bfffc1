//! Who may call, and how often.

use serde::{Deserialize, Serialize};

use crate::pool::Ref;

/// Who may call, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Security {
    /// Callers show a JSON Web Token; left out, everybody may call. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<SecretUse>,
    /// The Secret with the key `key` (32 bytes in base64) for encrypted fields; left out, the operator makes `<service>-encryption` once. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<SecretUse>,
    /// The API is served over TLS, by the gateway and by the pods; left out, over plain HTTP. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretUse>,
    /// Requests per caller; left out, there is no limit. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Which web pages may call from a browser. Hot.
    #[serde(default)]
    pub cors: Cors,
}

/// A Secret that is used by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct SecretUse {
    /// The Secret in the same namespace. For `jwt` it has the key `secret` (HS256) or `public.pem` (RS256, ES256); for `tls` the keys `tls.crt`, `tls.key` and, of the authority, `ca.crt`. Rolling.
    pub secret_ref: Ref,
}

/// Requests per caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct RateLimit {
    /// The lasting rate. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000_000)))]
    pub requests_per_second: u32,
    /// How many may come at once. Hot.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 10_000_000)))]
    pub burst: u32,
}

/// Which web pages may call from a browser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Cors {
    /// Origins such as `https://shop.example.com`; `*` is every page. Hot.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(length(max = 64), inner(length(max = 256))))]
    pub allow_origins: Vec<String>,
}
