//! Who may call, and how often.

use serde::{Deserialize, Serialize};

use crate::{pool::Ref, service::tokens::Jwt};

/// Who may call, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct Security {
    /// Callers show a JSON Web Token; left out, everybody may call. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// The Secret with the key `key` (32 bytes in base64) for encrypted fields; left out, the operator makes
    /// `<service>-encryption` once. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<SecretUse>,
    /// The API is served over TLS, by the gateway and by the pods; left out, over plain HTTP. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
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
    /// The Secret in the same namespace. Rolling.
    pub secret_ref: Ref,
}

/// A certificate: the Secret that holds it, and who issues it into that Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "has(self.secretRef) || has(self.issuerRef)", "message": "name secretRef, issuerRef or both" },
    ]))
)]
pub struct Tls {
    /// The Secret in the same namespace with the keys `tls.crt`, `tls.key` and, of the authority, `ca.crt`;
    /// left out, it is called `<service>-tls`. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Ref>,
    /// Who issues the certificate into the Secret and renews it, by a Certificate of cert-manager, which must
    /// be installed; left out, the Secret is made by others. Hot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// What the name of the Secret with the certificate ends in, after the name of the service, where it has no
/// name of its own.
pub const TLS_SUFFIX: &str = "-tls";

impl Tls {
    /// The Secret with the certificate of this service.
    pub fn secret_name(&self, service: &str) -> String {
        self.secret_ref
            .as_ref()
            .map_or_else(|| format!("{service}{TLS_SUFFIX}"), |secret| secret.name.clone())
    }
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct IssuerRef {
    /// Its name. Hot.
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))
    )]
    pub name: String,
    /// Its kind: `Issuer` in the same namespace, or `ClusterIssuer`. Hot.
    #[serde(default)]
    pub kind: IssuerKind,
}

/// The kinds of issuers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum IssuerKind {
    /// Of one namespace.
    #[default]
    Issuer,
    /// Of the cluster.
    ClusterIssuer,
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
