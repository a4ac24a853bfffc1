//! The feed: of each record every version as one event, in order. An event may come again; then it has the
//! same id.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A record of the feed, in the order of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which record changed.
    pub key: String,
    /// The version that it has since.
    pub version: u64,
    /// The id of the event.
    pub id: String,
}

/// Everything in the feed that is not right, where these are the newest versions of the records that are
/// looked at.
pub fn violations(told: &[Told], newest: &BTreeMap<String, u64>) -> Vec<String> {
    let mut ids = HashSet::new();
    let mut versions: HashMap<&str, Vec<u64>> = HashMap::new();
    for Told { key, version, id } in told {
        if ids.insert(id) {
            versions.entry(key).or_default().push(*version);
        }
    }
    let mut found = Vec::new();
    for (key, newest) in newest {
        let seen = versions.remove(key.as_str()).unwrap_or_default();
        if !seen.iter().copied().eq(1..=*newest) {
            found.push(format!("{key}: the feed has {seen:?}, the record is at {newest}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::assert_one, *};

    fn told(all: &[(&str, u64, &str)]) -> Vec<Told> {
        let one = |(key, version, id): &(&str, u64, &str)| Told {
            key: (*key).to_owned(),
            version: *version,
            id: (*id).to_owned(),
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_gap_an_order_and_a_second_event_are_found_and_a_repetition_is_none() {
        let newest = BTreeMap::from([("a".to_owned(), 2)]);
        let of = |all: &[(&str, u64, &str)]| violations(&told(all), &newest);
        assert_eq!(of(&[("a", 1, "1"), ("b", 7, "x"), ("a", 1, "1"), ("a", 2, "2"), ("a", 1, "1")]), [""; 0]);
        assert_one(&of(&[("a", 1, "1")]), "the feed has [1], the record is at 2");
        assert_one(&of(&[("a", 2, "2"), ("a", 1, "1")]), "[2, 1]");
        assert_one(&of(&[("a", 1, "1"), ("a", 2, "2"), ("a", 2, "3")]), "[1, 2, 2]");
        assert_one(&of(&[("a", 1, "1"), ("a", 2, "2"), ("a", 3, "3")]), "[1, 2, 3]");
    }
}
