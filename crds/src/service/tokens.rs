//! Whose tokens callers show.

use serde::{Deserialize, Serialize};

use crate::{pool::Ref, units::Span};

/// The tokens that callers show: those of issuers, those signed by keys of a Secret, or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "kube",
    schemars(extend("x-kubernetes-validations" = [
        { "rule": "has(self.secretRef) || (has(self.issuers) && size(self.issuers) > 0)", "message": "name issuers, secretRef or both" },
    ]))
)]
pub struct Jwt {
    /// The Secret in the same namespace with keys that are given by hand: `secret` (HS256) or `public.pem`
    /// (RS256, ES256). Who issued such a token, and for whom, is not looked at. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Ref>,
    /// Identity providers, whose keys are fetched from them. Rolling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"])))]
    pub issuers: Vec<TokenIssuer>,
}

/// An identity provider: Keycloak, Auth0, Entra, Cognito or any other that speaks OpenID Connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct TokenIssuer {
    /// Its address, as it stands in the claim `iss` of its tokens, such as
    /// `https://id.example.com/realms/shop`. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub issuer: String,
    /// For whom its tokens must be: one of these stands in their claim `aud`. Rolling.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256))))]
    pub audiences: Vec<String>,
    /// Where its keys are; left out, its OpenID configuration says it. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub jwks_uri: Option<String>,
    /// How its tokens may be signed. Rolling.
    #[serde(default = "all_algorithms")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 8)))]
    pub algorithms: Vec<TokenAlgorithm>,
    /// Where its tokens name the caller's roles, as a JSON pointer: `/realm_access/roles` of Keycloak,
    /// `/cognito:groups`, `/https:~1~1example.com~1roles`. Rolling.
    #[serde(default = "default_roles_claim")]
    #[cfg_attr(feature = "kube", schemars(length(min = 2, max = 256), regex(pattern = "^/.+$")))]
    pub roles_claim: String,
    /// Where its tokens name scopes that count as roles, too, as a JSON pointer such as `/scope`; left out,
    /// none do. Rolling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 2, max = 256), regex(pattern = "^/.+$")))]
    pub scope_claim: Option<String>,
    /// How far the clocks of its servers and ours may differ. Rolling.
    #[serde(default = "default_leeway")]
    pub leeway: Span,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum TokenAlgorithm {
    /// RSA, SHA-256.
    RS256,
    /// RSA, SHA-384.
    RS384,
    /// RSA, SHA-512.
    RS512,
    /// RSA with salt, SHA-256.
    PS256,
    /// P-256.
    ES256,
    /// P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

fn all_algorithms() -> Vec<TokenAlgorithm> {
    use TokenAlgorithm::{ES256, ES384, EdDSA, PS256, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, PS256, ES256, ES384, EdDSA]
}

fn default_roles_claim() -> String {
    "/roles".to_owned()
}

fn default_leeway() -> Span {
    Span::from_secs(30)
}
