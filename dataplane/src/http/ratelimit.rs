//! What callers are told of their rate: the fields `RateLimit-Policy` and `RateLimit` (IETF
//! draft-ietf-httpapi-ratelimit-headers-10).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;
use crate::security::limits::Standing;

/// The header of the limit.
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The header of what is left of it.
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The refusal of a request whose caller has used up its rate.
///
/// # Errors
/// 429 with when to try again.
pub fn refuse(standing: &Standing) -> Result<(), Problem> {
    let Some(wait) = standing.wait else { return Ok(()) };
    let detail = format!("too many requests: try again in {} ms", wait.as_millis());
    Err(Problem::limited(detail, wait))
}

/// Tells a caller how it stands.
pub fn tell(standing: &Standing, headers: &mut HeaderMap) {
    let Standing { burst, window_s, left, wait } = standing;
    // until the bucket is full again
    let full_s =
        (u64::from(burst.saturating_sub(*left)) * u64::from(*window_s)).div_ceil(u64::from(*burst).max(1));
    let reset_s = wait.map_or(full_s, |wait| full_s.max(wait.as_secs()));
    for (name, text) in [
        (POLICY, format!("\"default\";q={burst};w={window_s}")),
        (LIMIT, format!("\"default\";r={left};t={reset_s}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_fields_are_as_the_draft_has_them() {
        let told = |left, wait| {
            let mut headers = HeaderMap::new();
            tell(&Standing { burst: 200, window_s: 2, left, wait }, &mut headers);
            [POLICY, LIMIT].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        assert_eq!(told(150, None), ["\"default\";q=200;w=2", "\"default\";r=150;t=1"]);
        assert_eq!(told(0, Some(Duration::from_millis(10)))[1], "\"default\";r=0;t=2");
        let standing = Standing { burst: 1, window_s: 1, left: 0, wait: Some(Duration::from_millis(1_500)) };
        let problem = refuse(&standing).unwrap_err();
        let answer = problem.respond(&"/".parse().unwrap());
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "2"));
    }
}
