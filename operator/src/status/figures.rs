//! Sums over pods, and how they are written: rounded, so that a status does not change with every request.

use crds::status::{PoolFigures, TierShare};

use crate::model::report::{PodReport, PoolReport, UnreadableReport};

/// The API server takes this many tiers.
const TIERS_MAX: usize = 16;

/// The sum of one pool over pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSum {
    /// Entities in memory.
    pub entities: u64,
    /// Distinct shared states.
    pub distinct: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that sharing saves.
    pub bytes_saved: u64,
    /// Reads that a tier answered.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Events that are not yet published; none while no pod has measured it.
    pub backlog: Option<u64>,
    /// The age of the oldest of them, in any pod.
    pub staleness_ms: u64,
    /// Stored records that a pod knows to be unreadable: the most that one of them knows, since all know the
    /// same ones.
    pub unreadable: u64,
    /// One of them.
    pub unreadable_example: Option<UnreadableReport>,
    /// Hits and misses of each tier, in the order of the first pod that reports them.
    pub tiers: Vec<(String, u64, u64)>,
}

/// The sum of one tier over pods and pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierSum {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it did not.
    pub misses: u64,
    /// Entries.
    pub entries: u64,
}

/// The sum of the pool over the pods that report it; none where none does.
pub fn pool<'a>(reports: impl IntoIterator<Item = &'a PodReport>, name: &str) -> Option<PoolSum> {
    let pools = reports.into_iter().flat_map(|report| &report.pools).filter(|pool| pool.name == name);
    pools.fold(None, |sum: Option<PoolSum>, pool| Some(sum.unwrap_or_default().and(pool)))
}

/// The sum of the tier over all pools of the pods that report it; none where none does.
pub fn tier<'a>(reports: impl IntoIterator<Item = &'a PodReport>, name: &str) -> Option<TierSum> {
    let pools = reports.into_iter().flat_map(|report| &report.pools);
    let tiers = pools.flat_map(|pool| &pool.tiers).filter(|tier| tier.name == name);
    tiers.map(|tier| TierSum { hits: tier.hits, misses: tier.misses, entries: tier.entries }).reduce(
        |a, b| TierSum {
            hits: a.hits.saturating_add(b.hits),
            misses: a.misses.saturating_add(b.misses),
            entries: a.entries.saturating_add(b.entries),
        },
    )
}

impl PoolSum {
    fn and(mut self, report: &PoolReport) -> Self {
        let PoolReport { name: _, entities, distinct, bytes, bytes_saved, hits, misses, .. } = report;
        let PoolReport {
            backlog, backlog_unknown, staleness_ms, tiers, unreadable, unreadable_example, ..
        } = report;
        let sums = [
            (&mut self.entities, entities),
            (&mut self.distinct, distinct),
            (&mut self.bytes, bytes),
            (&mut self.bytes_saved, bytes_saved),
            (&mut self.hits, hits),
            (&mut self.misses, misses),
        ];
        for (sum, one) in sums {
            *sum = sum.saturating_add(*one);
        }
        // Pods share the outbox: each reports all of it.
        self.backlog = self.backlog.max((!backlog_unknown).then_some(*backlog));
        self.staleness_ms = self.staleness_ms.max(*staleness_ms);
        self.unreadable = self.unreadable.max(*unreadable);
        if self.unreadable_example.is_none() {
            self.unreadable_example.clone_from(unreadable_example);
        }
        for tier in tiers {
            match self.tiers.iter_mut().find(|(name, ..)| *name == tier.name) {
                Some((_, hits, misses)) => {
                    (*hits, *misses) = (hits.saturating_add(tier.hits), misses.saturating_add(tier.misses));
                }
                None => self.tiers.push((tier.name.clone(), tier.hits, tier.misses)),
            }
        }
        self
    }

    /// The sum under the pool's name, as the status of a service shows it.
    pub fn figures(&self, name: &str) -> PoolFigures {
        PoolFigures {
            name: name.to_owned(),
            entities: count(self.entities),
            distinct: count(self.distinct),
            bytes: bytes(self.bytes),
            bytes_saved: bytes(self.bytes_saved),
            hit_ratio: ratio(self.hits, self.misses),
            tiers: self.shares(),
            backlog: self.backlog.map(count),
            staleness: self.staleness(),
        }
    }

    /// The age of the oldest event that waits; none while no pod has measured it.
    pub fn staleness(&self) -> Option<String> {
        self.backlog.map(|_| age(self.staleness_ms))
    }

    /// The hit ratio of each tier.
    pub fn shares(&self) -> Vec<TierShare> {
        let tiers = self.tiers.iter().take(TIERS_MAX);
        tiers
            .map(|(name, hits, misses)| TierShare { name: name.clone(), hit_ratio: ratio(*hits, *misses) })
            .collect()
    }
}

/// A count in a status.
pub fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Bytes with one decimal of their largest unit: `1.2Gi`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let step = (0..UNITS.len() - 1).rev().map(|i| i + 1).find(|&i| bytes >> (10 * i) > 0).unwrap_or(0);
    if step == 0 {
        return bytes.to_string();
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * step);
    match tenths % 10 {
        0 => format!("{}{}", tenths / 10, UNITS[step]),
        tenth => format!("{}.{tenth}{}", tenths / 10, UNITS[step]),
    }
}

/// An age as a span: `120ms`, `2.5s`.
pub fn age(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        _ => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
    }
}

/// The share of hits with one decimal: `98.5%`; none before the first read.
pub fn ratio(hits: u64, misses: u64) -> Option<String> {
    let all = u128::from(hits) + u128::from(misses);
    let tenths = (u128::from(hits) * 1000).checked_div(all)?;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::TierReport;

    #[test]
    fn figures_are_rounded_down_to_one_decimal() {
        for (number, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1536, "1.5Ki"),
            (1_288_490_189, "1.2Gi"),
            (5 << 40, "5Ti"),
        ] {
            assert_eq!(bytes(number), text);
        }
        for (hits, misses, text) in [(0, 1, "0.0%"), (985, 15, "98.5%"), (1, 0, "100.0%"), (1999, 1, "99.9%")]
        {
            assert_eq!(ratio(hits, misses).as_deref(), Some(text));
        }
        assert_eq!(ratio(0, 0), None);
        assert_eq!((age(0), age(999), age(2543)), ("0ms".to_owned(), "999ms".to_owned(), "2.5s".to_owned()));
    }

    #[test]
    fn sums_are_over_pods_and_for_tiers_over_pools() {
        let tier_report = TierReport { name: "hot".to_owned(), hits: 2, misses: 1, entries: 5 };
        let pool_report = |name: &str| PoolReport {
            name: name.to_owned(),
            entities: 3,
            hits: 4,
            backlog: 9,
            staleness_ms: 70,
            tiers: vec![tier_report.clone()],
            ..PoolReport::default()
        };
        let pod = PodReport { pools: vec![pool_report("a"), pool_report("b")], ..PodReport::default() };
        let pods = [pod.clone(), pod];
        assert_eq!(
            pool(&pods, "a").unwrap(),
            PoolSum {
                entities: 6,
                hits: 8,
                backlog: Some(9),
                staleness_ms: 70,
                tiers: vec![("hot".to_owned(), 4, 2)],
                ..PoolSum::default()
            }
        );
        assert_eq!(tier(&pods, "hot").unwrap(), TierSum { hits: 8, misses: 4, entries: 20 });
        assert_eq!(pool(&pods, "c"), None);
    }

    #[test]
    fn what_no_pod_has_measured_is_left_out_and_one_is_enough_to_know_it() {
        let pod = |backlog_unknown: bool, backlog: u64| PodReport {
            pools: vec![PoolReport {
                name: "a".to_owned(),
                backlog_unknown,
                backlog,
                ..PoolReport::default()
            }],
            ..PodReport::default()
        };
        let shown = |pods: &[PodReport]| {
            let figures = pool(pods, "a").unwrap().figures("a");
            (figures.backlog, figures.staleness)
        };
        assert_eq!(shown(&[pod(true, 0), pod(true, 0)]), (None, None));
        assert_eq!(shown(&[pod(true, 0), pod(false, 0)]), (Some(0), Some("0ms".to_owned())));
        assert_eq!(shown(&[pod(false, 7), pod(true, 0)]), (Some(7), Some("0ms".to_owned())));
    }
}
