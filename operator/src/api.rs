//! One request to the API server: within a deadline, and its failure in the operator's own words.

use std::time::Duration;

use tokio::time::timeout;

use crate::model::error::Error;

/// The longest that one request may take. Leadership ends by more than this before another replica may begin.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one request within [`REQUEST_TIMEOUT`].
///
/// # Errors
/// What the API server answered, or that it did not.
pub async fn ask<T>(
    verb: &'static str,
    kind: &str,
    name: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    ask_within(REQUEST_TIMEOUT, verb, kind, name, request).await
}

async fn ask_within<T>(
    limit: Duration,
    verb: &'static str,
    kind: &str,
    name: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    let object = || format!("{kind} {name}");
    match timeout(limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        // The connection's own refusal: the term ended while the request waited to be sent.
        Ok(Err(kube::Error::Service(error))) if matches!(error.downcast_ref(), Some(Error::NotLeader)) => {
            Err(Error::NotLeader)
        }
        Ok(Err(source)) => Err(Error::Api { verb, object: object(), source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { verb, object: object(), seconds: limit.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let silence = std::future::pending::<kube::Result<()>>();
        let answer = ask_within(Duration::from_millis(1), "get", "Secret", "a", silence).await;
        assert!(matches!(answer, Err(Error::Timeout { .. })));
    }
}
