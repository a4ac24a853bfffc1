//! JSON Web Tokens: verified once, then remembered until they expire.
//!
//! Source: RFC 7519 and RFC 7515; the algorithm is chosen by the key that is given, never by the token.

use std::{fs, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use crds::service::tokens::TokenIssuer;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use parking_lot::RwLock;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    caller::{Caller, KeyEnd, Validity},
    issuers::Issuer,
    token::{Claimed, TokenError},
};

/// The most tokens that are remembered; when it is reached, all are forgotten and verified anew.
const REMEMBERED_MAX: usize = 10_000;

/// Clocks may differ by so many seconds.
const LEEWAY_S: u64 = 30;

/// How long a key that is no longer in its Secret is still accepted: issuers and replicas do not learn of a
/// new one at the same moment.
const OVERLAP_S: i64 = 900;

/// Verifies tokens.
pub struct TokenVerifier {
    keys: ArcSwap<Vec<Key>>,
    issuers: Vec<Arc<Issuer>>,
    remembered: Remembered,
}

/// The callers of tokens that were good, by the tokens' hashes.
type Remembered = Arc<RwLock<hashbrown::HashMap<[u8; 32], Arc<Caller>>>>;

#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    validation: Validation,
    /// The hash of its file's content.
    id: [u8; 32],
    /// The end of its acceptance, once it is no longer in the Secret.
    end: KeyEnd,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: NumericDate,
    #[serde(default)]
    roles: Roles,
}

/// Seconds since 1970; issuers may write a fraction (RFC 7519, section 2).
#[derive(Clone, Copy, Deserialize)]
#[serde(from = "f64")]
struct NumericDate(i64);

/// Issuers write one role as a word, and several as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Roles {
    One(String),
    Several(Vec<String>),
}

impl From<f64> for NumericDate {
    fn from(seconds: f64) -> Self {
        // no second of a fraction is given away, and what is too great is the end of time
        Self(seconds.floor() as i64)
    }
}

impl Default for Roles {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl From<Roles> for Vec<String> {
    fn from(roles: Roles) -> Self {
        match roles {
            Roles::One(role) => vec![role],
            Roles::Several(roles) => roles,
        }
    }
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct JwtKeyError {
    /// The file.
    pub path: String,
    /// Why, and what to do.
    pub message: String,
}

impl TokenVerifier {
    /// Reads the keys from a folder: `secret` (HS256, at least 32 bytes), `public.pem` (RS256 or ES256), or
    /// both. Further keys, in files whose names begin with `secret` or end in `.pem`, are accepted as well,
    /// so that an issuer can change over in its own time.
    ///
    /// # Errors
    /// There is none, or one cannot be used.
    pub fn from_dir(dir: &Path) -> Result<Self, JwtKeyError> {
        Ok(Self::new(keys(dir)?))
    }

    /// Without keys of its own: only issuers' tokens are good.
    pub fn without_keys() -> Self {
        Self::new(Vec::new())
    }

    /// Takes the keys that are in the folder now. Those that are gone are accepted for a quarter of an hour
    /// more.
    ///
    /// # Errors
    /// As for [`Self::from_dir`]; nothing changes then.
    pub fn reload(&self, dir: &Path, now_s: i64) -> Result<(), JwtKeyError> {
        let mut keys = keys(dir)?;
        for former in self.keys.load().iter() {
            if let Some(same) = keys.iter_mut().find(|key| key.id == former.id) {
                // whom it let in before is still told of its end
                same.end = former.end.clone();
                same.end.set(KeyEnd::NEVER);
                continue;
            }
            former.end.set(former.end.get().min(now_s + OVERLAP_S));
            if former.end.get() > now_s {
                keys.push(former.clone());
            }
        }
        self.keys.store(Arc::new(keys));
        self.remembered.write().clear();
        Ok(())
    }

    fn new(keys: Vec<Key>) -> Self {
        Self { keys: ArcSwap::from_pointee(keys), issuers: Vec::new(), remembered: Remembered::default() }
    }

    /// Verifies the tokens of these issuers, too.
    ///
    /// # Errors
    /// There is no HTTP client to fetch their keys by.
    pub fn trust(&mut self, issuers: &[TokenIssuer]) -> Result<(), JwtKeyError> {
        for settings in issuers {
            let remembered = self.remembered.clone();
            let issuer = Issuer::new(settings.clone(), move || remembered.write().clear())
                .map_err(|error| JwtKeyError { path: settings.issuer.clone(), message: error.to_string() })?;
            self.issuers.push(Arc::new(issuer));
        }
        Ok(())
    }

    /// The issuers, for whoever follows their keys.
    pub fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// The caller of a token that was verified before, and is still good. Time is in seconds since 1970.
    pub fn known(&self, token: &str, now_s: i64) -> Option<Arc<Caller>> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let remembered = self.remembered.read();
        remembered.get(&digest).filter(|known| now_s < known.validity.ends_s()).cloned()
    }

    /// The caller that a token speaks of. Time is in seconds since 1970.
    ///
    /// # Errors
    /// The token is malformed, expired, not yet valid, for others, or signed by another key; or nobody can
    /// tell.
    pub async fn verify(&self, token: &str, now_s: i64) -> Result<Arc<Caller>, TokenError> {
        if let Some(known) = self.known(token, now_s) {
            return Ok(known);
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let named = self.issuers.iter().find(|issuer| issuer.is_named_in(token));
        let Claimed { subject, roles, expires_s, key } = match named {
            Some(issuer) => issuer.verify(token, now_s).await?,
            None if self.keys.load().is_empty() => {
                return Err(TokenError::new("its issuer (iss) is none of those whose tokens are taken"));
            }
            None => self.claims(token, now_s)?,
        };
        let caller = Arc::new(Caller { subject, roles, validity: Validity { expires_s, key } });
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, caller.clone());
        Ok(caller)
    }

    /// What the token claims, by the keys of the Secret.
    fn claims(&self, token: &str, now_s: i64) -> Result<Claimed, TokenError> {
        use jsonwebtoken::errors::ErrorKind;
        let mut refusal = None;
        for key in self.keys.load().iter().filter(|key| now_s < key.end.get()) {
            let error = match decode::<Claims>(token, &key.decoding, &key.validation) {
                // what a token says must be understood is not (RFC 7515, section 4.1.11)
                Ok(token) if token.header.crit.is_some() => {
                    return Err(TokenError::new("it has critical headers (crit)"));
                }
                Ok(token) => {
                    let Claims { sub, exp: NumericDate(expires_s), roles } = token.claims;
                    let key = key.end.clone();
                    return Ok(Claimed { subject: sub, roles: roles.into(), expires_s, key });
                }
                Err(error) => error,
            };
            let other_key = matches!(error.kind(), ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm);
            // a fault that the right key found says more than that others are not the right one
            if !other_key || refusal.is_none() {
                refusal = Some(error);
            }
            if !other_key {
                break;
            }
        }
        Err(refusal.map_or_else(|| TokenError::new("there is no key"), |error| TokenError::of(&error)))
    }
}

impl Key {
    fn new(decoding: DecodingKey, algorithm: Algorithm, content: &[u8]) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { decoding, validation, id: Sha256::digest(content).into(), end: KeyEnd::default() }
    }

    fn of_secret(path: &Path) -> Result<Self, JwtKeyError> {
        let bytes = fs::read(path).map_err(|error| fault(path, error.to_string()))?;
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < 32 {
            return Err(fault(path, "a secret for HS256 has at least 32 bytes"));
        }
        Ok(Self::new(DecodingKey::from_secret(bytes), Algorithm::HS256, bytes))
    }

    fn of_pem(path: &Path) -> Result<Self, JwtKeyError> {
        let bytes = fs::read(path).map_err(|error| fault(path, error.to_string()))?;
        if let Ok(key) = DecodingKey::from_rsa_pem(&bytes) {
            return Ok(Self::new(key, Algorithm::RS256, &bytes));
        }
        let key = DecodingKey::from_ec_pem(&bytes)
            .map_err(|_| fault(path, "is not a public key of RSA or of P-256"))?;
        Ok(Self::new(key, Algorithm::ES256, &bytes))
    }
}

/// All keys of a folder, by the names of their files.
fn keys(dir: &Path) -> Result<Vec<Key>, JwtKeyError> {
    let needs = "needs a file `secret` (HS256) or `public.pem` (RS256, ES256)";
    let entries = fs::read_dir(dir).map_err(|error| fault(dir, format!("{needs}: {error}")))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect();
    names.sort();
    let keys = names.iter().filter_map(|name| match name.as_str() {
        name if name.ends_with(".pem") => Some(Key::of_pem(&dir.join(name))),
        name if name.starts_with("secret") => Some(Key::of_secret(&dir.join(name))),
        _ => None,
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(fault(dir, needs)) } else { Ok(keys) }
}

fn fault(path: &Path, message: impl Into<String>) -> JwtKeyError {
    JwtKeyError { path: path.display().to_string(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn token(claims: serde_json::Value, secret: &[u8], algorithm: Algorithm) -> String {
        encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn verifier(secret: &[u8]) -> TokenVerifier {
        TokenVerifier::new(vec![Key::new(DecodingKey::from_secret(secret), Algorithm::HS256, secret)])
    }

    #[tokio::test]
    async fn only_sound_tokens_of_the_configured_key_and_algorithm_are_accepted() {
        let verifier = verifier(SECRET);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let good = json!({ "sub": "ann", "exp": now + 60, "roles": ["catalog-admin"] });
        let caller = verifier.verify(&token(good.clone(), SECRET, Algorithm::HS256), now).await.unwrap();
        assert_eq!((caller.subject.as_str(), &*caller.roles), ("ann", &["catalog-admin".to_owned()][..]));
        assert_eq!(caller.validity.ends_s(), now + 60);

        for (why, token) in [
            ("expired", token(json!({ "sub": "ann", "exp": now - 3600 }), SECRET, Algorithm::HS256)),
            ("other key", token(good.clone(), b"another-secret-another-secret-00", Algorithm::HS256)),
            ("other algorithm", token(good.clone(), SECRET, Algorithm::HS512)),
            ("no subject", token(json!({ "exp": now + 60 }), SECRET, Algorithm::HS256)),
            (
                "not yet",
                token(json!({ "sub": "a", "exp": now + 900, "nbf": now + 600 }), SECRET, Algorithm::HS256),
            ),
            ("garbage", "a.b.c".to_owned()),
        ] {
            let error = verifier.verify(&token, now).await.unwrap_err();
            assert_eq!(error.is_untimely, ["expired", "not yet"].contains(&why), "{why}: {error}");
        }
    }

    #[tokio::test]
    async fn a_remembered_token_still_expires() {
        let verifier = verifier(SECRET);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let text = token(json!({ "sub": "ann", "exp": now - LEEWAY_S as i64 + 5 }), SECRET, Algorithm::HS256);
        assert!(verifier.verify(&text, now).await.is_ok(), "within the leeway");
        let lasting = token(json!({ "sub": "ann", "exp": now + 60 }), SECRET, Algorithm::HS256);
        assert!(verifier.verify(&lasting, now).await.is_ok());
        // only what is remembered is known now
        verifier.keys.store(Arc::new(Vec::new()));
        assert!(verifier.verify(&lasting, now).await.is_ok());
        assert!(verifier.verify(&text, now).await.is_err(), "past its end it is verified anew");
    }

    #[tokio::test]
    async fn a_replaced_key_is_accepted_for_a_while_and_one_that_stays_for_as_long_as_it_is_there() {
        const NEXT: &[u8] = b"another-secret-another-secret-00";
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, secret: &[u8]| fs::write(dir.path().join(name), secret).unwrap();
        write("secret", SECRET);
        let verifier = TokenVerifier::from_dir(dir.path()).unwrap();
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let by = |secret| token(json!({ "sub": "ann", "exp": now + 10_000 }), secret, Algorithm::HS256);
        let accepted = async |at: i64| {
            [verifier.verify(&by(SECRET), at).await.is_ok(), verifier.verify(&by(NEXT), at).await.is_ok()]
        };
        let caller = verifier.verify(&by(SECRET), now).await.unwrap();
        assert_eq!(accepted(now).await, [true, false]);

        write("secret", b"short");
        assert!(verifier.reload(dir.path(), now).is_err());
        assert_eq!(accepted(now).await, [true, false], "what cannot be used changes nothing");

        write("secret", NEXT);
        verifier.reload(dir.path(), now).unwrap();
        verifier.reload(dir.path(), now + 60).unwrap();
        assert_eq!(caller.validity.ends_s(), now + OVERLAP_S, "whom it let in is told of its end");
        assert_eq!(accepted(now + OVERLAP_S - 1).await, [true, true]);
        assert_eq!(accepted(now + OVERLAP_S).await, [false, true], "also the token that was remembered");

        write("secret.next", SECRET);
        verifier.reload(dir.path(), now + OVERLAP_S).unwrap();
        assert_eq!(accepted(now + 2 * OVERLAP_S).await, [true, true]);
        assert!(verifier.verify(&by(SECRET), now).await.unwrap().validity.ends_s() > now + 2 * OVERLAP_S);
        let expired = token(json!({ "sub": "ann", "exp": now - 3600 }), SECRET, Algorithm::HS256);
        assert!(verifier.verify(&expired, now).await.unwrap_err().to_string().contains("expired"));
    }
}
