//! What requests cost: counters and times, resolved once for each route so that a request looks nothing up.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Metric,
};
use serde::Serialize;

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
    /// Does several operations.
    Batch,
    /// Takes events in.
    Ingest,
}

impl Operation {
    /// Whether it changes or adds something, which takes memory that a read does not.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List)
    }
}

const OPERATIONS: [(Operation, &str); 8] = [
    (Operation::Get, "get"),
    (Operation::List, "list"),
    (Operation::Create, "create"),
    (Operation::Replace, "replace"),
    (Operation::Patch, "patch"),
    (Operation::Delete, "delete"),
    (Operation::Batch, "batch"),
    (Operation::Ingest, "ingest"),
];
/// The upper bounds of the times that are told apart, in seconds.
pub const BOUNDS_S: [f64; 16] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The classes of status, and at last the demands of clients that cannot be met, such as a version that
/// nobody has written: no failure of either side.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "unmet"];
/// The place of the class of this side's failures.
const FAILED: usize = 4;
/// The place of demands that were not met.
const UNMET: usize = 5;

/// The families of request metrics.
pub struct HttpMetrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    seconds: HistogramVec,
}

/// The metrics of one pool.
pub struct PoolMetrics {
    routes: Vec<RouteMetrics>,
    hits: AtomicU64,
    hit_nanos: AtomicU64,
    refused_nanos: AtomicU64,
}

struct RouteMetrics {
    classes: Vec<IntCounter>,
    refused: IntCounter,
    seconds: Histogram,
}

impl HttpMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// Another family has the same name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "flyweight_http_requests_total",
                "Requests answered, by pool, operation and class of status.",
            ),
            &["pool", "operation", "class"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "flyweight_http_refused_total",
                "Requests refused for overload: those of class 5xx that are no failures.",
            ),
            &["pool", "operation"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("flyweight_http_request_seconds", "Time from a request's head to its answer.")
                .buckets(BOUNDS_S.to_vec()),
            &["pool", "operation"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { requests, refused, seconds })
    }

    /// The metrics of one pool, resolved.
    pub fn of_pool(&self, pool: &str) -> PoolMetrics {
        let routes = OPERATIONS.iter().map(|(_, operation)| RouteMetrics {
            classes: CLASSES
                .iter()
                .map(|class| self.requests.with_label_values(&[pool, operation, class]))
                .collect(),
            refused: self.refused.with_label_values(&[pool, operation]),
            seconds: self.seconds.with_label_values(&[pool, operation]),
        });
        PoolMetrics {
            routes: routes.collect(),
            hits: AtomicU64::new(0),
            hit_nanos: AtomicU64::new(0),
            refused_nanos: AtomicU64::new(0),
        }
    }
}

/// What one operation of a pool was asked since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationFigures {
    /// Its name.
    pub operation: &'static str,
    /// Requests answered.
    pub requests: u64,
    /// Those that this side failed.
    pub errors: u64,
    /// How many took at most each of [`BOUNDS_S`], and at last all.
    pub buckets: Vec<u64>,
}

/// What a pool was asked since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RequestFigures {
    /// Requests answered.
    pub total: u64,
    /// Those that this side failed.
    pub errors: u64,
    /// Those that it refused for overload, which are no errors.
    pub refused: u64,
    /// What the others took in all, in seconds: refusals are held back.
    pub seconds: f64,
}

/// Reads of one record that a tier answered, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HitFigures {
    /// How many.
    pub hits: u64,
    /// What they took in all, in nanoseconds.
    pub nanos: u64,
}

impl PoolMetrics {
    /// Counts a read that a tier answered.
    pub fn hit(&self, took: Duration) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.hit_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The reads that a tier answered.
    pub fn hits(&self) -> HitFigures {
        HitFigures { hits: self.hits.load(Ordering::Relaxed), nanos: self.hit_nanos.load(Ordering::Relaxed) }
    }

    /// The figures of every operation.
    pub fn figures(&self) -> Vec<OperationFigures> {
        let figures = |(route, (_, operation)): (&RouteMetrics, &(Operation, &'static str))| {
            let metric = route.seconds.metric();
            let histogram = metric.get_histogram();
            let requests = histogram.get_sample_count();
            let upto = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
            let errors = route.classes.get(FAILED).map_or(0, IntCounter::get);
            OperationFigures { operation, requests, errors, buckets: upto.chain([requests]).collect() }
        };
        self.routes.iter().zip(&OPERATIONS).map(figures).collect()
    }

    /// What all operations were asked.
    pub fn total(&self) -> RequestFigures {
        let all = self.routes.iter().fold(RequestFigures::default(), |sum, route| RequestFigures {
            total: sum.total + route.seconds.get_sample_count(),
            errors: sum.errors + route.classes.get(FAILED).map_or(0, IntCounter::get),
            refused: sum.refused + route.refused.get(),
            seconds: sum.seconds + route.seconds.get_sample_sum(),
        });
        let held_back = Duration::from_nanos(self.refused_nanos.load(Ordering::Relaxed)).as_secs_f64();
        // While a refusal is being counted it may be among the one and not yet among the other.
        RequestFigures {
            errors: all.errors.saturating_sub(all.refused),
            seconds: (all.seconds - held_back).max(0.0),
            ..all
        }
    }

    /// Counts an answer, beside [`Self::observe`], as a refusal for overload.
    pub fn refused(&self, operation: Operation, took: Duration) {
        let Some(route) = self.routes.get(operation as usize) else { return };
        route.refused.inc();
        self.refused_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts one answer.
    pub fn observe(&self, operation: Operation, status: StatusCode, took: Duration) {
        self.count(operation, usize::from(status.as_u16() / 100).saturating_sub(1), took);
    }

    /// Counts an answer, in place of [`Self::observe`], as a demand that cannot be met.
    pub fn unmet(&self, operation: Operation, took: Duration) {
        self.count(operation, UNMET, took);
    }

    fn count(&self, operation: Operation, class: usize, took: Duration) {
        let Some(route) = self.routes.get(operation as usize) else { return };
        if let Some(class) = route.classes.get(class) {
            class.inc();
        }
        route.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_say_how_long_requests_took() {
        let metrics = HttpMetrics::new(&Registry::new()).unwrap().of_pool("users");
        metrics.observe(Operation::List, StatusCode::OK, Duration::from_millis(2));
        metrics.observe(Operation::List, StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(20));
        let all = metrics.figures();
        let lists = all.iter().find(|figures| figures.operation == "list").unwrap();
        assert_eq!((lists.requests, lists.errors, lists.buckets.len()), (2, 1, BOUNDS_S.len() + 1));
        assert_eq!(lists.buckets[4..7], [0, 1, 1]);
        assert_eq!(lists.buckets.last(), Some(&2));
        let RequestFigures { total, errors, refused, seconds } = metrics.total();
        assert_eq!((total, errors, refused), (2, 1, 0));
        assert!((seconds - 20.002).abs() < 1e-9);
    }

    #[test]
    fn a_refusal_for_overload_is_no_error_and_takes_no_time() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry).unwrap().of_pool("users");
        metrics.observe(Operation::Create, StatusCode::CREATED, Duration::from_millis(2));
        metrics.observe(Operation::Create, StatusCode::SERVICE_UNAVAILABLE, Duration::from_millis(4));
        metrics.observe(Operation::Create, StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(2));
        metrics.refused(Operation::Create, Duration::from_secs(2));
        let RequestFigures { total, errors, refused, seconds } = metrics.total();
        assert_eq!((total, errors, refused), (3, 1, 1));
        assert!((seconds - 0.006).abs() < 1e-9, "{seconds}");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains(r#"flyweight_http_refused_total{operation="create",pool="users"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"flyweight_http_requests_total{class="5xx",operation="create",pool="users"} 2"#),
            "{text}"
        );
    }

    #[test]
    fn a_demand_that_cannot_be_met_is_no_error() {
        let registry = Registry::new();
        let metrics = HttpMetrics::new(&registry).unwrap().of_pool("users");
        metrics.unmet(Operation::Get, Duration::from_secs(1));
        let RequestFigures { total, errors, refused, .. } = metrics.total();
        assert_eq!((total, errors, refused), (1, 0, 0));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains(r#"flyweight_http_requests_total{class="unmet",operation="get",pool="users"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"flyweight_http_requests_total{class="5xx",operation="get",pool="users"} 0"#),
            "{text}"
        );
    }

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
