//! Identity providers: their keys are fetched, kept and renewed here, and their tokens are held against them.
//!
//! Source: OpenID Connect Discovery 1.0, RFC 7517 (keys), RFC 7519 (tokens), RFC 8725 (which algorithm is
//! never the token's choice).

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use crds::service::tokens::{TokenAlgorithm, TokenIssuer};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation, decode,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use reqwest::{Client, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};

use super::{
    caller::KeyEnd,
    token::{Claimed, TokenError, reason},
};

/// How often keys are fetched while nothing asks for others.
const RENEWED: Duration = Duration::from_secs(300);
/// The least time between two fetches, whatever tokens come.
const APART: Duration = Duration::from_secs(10);
/// How long one fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// How long keys are good while their issuer does not answer.
const KEPT_S: i64 = 24 * 60 * 60;
/// The largest document that is read.
const BYTES_MAX: usize = 1 << 20;
/// The most keys of one issuer.
const KEYS_MAX: usize = 100;

/// An identity provider with its keys.
pub struct Issuer {
    settings: TokenIssuer,
    client: Client,
    keys: ArcSwap<Vec<IssuerKey>>,
    /// When keys were last asked for.
    asked: Mutex<Option<Instant>>,
    /// Told when keys left.
    changed: Box<dyn Fn() + Send + Sync>,
}

#[derive(Clone)]
struct IssuerKey {
    /// As it was given out.
    jwk: Value,
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    end: KeyEnd,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The name of the issuer in a token that nobody has verified yet: only to find whose keys to hold it
/// against.
#[derive(Deserialize)]
struct Named {
    iss: Option<String>,
}

impl Issuer {
    /// An issuer whose keys are not known yet. `changed` is told when keys left.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn new(
        settings: TokenIssuer,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, reqwest::Error> {
        // a redirect could lead to somebody else's keys
        let client = Client::builder().timeout(FETCH_MAX).redirect(Policy::none()).build()?;
        Ok(Self {
            settings,
            client,
            keys: ArcSwap::default(),
            asked: Mutex::default(),
            changed: Box::new(changed),
        })
    }

    /// Whether the token says that it is of this issuer.
    pub fn is_named_in(&self, token: &str) -> bool {
        named(token).is_some_and(|name| name == self.settings.issuer)
    }

    /// Holds the token against the issuer's keys, and asks for them anew where it names one that is not
    /// known.
    ///
    /// # Errors
    /// It is not good, or nobody knows because the issuer cannot be asked.
    pub async fn verify(&self, token: &str, now_s: i64) -> Result<Claimed, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| TokenError::new(reason(&error)))?;
        if header.crit.is_some() {
            return Err(TokenError::new("it has critical headers (crit)"));
        }
        if !self.settings.algorithms.iter().any(|one| algorithm(*one) == header.alg) {
            return Err(TokenError::new("it is signed by an algorithm that is not taken of its issuer"));
        }
        let mut fitting = self.fitting(&header, now_s);
        if fitting.is_empty() {
            self.renew(now_s).await;
            fitting = self.fitting(&header, now_s);
        }
        if fitting.is_empty() && !self.keys.load().iter().any(|key| now_s < key.end.get()) {
            return Err(TokenError::unavailable("its issuer does not give out its keys now"));
        }
        let mut refusal = TokenError::new("its issuer has no such key");
        for key in fitting {
            match decode::<Value>(token, &key.decoding, &self.validation(header.alg)) {
                Ok(token) => return self.claimed(&token.claims, key.end),
                Err(error) => refusal = TokenError::of(&error),
            }
        }
        Err(refusal)
    }

    /// The keys that may have signed a token with this header.
    fn fitting(&self, header: &Header, now_s: i64) -> Vec<IssuerKey> {
        let keys = self.keys.load();
        let fits = |key: &&IssuerKey| {
            now_s < key.end.get()
                && key.algorithms.contains(&header.alg)
                && (header.kid.is_none() || header.kid == key.id)
        };
        keys.iter().filter(fits).cloned().collect()
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.0.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&self.settings.audiences);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        validation
    }

    fn claimed(&self, claims: &Value, key: KeyEnd) -> Result<Claimed, TokenError> {
        let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| TokenError::new("its subject is no text"))?.to_owned();
        let expires = claims["exp"].as_f64().ok_or_else(|| TokenError::new("its end is no time"))?;
        let mut roles = words(claims.pointer(&self.settings.roles_claim), false);
        let scopes = self.settings.scope_claim.as_ref().and_then(|pointer| claims.pointer(pointer));
        roles.extend(words(scopes, true));
        Ok(Claimed { subject, roles, expires_s: expires.floor() as i64, key })
    }

    /// Asks for the keys for as long as the process runs.
    pub async fn follow(self: Arc<Self>, now_s: impl Fn() -> i64) {
        loop {
            self.renew(now_s()).await;
            let has_keys = !self.keys.load().is_empty();
            tokio::time::sleep(if has_keys { RENEWED } else { APART }).await;
        }
    }

    /// Asks for the keys, unless that was done just now. Whoever comes meanwhile waits for the same answer.
    async fn renew(&self, now_s: i64) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < APART) {
            return;
        }
        let fetched = self.fetch().await;
        *asked = Some(Instant::now());
        match fetched {
            Ok(keys) => self.take(&keys, now_s),
            Err(error) => {
                warn!(
                    issuer = self.settings.issuer,
                    error, "the keys of an issuer of tokens cannot be fetched"
                )
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Value>, String> {
        let uri = match &self.settings.jwks_uri {
            Some(uri) => uri.clone(),
            None => {
                let issuer = &self.settings.issuer;
                let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let found: Discovered = self.get(&place).await?;
                if found.issuer != *issuer {
                    return Err(format!(
                        "{place} is the configuration of another issuer: {:.200}",
                        found.issuer
                    ));
                }
                found.jwks_uri
            }
        };
        let KeySet { keys } = self.get(&uri).await?;
        if keys.len() > KEYS_MAX {
            return Err(format!("{uri} has more than {KEYS_MAX} keys"));
        }
        Ok(keys)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let fault = |error: reqwest::Error| format!("{url}: {}", told(&error));
        let mut response = self.client.get(url).send().await.map_err(fault)?;
        if !response.status().is_success() {
            return Err(format!("{url} answers with {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(fault)? {
            body.extend_from_slice(&part);
            if body.len() > BYTES_MAX {
                return Err(format!("{url} has more than {BYTES_MAX} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url} cannot be read: {error}"))
    }

    /// Takes these keys in the place of the former ones. One that left is refused at once, and whoever was
    /// let in by it is told.
    fn take(&self, given: &[Value], now_s: i64) {
        let former = self.keys.load_full();
        let keys: Vec<IssuerKey> = given
            .iter()
            .filter_map(|jwk| {
                let known = former.iter().find(|key| key.jwk == *jwk).cloned();
                known.or_else(|| IssuerKey::of(jwk))
            })
            .collect();
        for key in &keys {
            key.end.set(now_s + KEPT_S);
        }
        let left: Vec<&IssuerKey> =
            former.iter().filter(|key| !keys.iter().any(|one| one.jwk == key.jwk)).collect();
        for key in &left {
            key.end.set(0);
        }
        let (count, is_new) = (keys.len(), former.is_empty());
        let any_left = !left.is_empty();
        self.keys.store(Arc::new(keys));
        if any_left || is_new {
            info!(issuer = self.settings.issuer, keys = count, "the keys of an issuer of tokens");
            (self.changed)();
        }
    }
}

impl IssuerKey {
    /// The key, where it is one for signatures, of a kind that is taken.
    fn of(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => {
                vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256]
            }
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            // a shared secret that is given out is nobody's
            _ => return None,
        };
        let own = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let algorithms: Vec<Algorithm> = algorithms
            .into_iter()
            .filter(|one| own.as_ref().is_none_or(|own| *own == format!("{one:?}")))
            .collect();
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        let id = jwk.common.key_id.clone();
        Some(Self { jwk: value.clone(), id, algorithms, decoding, end: KeyEnd::default() })
    }
}

fn algorithm(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::RS384 => Algorithm::RS384,
        TokenAlgorithm::RS512 => Algorithm::RS512,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::ES384 => Algorithm::ES384,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// The issuer that a token names, unverified.
fn named(token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Named>(&payload).ok()?.iss
}

/// A word or several; `apart` takes a text for words with spaces between them, as scopes are written.
fn words(value: Option<&Value>, apart: bool) -> Vec<String> {
    match value {
        Some(Value::String(text)) if apart => text.split_whitespace().map(str::to_owned).collect(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// What went wrong, without the address, which is said beside it.
fn told(error: &reqwest::Error) -> String {
    use std::error::Error;
    let mut source: &dyn Error = error;
    while let Some(cause) = source.source() {
        source = cause;
    }
    source.to_string()
}

#[cfg(test)]
mod tests;
