//! The only way to write to the cluster: while the lease is held, within a deadline, counted.

use std::time::Duration;

use tokio::time::timeout;

use crate::{error::Error, lease::Leadership, metrics::Metrics};

/// The longest that one request may take. Leadership ends by more than this before another replica may begin.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets writes through while this replica leads.
#[derive(Clone)]
pub struct Writer {
    leadership: Leadership,
    metrics: Metrics,
}

impl Writer {
    /// Writes are allowed by `leadership` and counted in `metrics`.
    pub fn new(leadership: Leadership, metrics: Metrics) -> Self {
        Self { leadership, metrics }
    }

    /// Sends one write.
    ///
    /// # Errors
    /// [`Error::NotLeader`] before anything is sent; otherwise what [`ask`] says.
    pub async fn write<T>(
        &self,
        verb: &'static str,
        kind: &str,
        name: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        if !self.leadership.is_valid() {
            return Err(Error::NotLeader);
        }
        let answer = ask(verb, kind, name, request).await?;
        self.metrics.wrote(kind, verb);
        Ok(answer)
    }
}

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
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_without_the_lease() {
        let (term, leadership) = Leadership::new();
        let writer = Writer::new(leadership, Metrics::new().unwrap());
        let sent = AtomicBool::new(false);
        let send = || async {
            sent.store(true, Ordering::Relaxed);
            Ok(())
        };
        assert!(matches!(writer.write("apply", "ConfigMap", "a", send()).await, Err(Error::NotLeader)));
        assert!(!sent.load(Ordering::Relaxed));
        term.until(Instant::now() + Duration::from_secs(60));
        writer.write("apply", "ConfigMap", "a", send()).await.unwrap();
        assert!(sent.load(Ordering::Relaxed));
        term.end();
        assert!(matches!(writer.write("apply", "ConfigMap", "a", send()).await, Err(Error::NotLeader)));
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up() {
        let silence = std::future::pending::<kube::Result<()>>();
        let answer = ask_within(Duration::from_millis(1), "get", "Secret", "a", silence).await;
        assert!(matches!(answer, Err(Error::Timeout { .. })));
    }
}
