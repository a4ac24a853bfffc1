//! Joins the answers of several groups into the one that a process which serves all pools would give.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use crate::service::audit;
use model::routes::join::Rule;

const CONDITIONS: [&str; 3] = ["healthy", "degraded", "unhealthy"];

/// Joins what several groups said in the same place.
pub fn join(rule: &Rule, parts: Vec<Value>) -> Value {
    let mut said = parts.iter().filter(|part| !part.is_null());
    match rule {
        Rule::First => parts.into_iter().find(|part| !part.is_null()).unwrap_or_default(),
        Rule::Last => parts.into_iter().rev().find(|part| !part.is_null()).unwrap_or_default(),
        Rule::Sum => said.cloned().reduce(sum).unwrap_or_default(),
        Rule::Greatest => said.max_by(|a, b| order(a, b)).cloned().unwrap_or_default(),
        Rule::Least if said.clone().count() < parts.len() => Value::Null,
        Rule::Least => said.min_by(|a, b| order(a, b)).cloned().unwrap_or_default(),
        Rule::All => said.all(|part| *part == true).into(),
        Rule::Some => said.any(|part| *part == true).into(),
        Rule::Worst => {
            let badness = |part: &&Value| CONDITIONS.iter().position(|word| part.as_str() == Some(*word));
            said.max_by_key(badness).cloned().unwrap_or_default()
        }
        Rule::Chain => said.filter_map(Value::as_str).collect::<Vec<_>>().join("+").into(),
        // made by the object that it is in
        Rule::HitRate => Value::Null,
        Rule::List(by, each) => list(by, each, parts),
        Rule::Map(each) => map(parts, |_| *each),
        Rule::Object(rules) | Rule::Report(rules, _) => object(rules, parts),
        Rule::Page => page(parts),
        // of streams, not of documents
        Rule::Lines => Value::Null,
    }
}

/// The order of two numbers, or of two texts.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    }
}

fn sum(a: Value, b: Value) -> Value {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.saturating_add(b).into(),
        _ => (a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default()).into(),
    }
}

fn list(by: &str, each: &Rule, parts: Vec<Value>) -> Value {
    let name = |element: &Value| if by.is_empty() { element.clone() } else { element[by].clone() };
    let mut groups: Vec<Vec<Value>> = Vec::new();
    for element in parts.into_iter().filter_map(elements).flatten() {
        let same = |group: &&mut Vec<Value>| group.first().is_some_and(|first| name(first) == name(&element));
        match groups.iter_mut().find(same) {
            Some(group) => group.push(element),
            None => groups.push(vec![element]),
        }
    }
    groups.into_iter().map(|group| join(each, group)).collect()
}

fn elements(part: Value) -> Option<Vec<Value>> {
    match part {
        Value::Array(elements) => Some(elements),
        _ => None,
    }
}

fn map<'a>(parts: Vec<Value>, rule: impl Fn(&str) -> &'a Rule) -> Value {
    if parts.iter().all(|part| !part.is_object()) {
        return join(&Rule::First, parts);
    }
    let mut members: Map<String, Value> = Map::new();
    for part in parts {
        let Value::Object(part) = part else { continue };
        for (name, value) in part {
            let joined = members.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = joined {
                values.push(value);
            }
        }
    }
    let joined = members.into_iter().map(|(name, values)| {
        let value = join(rule(&name), elements(values).unwrap_or_default());
        (name, value)
    });
    Value::Object(joined.collect())
}

fn object(rules: &[(&str, Rule)], parts: Vec<Value>) -> Value {
    let of =
        |name: &str| rules.iter().find(|(known, _)| *known == name).map_or(&Rule::First, |(_, rule)| rule);
    let mut joined = map(parts, of);
    let rates = rules.iter().filter(|(_, rule)| matches!(rule, Rule::HitRate));
    for (name, _) in rates {
        if joined.get(*name).is_some() {
            joined[*name] = rate(&joined).into();
        }
    }
    joined
}

/// The part of hits in all reads: 0 before the first.
fn rate(of: &Value) -> f64 {
    let (hits, misses) = (of["hits"].as_f64().unwrap_or_default(), of["misses"].as_f64().unwrap_or_default());
    if hits + misses > 0.0 { hits / (hits + misses) } else { 0.0 }
}

/// A page that is not the last of its list says nothing of what comes after its last entry: there the joined
/// page ends.
fn page(parts: Vec<Value>) -> Value {
    let limit = parts.iter().find_map(|part| part["limit"].as_u64()).unwrap_or_default();
    let ends = |part: &Value| {
        let last = part["items"]
            .as_array()
            .and_then(|items| items.last())
            .filter(|_| !part["next_cursor"].is_null())?;
        let (at, id) = place(last);
        Some((at.to_owned(), id.to_owned()))
    };
    let end = parts.iter().filter_map(ends).min();
    let mut items: Vec<Value> =
        parts.into_iter().filter_map(|mut part| elements(part["items"].take())).flatten().collect();
    items.sort_by(|a, b| place(a).cmp(&place(b)));
    items.dedup_by(|a, b| a["id"] == b["id"]);
    if let Some((at, id)) = &end {
        items.retain(|item| place(item) <= (at.as_str(), id.as_str()));
    }
    let length = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = end.is_some() || items.len() > length;
    items.truncate(length);
    let cursor = items.last().filter(|_| more).map(place).map(|(at, id)| audit::cursor(at, id));
    json!({ "items": items, "limit": limit, "next_cursor": cursor })
}

/// Where an entry of the audit stands. Times of one form sort as text.
pub fn place(entry: &Value) -> (&str, &str) {
    (entry["at"].as_str().unwrap_or_default(), entry["id"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::routes::join;

    #[test]
    fn figures_are_added_and_rates_made_anew() {
        let group = |hits: u64, misses: u64, saved: i64, at: Option<&str>, pool: &str| {
            let total = json!({ "hits": hits, "misses": misses, "hit_rate": 0.9, "bytes_saved": saved, "last_cleanup": at });
            json!({ "total": total, "pools": { pool: { "hits": hits } } })
        };
        let parts = vec![
            group(3, 1, -5, None, "a"),
            group(1, 3, 7, Some("2026-01-02"), "b"),
            group(0, 0, 0, Some("2026-01-01"), "c"),
        ];
        let joined = join(&join::FACTORY, parts);
        let total = json!({ "hits": 4, "misses": 4, "hit_rate": 0.5, "bytes_saved": 2, "last_cleanup": "2026-01-02" });
        assert_eq!(
            joined,
            json!({ "total": total, "pools": { "a": { "hits": 3 }, "b": { "hits": 1 }, "c": { "hits": 0 } } })
        );
        assert_eq!(join(&join::CACHES, vec![json!({ "hit_rate": 0.0 })]), json!({ "hit_rate": 0.0 }));
    }

    #[test]
    fn the_worst_counts_and_what_several_say_is_said_once() {
        let health = |status: &str, store: &str, own: &str| {
            let checks = json!({ "mysql": { "status": store }, own: { "status": "healthy" } });
            json!({ "status": status, "version": "1", "checks": checks, "unavailable": {}, "factory": null })
        };
        let joined =
            join(&join::HEALTH, vec![health("healthy", "healthy", "a"), health("degraded", "degraded", "b")]);
        let checks = json!({ "mysql": { "status": "degraded" }, "a": { "status": "healthy" }, "b": { "status": "healthy" } });
        let wanted = json!({ "status": "degraded", "version": "1", "checks": checks, "unavailable": {}, "factory": null });
        assert_eq!(joined, wanted);
        let one = |entities: &[&str], health: Value| {
            let entities: Vec<Value> = entities.iter().map(|name| json!({ "name": name })).collect();
            json!({ "repositories": [{ "type": "mysql", "entities": entities, "health": health }] })
        };
        let joined = join(
            &join::REPOSITORIES,
            vec![one(&["a", "b"], Value::Null), one(&["b", "c"], json!("healthy"))],
        );
        assert_eq!(joined, one(&["a", "b", "c"], json!("healthy")));
        let parts = vec![json!({ "schemas": ["/a", "/b"] }), json!({ "schemas": ["/b", "/c"] })];
        assert_eq!(join(&join::SCHEMAS, parts), json!({ "schemas": ["/a", "/b", "/c"] }));
        let done = |replayed, failed, more, cursor: Value| json!({ "replayed": replayed, "failed": failed, "more": more, "next_cursor": cursor });
        let joined = join(&join::REPLAYED, vec![done(2, 3, true, json!("k")), done(3, 0, true, json!("j"))]);
        assert_eq!(joined, done(5, 0, true, json!("j")));
        let joined = join(
            &join::WARMED,
            vec![json!({ "loaded": 1, "complete": true }), json!({ "loaded": 2, "complete": false })],
        );
        assert_eq!(joined, json!({ "loaded": 3, "complete": false }));
    }

    #[test]
    fn pages_of_groups_are_read_as_one_list_to_its_end() {
        // each group has every other entry; one is in both
        let all: Vec<Value> =
            (0..10).map(|n| json!({ "at": format!("t{n}"), "id": format!("i{n}") })).collect();
        let cursor = |entry: &Value| audit::cursor(place(entry).0, place(entry).1);
        let (mut read, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
        for _ in 0..5 {
            let start =
                after.map_or(0, |after| 1 + all.iter().position(|entry| cursor(entry) == after).unwrap());
            let page = |group| {
                let own = all.iter().enumerate().skip(start).filter(|(n, _)| n % 2 == group || *n == 4);
                let mut items: Vec<Value> = own.map(|(_, entry)| entry.clone()).collect();
                let more = items.len() > 3;
                items.truncate(3);
                json!({ "items": items, "limit": 3, "next_cursor": more.then_some("theirs") })
            };
            let mut joined = join(&Rule::Page, vec![page(0), page(1)]);
            read.extend(elements(joined["items"].take()).unwrap());
            after = joined["next_cursor"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, all);
    }
}
