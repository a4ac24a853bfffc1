//! What requests cost: counters and times, resolved once for each route so that a request looks nothing up.

use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads one record.
    Get,
    /// Reads a page, or many by their keys.
    List,
    /// Creates a record.
    Create,
    /// Replaces a record.
    Replace,
    /// Patches a record, or moves its status.
    Patch,
    /// Deletes a record.
    Delete,
}

const OPERATIONS: [(Operation, &str); 6] = [
    (Operation::Get, "get"),
    (Operation::List, "list"),
    (Operation::Create, "create"),
    (Operation::Replace, "replace"),
    (Operation::Patch, "patch"),
    (Operation::Delete, "delete"),
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The families of request metrics.
pub struct HttpMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

/// The metrics of one pool.
pub struct PoolMetrics {
    routes: Vec<RouteMetrics>,
}

struct RouteMetrics {
    classes: Vec<IntCounter>,
    seconds: Histogram,
}

impl HttpMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// Another family has the same name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("flyweight_http_requests_total", "Requests answered, by pool, operation and class of status."),
            &["pool", "operation", "class"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("flyweight_http_request_seconds", "Time from a request's head to its answer.").buckets(
                vec![
                    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
                    2.5, 10.0,
                ],
            ),
            &["pool", "operation"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, seconds })
    }

    /// The metrics of one pool, resolved.
    pub fn of_pool(&self, pool: &str) -> PoolMetrics {
        let routes = OPERATIONS.iter().map(|(_, operation)| RouteMetrics {
            classes: CLASSES.iter().map(|class| self.requests.with_label_values(&[pool, operation, class])).collect(),
            seconds: self.seconds.with_label_values(&[pool, operation]),
        });
        PoolMetrics { routes: routes.collect() }
    }
}

impl PoolMetrics {
    /// Counts one answer.
    pub fn observe(&self, operation: Operation, status: StatusCode, took: Duration) {
        let Some(route) = self.routes.get(operation as usize) else { return };
        if let Some(class) = route.classes.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            class.inc();
        }
        route.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_under_their_names() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry).unwrap().of_pool("users");
        for (index, (operation, _)) in OPERATIONS.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
        metrics.observe(Operation::Delete, StatusCode::NOT_FOUND, Duration::from_millis(1));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains(r#"flyweight_http_requests_total{class="4xx",operation="delete",pool="users"} 1"#),
            "{text}"
        );
    }
}
