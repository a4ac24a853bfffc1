//! The only way to write to the cluster: while the lease is held, within a deadline, counted.

use crate::{api::ask, lease::Leadership, metrics::Metrics, model::error::Error};

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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

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
}
