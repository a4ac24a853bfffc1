//! What a data plane pod says of itself at `GET :9090/status`. Fields that it leaves out are zero, fields
//! that are unknown here are ignored, so that operator and data plane of neighbouring versions understand
//! each other.

use serde::Deserialize;

/// What one pod runs and has counted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodReport {
    /// The hash of the settings that it runs by.
    pub configuration: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// Its pools.
    pub pools: Vec<PoolReport>,
    /// The stores and brokers as it sees them.
    pub backends: Vec<BackendReport>,
    /// The Secrets that it has mounted.
    pub secrets: Vec<SecretReport>,
    /// The requests that it answered.
    pub requests: RequestsReport,
    /// Why most of the latest of them came to nothing, if so. It does not say so itself: what it counted at
    /// two looks does.
    #[serde(skip)]
    pub trouble: Option<Trouble>,
    /// Its load.
    pub load: LoadReport,
}

/// Why most requests to a pod come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails them.
    Failing,
    /// It refuses them, because more come than it can take.
    Overloaded,
}

/// The load of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadReport {
    /// Accepted events that wait to be applied, in the log that all pods share; none where the pod could not
    /// count them.
    pub ingest_waiting: Option<u64>,
    /// Orders that wait in this pod.
    pub orders_waiting: u64,
    /// The mean time of a read that the cache answered within the last minute, in microseconds; none where
    /// there were too few.
    pub hit_micros: Option<f64>,
}

/// The requests that one pod answered since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestsReport {
    /// How many.
    pub total: u64,
    /// Those that it failed: answered with 5xx, but for those that it refused.
    pub errors: u64,
    /// Those that it refused for overload. A former version counts them among the errors.
    pub refused: u64,
    /// What the others took in all, in seconds.
    pub seconds: f64,
}

/// One pool in one pod. Counters start at zero with the pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PoolReport {
    /// The pool's name.
    pub name: String,
    /// Entities in memory.
    pub entities: u64,
    /// Distinct shared states among them.
    pub distinct: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that sharing saves.
    pub bytes_saved: u64,
    /// Reads that a tier answered.
    pub hits: u64,
    /// Reads that went to the store.
    pub misses: u64,
    /// Committed events that are not yet published.
    pub backlog: u64,
    /// Whether that was not measured yet: it may be more.
    pub backlog_unknown: bool,
    /// The age of the oldest of them.
    pub staleness_ms: u64,
    /// Its fields in which numbers were read that readers of JSON numbers round.
    pub inexact_numbers: Vec<String>,
    /// Stored records that it knows to be unreadable.
    pub unreadable: u64,
    /// One of them.
    pub unreadable_example: Option<UnreadableReport>,
    /// Its tiers.
    pub tiers: Vec<TierReport>,
    /// Why the pod answers its requests with 503; none while it serves them.
    pub unavailable: Option<UnavailableReport>,
}

/// What keeps a pool from being served in one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnavailableReport {
    /// One word: `TableMissing`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A stored record that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnreadableReport {
    /// Its key; none where the key itself cannot be read.
    pub key: Option<String>,
    /// The field that cannot be read.
    pub field: String,
}

/// One tier of one pool in one pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TierReport {
    /// The tier's name.
    pub name: String,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it did not.
    pub misses: u64,
    /// Entries, of a tier in memory.
    pub entries: u64,
}

/// A store or broker as one pod sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendReport {
    /// The backend's name.
    pub name: String,
    /// Whether it answers, and is the service's own.
    pub reachable: bool,
    /// Why it does not answer, where the pod knows.
    pub problem: Option<ProblemReport>,
    /// Who else owns what the service keeps there, where that is so: the pod leaves it alone.
    pub owned_by: Option<String>,
    /// Why writes are refused for want of room; none while there is room.
    pub storage_full: Option<String>,
    /// The settings by which an acknowledged write can be lost, each with how.
    pub durability: Vec<String>,
    /// Whether its password goes out without TLS, which the next release refuses.
    pub plaintext_password: bool,
}

/// Why a store or broker does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProblemReport {
    /// One word: `WrongPassword`.
    pub reason: String,
    /// A sentence without addresses and names of accounts.
    pub message: String,
}

/// A Secret that one pod has mounted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretReport {
    /// What it is for: `backends/mysql`, `security/jwt`.
    pub name: String,
    /// Why the pod goes on with the former content; none when it uses what is mounted.
    pub problem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_unknown_fields_are_taken() {
        let report: PodReport = serde_json::from_str(
            r#"{"service":"shop","configuration":"1a2b","new":{"x":1},"pools":[{"name":"products","bytesSaved":7,"hits":3}],
                "backends":[{"name":"mysql","reachable":true}]}"#,
        )
        .unwrap();
        assert_eq!((report.configuration.as_str(), report.ready), ("1a2b", false));
        assert_eq!((report.pools[0].bytes_saved, report.pools[0].hits, report.pools[0].misses), (7, 3, 0));
        assert!(report.backends[0].reachable);
        assert_eq!(serde_json::from_str::<PodReport>("{}").unwrap(), PodReport::default());
    }
}
