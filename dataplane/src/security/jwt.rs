//! JSON Web Tokens: verified once, then remembered until they expire.
//!
//! Source: RFC 7519; the algorithm is chosen by the key that is given, never by the token.

use std::{fs, path::Path, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use parking_lot::RwLock;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::caller::Caller;

/// The most tokens that are remembered; when it is reached, all are forgotten and verified anew.
const REMEMBERED_MAX: usize = 10_000;

/// Clocks may differ by so many seconds.
const LEEWAY_S: u64 = 30;

/// Verifies tokens.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
    remembered: RwLock<hashbrown::HashMap<[u8; 32], Remembered>>,
}

struct Remembered {
    caller: Arc<Caller>,
    expires_s: i64,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    roles: Vec<String>,
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

/// The token is not good. The message does not hold it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TokenError(String);

impl TokenVerifier {
    /// Reads the key from a folder: `secret` (HS256, at least 32 bytes), or `public.pem` (RS256 or ES256).
    ///
    /// # Errors
    /// There is neither, or it cannot be used.
    pub fn from_dir(dir: &Path) -> Result<Self, JwtKeyError> {
        let (secret, pem) = (dir.join("secret"), dir.join("public.pem"));
        if secret.exists() {
            let bytes = fs::read(&secret).map_err(|error| fault(&secret, error.to_string()))?;
            let bytes = bytes.trim_ascii_end();
            if bytes.len() < 32 {
                return Err(fault(&secret, "a secret for HS256 has at least 32 bytes"));
            }
            return Ok(Self::new(DecodingKey::from_secret(bytes), Algorithm::HS256));
        }
        let bytes = fs::read(&pem).map_err(|error| {
            fault(dir, format!("needs a file `secret` (HS256) or `public.pem` (RS256, ES256): {error}"))
        })?;
        if let Ok(key) = DecodingKey::from_rsa_pem(&bytes) {
            return Ok(Self::new(key, Algorithm::RS256));
        }
        let key =
            DecodingKey::from_ec_pem(&bytes).map_err(|_| fault(&pem, "is not a public key of RSA or of P-256"))?;
        Ok(Self::new(key, Algorithm::ES256))
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { key, validation, remembered: RwLock::default() }
    }

    /// The caller that a token speaks of. Time is in seconds since 1970.
    ///
    /// # Errors
    /// The token is malformed, expired, not yet valid, or signed by another key.
    pub fn verify(&self, token: &str, now_s: i64) -> Result<Arc<Caller>, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.remembered.read().get(&digest)
            && now_s < known.expires_s
        {
            return Ok(known.caller.clone());
        }
        let claims = decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| TokenError(format!("the token is not accepted: {}", reason(&error))))?
            .claims;
        let caller = Arc::new(Caller { subject: claims.sub, roles: claims.roles });
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, Remembered { caller: caller.clone(), expires_s: claims.exp });
        Ok(caller)
    }
}

fn reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not yet valid",
        ErrorKind::InvalidSignature => "its signature does not match",
        ErrorKind::InvalidAlgorithm => "it is signed by another algorithm than the one configured",
        ErrorKind::MissingRequiredClaim(_) => "it needs the claims sub and exp",
        _ => "it is malformed",
    }
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

    #[test]
    fn only_sound_tokens_of_the_configured_key_and_algorithm_are_accepted() {
        let verifier = TokenVerifier::new(DecodingKey::from_secret(SECRET), Algorithm::HS256);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let good = json!({ "sub": "ann", "exp": now + 60, "roles": ["catalog-admin"] });
        let caller = verifier.verify(&token(good.clone(), SECRET, Algorithm::HS256), now).unwrap();
        assert_eq!(*caller, Caller { subject: "ann".to_owned(), roles: vec!["catalog-admin".to_owned()] });

        for (why, token) in [
            ("expired", token(json!({ "sub": "ann", "exp": now - 3600 }), SECRET, Algorithm::HS256)),
            ("other key", token(good.clone(), b"another-secret-another-secret-00", Algorithm::HS256)),
            ("other algorithm", token(good.clone(), SECRET, Algorithm::HS512)),
            ("no subject", token(json!({ "exp": now + 60 }), SECRET, Algorithm::HS256)),
            ("not yet", token(json!({ "sub": "a", "exp": now + 900, "nbf": now + 600 }), SECRET, Algorithm::HS256)),
            ("garbage", "a.b.c".to_owned()),
        ] {
            assert!(verifier.verify(&token, now).is_err(), "{why}");
        }
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let verifier = TokenVerifier::new(DecodingKey::from_secret(SECRET), Algorithm::HS256);
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let text = token(json!({ "sub": "ann", "exp": now - LEEWAY_S as i64 + 5 }), SECRET, Algorithm::HS256);
        assert!(verifier.verify(&text, now).is_ok(), "within the leeway");
        assert_eq!(verifier.remembered.read().len(), 1);
        verifier.remembered.write().values_mut().for_each(|known| known.expires_s = now - 3600);
        let expired = token(json!({ "sub": "ann", "exp": now - 3600 }), SECRET, Algorithm::HS256);
        assert!(verifier.verify(&expired, now).is_err());
    }
}
