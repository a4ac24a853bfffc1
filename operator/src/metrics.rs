//! What the operator counts, for Prometheus.

use std::time::Duration;

use prometheus::{
    Counter, Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder, core::Collector,
};

/// The operator's counters. Clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    duration: HistogramVec,
    writes: IntCounterVec,
    drift: IntCounterVec,
    watch_errors: IntCounterVec,
    polls: IntCounterVec,
    throttled: IntCounter,
    throttled_seconds: Counter,
    leader: IntGauge,
}

impl Metrics {
    /// Counters at zero.
    ///
    /// # Errors
    /// When two counters have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("flyweight_operator_{name}"), help), labels)
        };
        let buckets = vec![0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let duration =
            HistogramOpts::new("flyweight_operator_reconcile_duration_seconds", "How long a reconcile took.")
                .buckets(buckets);
        let metrics = Self {
            registry: Registry::new(),
            reconciles: counter("reconciles_total", "Reconciles by kind and result.", &["kind", "result"])?,
            duration: HistogramVec::new(duration, &["kind"])?,
            writes: counter(
                "writes_total",
                "Writes to the API server, the Lease excepted.",
                &["kind", "verb"],
            )?,
            drift: counter(
                "drift_repaired_total",
                "Children that somebody else had changed or deleted.",
                &["kind"],
            )?,
            watch_errors: counter("watch_errors_total", "Interruptions of watches by kind.", &["kind"])?,
            polls: counter("polls_total", "Questions to data plane pods by result.", &["result"])?,
            throttled: IntCounter::new(
                "flyweight_operator_api_throttled_total",
                "Requests to the API server that waited for the operator's own budget.",
            )?,
            throttled_seconds: Counter::new(
                "flyweight_operator_api_throttled_seconds_total",
                "How long requests to the API server waited for the operator's own budget, in all.",
            )?,
            leader: IntGauge::new("flyweight_operator_leader", "1 while this replica holds the lease.")?,
        };
        let all: [Box<dyn Collector>; 9] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.drift.clone()),
            Box::new(metrics.watch_errors.clone()),
            Box::new(metrics.polls.clone()),
            Box::new(metrics.throttled.clone()),
            Box::new(metrics.throttled_seconds.clone()),
            Box::new(metrics.leader.clone()),
        ];
        all.into_iter().try_for_each(|collector| metrics.registry.register(collector))?;
        Ok(metrics)
    }

    /// A reconcile ended.
    pub fn reconciled(&self, kind: &str, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "failure" };
        self.reconciles.with_label_values(&[kind, result]).inc();
        self.duration.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    /// The API server took a write.
    pub fn wrote(&self, kind: &str, verb: &str) {
        self.writes.with_label_values(&[kind, verb]).inc();
    }

    /// A child was brought back to what it should be.
    pub fn repaired(&self, kind: &str) {
        self.drift.with_label_values(&[kind]).inc();
    }

    /// A watch was interrupted.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    /// A data plane pod was asked for its status.
    pub fn polled(&self, answered: bool) {
        self.polls.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
    }

    /// A request to the API server waits so long for the operator's own budget.
    pub fn throttled(&self, wait: Duration) {
        self.throttled.inc();
        self.throttled_seconds.inc_by(wait.as_secs_f64());
    }

    /// Whether this replica holds the lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// When a counter has no valid name.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exported() {
        let metrics = Metrics::new().unwrap();
        metrics.wrote("Deployment", "apply");
        metrics.reconciled("FlyweightService", false, Duration::from_millis(3));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(
            text.contains(r#"flyweight_operator_writes_total{kind="Deployment",verb="apply"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"reconciles_total{kind="FlyweightService",result="failure"} 1"#), "{text}");
    }
}
