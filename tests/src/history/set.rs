//! A set: elements are only added, and all of them are listed in the end.
//!
//! An element is in the list where it was acknowledged, and is not where it was refused or nobody added it.
//! What is in the list is in the feed, once, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Operation, Outcome,
    feed::{self, Told},
};

/// An addition of one element, which is added once.
#[derive(Clone, Debug)]
pub struct Add(
    /// The element.
    pub String,
);

/// Everything in the history that the list and the feed do not allow.
pub fn violations(history: &[Operation<Add>], list: &[String], told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    let there: BTreeSet<&str> = list.iter().map(String::as_str).collect();
    if there.len() != list.len() {
        found.push(format!("{} elements are listed twice", list.len() - there.len()));
    }
    let mut strangers = there.clone();
    for Operation { act: Add(element), outcome, .. } in history {
        let is_there = there.contains(element.as_str());
        strangers.remove(element.as_str());
        match outcome {
            Outcome::Done if !is_there => found.push(format!("{element} was acknowledged and is not there")),
            Outcome::Refused if is_there => found.push(format!("{element} was refused and is there")),
            Outcome::Done | Outcome::Refused | Outcome::Unknown => {}
        }
    }
    found.extend(strangers.into_iter().map(|element| format!("{element} is there and nobody added it")));
    let newest: BTreeMap<String, u64> = list.iter().map(|element| (element.clone(), 1)).collect();
    found.extend(feed::violations(told, &newest));
    let unlisted: BTreeSet<&str> =
        told.iter().map(|told| told.key.as_str()).filter(|key| !there.contains(key)).collect();
    found.extend(unlisted.into_iter().map(|element| format!("{element} is in the feed and not in the list")));
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::{assert_one, operation},
        Outcome::{Done, Refused, Unknown},
        *,
    };

    fn of(list: &[&str], told: &[&str]) -> Vec<String> {
        let add = |name: &str, outcome| operation(1, (0, 1), outcome, Add(name.to_owned()));
        let history = [add("a", Done), add("b", Unknown), add("c", Refused)];
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        let tell =
            |(at, name): (usize, &&str)| Told { key: (*name).to_owned(), version: 1, id: at.to_string() };
        let told: Vec<Told> = told.iter().enumerate().map(tell).collect();
        violations(&history, &list, &told)
    }

    #[test]
    fn what_can_be_is_right_and_each_violation_is_found() {
        assert_eq!(of(&["a"], &["a"]), [""; 0]);
        assert_eq!(of(&["a", "b"], &["b", "a"]), [""; 0]);
        assert_one(&of(&[], &[]), "a was acknowledged and is not there");
        assert_one(&of(&["a", "c"], &["a", "c"]), "c was refused and is there");
        assert_one(&of(&["a", "z"], &["a", "z"]), "nobody added it");
        assert_one(&of(&["a", "a"], &["a"]), "listed twice");
        assert_one(&of(&["a", "b"], &["a"]), "b: the feed has []");
        assert_one(&of(&["a"], &["a", "a"]), "a: the feed has [1, 1]");
        assert_one(&of(&["a"], &["a", "b"]), "b is in the feed and not in the list");
    }
}
