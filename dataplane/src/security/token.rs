//! What a token says, and why one is not good.

use jsonwebtoken::errors::{Error, ErrorKind};

use super::caller::KeyEnd;

/// What a good token says.
pub struct Claimed {
    /// Its subject.
    pub subject: String,
    /// Its roles, and its scopes where they count as such.
    pub roles: Vec<String>,
    /// Its end, in seconds since 1970.
    pub expires_s: i64,
    /// The end of its key.
    pub key: KeyEnd,
}

/// The token is not good. The message does not hold it.
#[derive(Debug, thiserror::Error)]
#[error("the token is not accepted: {why}")]
pub struct TokenError {
    why: &'static str,
    /// The issuer made it: it is only not good at this time.
    pub is_untimely: bool,
    /// Nobody can tell now whether it is good.
    pub is_unavailable: bool,
}

impl TokenError {
    /// It is not good.
    pub fn new(why: &'static str) -> Self {
        Self { why, is_untimely: false, is_unavailable: false }
    }

    /// Nobody can tell now.
    pub fn unavailable(why: &'static str) -> Self {
        Self { is_unavailable: true, ..Self::new(why) }
    }

    /// What was found against it.
    pub fn of(error: &Error) -> Self {
        let is_untimely = matches!(error.kind(), ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature);
        Self { is_untimely, ..Self::new(reason(error)) }
    }
}

/// Why a token is not good.
pub fn reason(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not yet valid",
        ErrorKind::InvalidSignature => "its signature does not match",
        ErrorKind::InvalidAlgorithm => "it is signed by another algorithm than the one configured",
        ErrorKind::InvalidAudience => "it is for others (aud)",
        ErrorKind::InvalidIssuer => "it is of another issuer (iss)",
        ErrorKind::MissingRequiredClaim(_) => {
            "it lacks a claim: sub and exp are needed, and iss and aud in a token of an issuer"
        }
        _ => "it is malformed",
    }
}
