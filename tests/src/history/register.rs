//! Registers: records that are written, compared and set, and read.
//!
//! - Each version is one write's, and nobody else's. A compare-and-set has the version after the one that it
//!   names.
//! - A write that was acknowledged is there, at the version that was answered. One that was refused is not.
//! - A write that was asked after another was acknowledged has a higher version.
//! - A read gives a version as it is in the record, of a write that was asked before the read returned.
//! - Over one connection no version is lower than one that was read or written before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{Chain, Operation, Outcome, gaps};

/// What is asked of a register. Every value is written once.
#[derive(Clone, Debug)]
pub enum Act {
    /// A write, of any version or of one that must be the newest.
    Write {
        /// The record.
        key: String,
        /// The value.
        value: String,
        /// The version that must be the newest.
        expected: Option<u64>,
        /// The version that was answered.
        version: Option<u64>,
    },
    /// A read that was answered.
    Read {
        /// The record.
        key: String,
        /// The value.
        value: String,
        /// Its version.
        version: u64,
    },
}

/// A write of a history.
struct Write<'a> {
    value: &'a str,
    expected: Option<u64>,
    version: Option<u64>,
    operation: &'a Operation<Act>,
}

/// Everything in the history that the records, by their keys, do not allow.
pub fn violations(history: &[Operation<Act>], records: &BTreeMap<String, Chain<String>>) -> Vec<String> {
    let mut found = Vec::new();
    let keys: BTreeSet<&str> = history.iter().map(|operation| key_of(&operation.act)).collect();
    let nothing = Chain::new();
    for key in keys {
        let chain = records.get(key).unwrap_or(&nothing);
        found.extend(gaps(key, chain));
        let writes = writes(history, key);
        found.extend(invented(key, chain, &writes));
        found.extend(lost(key, chain, &writes));
        found.extend(out_of_time(key, chain, &writes));
        found.extend(misread(key, chain, &writes, history));
    }
    found.extend(gone_back(history));
    found
}

fn key_of(act: &Act) -> &str {
    let (Act::Write { key, .. } | Act::Read { key, .. }) = act;
    key
}

fn writes<'a>(history: &'a [Operation<Act>], key: &str) -> HashMap<&'a str, Write<'a>> {
    let of_key = history.iter().filter_map(|operation| match &operation.act {
        Act::Write { key: of, value, expected, version } if of == key => {
            Some((value.as_str(), Write { value, expected: *expected, version: *version, operation }))
        }
        Act::Write { .. } | Act::Read { .. } => None,
    });
    of_key.collect()
}

/// Versions that are nobody's, or were refused, or are not where they were asked for.
fn invented(key: &str, chain: &Chain<String>, writes: &HashMap<&str, Write<'_>>) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (version, value) in chain {
        if !seen.insert(value) {
            found.push(format!("{key}: {value} happened twice, the second time at version {version}"));
        }
        let Some(write) = writes.get(value.as_str()) else {
            found.push(format!("{key}: version {version} is {value}, which nobody wrote"));
            continue;
        };
        if write.operation.outcome == Outcome::Refused {
            found.push(format!("{key}: version {version} is {value}, which was refused"));
        }
        if write.expected.is_some_and(|expected| expected + 1 != *version) {
            found.push(format!("{key}: {value} was for after {:?} and is at {version}", write.expected));
        }
    }
    found
}

/// Acknowledged writes that are not there.
fn lost(key: &str, chain: &Chain<String>, writes: &HashMap<&str, Write<'_>>) -> Vec<String> {
    let done = writes.values().filter(|write| write.operation.outcome == Outcome::Done);
    let is_lost = |write: &&Write<'_>| {
        let there = write.version.and_then(|version| chain.get(&version));
        there.is_none_or(|there| there != write.value)
    };
    done.filter(is_lost)
        .map(|write| {
            format!("{key}: {} was acknowledged at {:?} and is not there", write.value, write.version)
        })
        .collect()
}

/// Writes that took effect before one that had returned when they were asked.
fn out_of_time(key: &str, chain: &Chain<String>, writes: &HashMap<&str, Write<'_>>) -> Vec<String> {
    let mut found = Vec::new();
    let mut latest: Option<(Duration, &str)> = None;
    for value in chain.values() {
        let Some(write) = writes.get(value.as_str()) else { continue };
        if let Some((invoked, before)) = latest
            && write.operation.outcome == Outcome::Done
            && write.operation.returned < invoked
        {
            found.push(format!(
                "{key}: {before} was asked after {value} was acknowledged and has a lower version"
            ));
        }
        if latest.is_none_or(|(invoked, _)| write.operation.invoked > invoked) {
            latest = Some((write.operation.invoked, write.value));
        }
    }
    found
}

/// Reads of what was never there, or not yet.
fn misread(
    key: &str,
    chain: &Chain<String>,
    writes: &HashMap<&str, Write<'_>>,
    history: &[Operation<Act>],
) -> Vec<String> {
    let mut found = Vec::new();
    for operation in history {
        let Act::Read { key: of, value, version } = &operation.act else { continue };
        if of != key {
            continue;
        }
        if chain.get(version) != Some(value) {
            found.push(format!(
                "{key}: {value} was read at version {version}, where {:?} is",
                chain.get(version)
            ));
        }
        if writes.get(value.as_str()).is_some_and(|write| write.operation.invoked > operation.returned) {
            found.push(format!("{key}: {value} was read before it was written"));
        }
    }
    found
}

/// Versions that are lower than what their connection knew.
fn gone_back(history: &[Operation<Act>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut known: HashMap<(usize, &str), u64> = HashMap::new();
    for operation in history.iter().filter(|operation| operation.outcome == Outcome::Done) {
        let (key, version) = match &operation.act {
            Act::Write { key, version, .. } => (key, version.unwrap_or_default()),
            Act::Read { key, version, .. } => (key, *version),
        };
        let newest = known.entry((operation.connection, key.as_str())).or_default();
        if version < *newest {
            found.push(format!("{key}: {version} after {newest} over connection {}", operation.connection));
        }
        *newest = version.max(*newest);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::{assert_one, operation},
        Outcome::{Done, Refused, Unknown},
        *,
    };

    fn write(value: &str, expected: Option<u64>, version: Option<u64>) -> Act {
        Act::Write { key: "k".to_owned(), value: value.to_owned(), expected, version }
    }

    fn read(value: &str, version: u64) -> Act {
        Act::Read { key: "k".to_owned(), value: value.to_owned(), version }
    }

    fn record(values: &[&str]) -> BTreeMap<String, Chain<String>> {
        let chain = values.iter().zip(1..).map(|(value, version)| (version, (*value).to_owned())).collect();
        BTreeMap::from([("k".to_owned(), chain)])
    }

    /// What is right: an unknown write that happened, one that did not, and a reader of another connection
    /// who is behind.
    fn right() -> Vec<Operation<Act>> {
        vec![
            operation(1, (0, 10), Done, write("a", None, Some(1))),
            operation(1, (10, 20), Done, write("b", Some(1), Some(2))),
            operation(2, (11, 21), Refused, write("x", Some(1), None)),
            operation(2, (22, 30), Unknown, write("c", None, None)),
            operation(3, (22, 30), Unknown, write("y", None, None)),
            operation(3, (31, 32), Done, read("a", 1)),
            operation(1, (31, 33), Done, read("c", 3)),
        ]
    }

    #[test]
    fn a_history_that_can_be_is_found_right() {
        assert_eq!(violations(&right(), &record(&["a", "b", "c"])), [""; 0]);
    }

    #[test]
    fn each_violation_is_found() {
        let with = |more: Operation<Act>| [right(), vec![more]].concat();
        let abc = record(&["a", "b", "c"]);
        assert_one(&violations(&right(), &record(&["a", "b", "c", "z"])), "which nobody wrote");
        assert_one(&violations(&right(), &record(&["a", "b", "c", "x"]))[1..], "was for after");
        assert!(violations(&right(), &record(&["a", "b", "c", "x"]))[0].contains("which was refused"));
        assert_one(&violations(&right(), &record(&["a", "b", "c", "c"])), "happened twice");
        let lost = with(operation(4, (40, 50), Done, write("d", None, Some(4))));
        assert_one(&violations(&lost, &abc), "was acknowledged at Some(4) and is not there");
        let two = with(operation(4, (11, 21), Done, write("d", Some(1), Some(2))));
        assert_one(&violations(&two, &abc), "d was acknowledged at Some(2) and is not there");
        assert_one(
            &violations(&with(operation(1, (40, 41), Done, read("b", 2))), &abc),
            "2 after 3 over connection 1",
        );
        assert_one(
            &violations(&with(operation(9, (40, 41), Done, read("b", 1))), &abc),
            "b was read at version 1",
        );
        assert_one(
            &violations(&with(operation(9, (1, 2), Done, read("b", 2))), &abc),
            "before it was written",
        );
        let mut late = right();
        late.push(operation(5, (50, 60), Done, write("d", None, Some(3))));
        late.push(operation(6, (20, 45), Done, write("e", None, Some(4))));
        late.retain(
            |operation| !matches!(&operation.act, Act::Write { value, .. } | Act::Read { value, .. } if value == "c"),
        );
        assert_one(
            &violations(&late, &record(&["a", "b", "d", "e"])),
            "d was asked after e was acknowledged",
        );
        let gap = BTreeMap::from([("k".to_owned(), Chain::from([(1, "a".to_owned()), (3, "c".to_owned())]))]);
        assert!(violations(&right(), &gap)[0].contains("not each from 1"));
    }
}
