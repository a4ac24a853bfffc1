//! The load of this process, as the operator scales by it: work that waits, and what a read from the cache
//! costs.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{orders::Orders, pools::ServedPool};
use crate::{http::metrics::HitFigures, service::ingest::queue::IngestQueue};

/// How often the counters are read.
const EVERY: Duration = Duration::from_secs(10);
/// Over how many of these readings a cost is told: a minute.
const READINGS: usize = 6;
/// The fewest reads that tell a cost.
const HITS_MIN: u64 = 100;

/// Tells the load.
pub struct Load {
    pools: Arc<Vec<ServedPool>>,
    orders: Arc<Orders>,
    ingest: Option<Arc<IngestQueue>>,
    readings: Mutex<VecDeque<HitFigures>>,
}

impl Load {
    /// The load of these parts.
    pub fn new(pools: Arc<Vec<ServedPool>>, orders: Arc<Orders>, ingest: Option<Arc<IngestQueue>>) -> Self {
        Self { pools, orders, ingest, readings: Mutex::default() }
    }

    /// Reads the counters from time to time.
    pub async fn follow(&self) {
        loop {
            note(&mut self.readings.lock(), self.hits());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// What the operator reads: events that wait in the log that all replicas share, null where they could
    /// not be counted; orders that wait here; and the mean time of a read that a tier answered within the
    /// last minute, in microseconds, null where there were too few.
    pub fn status(&self) -> Value {
        let ingest = self.ingest.as_ref().map_or(Some(0), |queue| queue.figures().waiting);
        let micros = cost(&self.readings.lock(), self.hits());
        json!({ "ingestWaiting": ingest, "ordersWaiting": self.orders.waiting(), "hitMicros": micros })
    }

    fn hits(&self) -> HitFigures {
        let pools = self.pools.iter().map(|pool| pool.resource.metrics().hits());
        pools.fold(HitFigures::default(), |sum, pool| HitFigures {
            hits: sum.hits + pool.hits,
            nanos: sum.nanos + pool.nanos,
        })
    }
}

fn note(readings: &mut VecDeque<HitFigures>, now: HitFigures) {
    readings.push_back(now);
    if readings.len() > READINGS {
        readings.pop_front();
    }
}

/// The mean time of a hit since the oldest reading, in microseconds.
fn cost(readings: &VecDeque<HitFigures>, now: HitFigures) -> Option<f64> {
    let since = readings.front().copied().unwrap_or_default();
    let (hits, nanos) = (now.hits - since.hits, now.nanos - since.nanos);
    (hits >= HITS_MIN).then(|| nanos as f64 / hits as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_that_of_the_last_minute() {
        let mut readings = VecDeque::new();
        let at = |minutes: u64| HitFigures { hits: minutes * 1_000, nanos: minutes * minutes * 1_000_000 };
        assert_eq!(cost(&readings, HitFigures { hits: 99, nanos: 1 }), None, "too few");
        for minute in 0..10 {
            note(&mut readings, at(minute));
        }
        assert_eq!(readings.len(), READINGS);
        // from the reading of 4 to 10: (100 - 16) ms for 6,000 reads
        assert_eq!(cost(&readings, at(10)), Some(14.0));
        assert_eq!(cost(&readings, at(4)), None);
    }
}
