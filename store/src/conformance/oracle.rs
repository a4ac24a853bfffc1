//! What a store must find, in the plainest words: a list of records, filtered and sorted in memory.

use std::cmp::Ordering;

use crate::pattern::forms_of;

use model::{
    query::{Comparison, Direction, Filter, Query, Start},
    record::Record,
    schema::FieldRef,
    value::Value,
};

/// Everything that a query finds, in order, without regard to its limit.
pub fn all(records: &[Record], query: &Query) -> Vec<Record> {
    let mut found: Vec<Record> =
        records.iter().filter(|record| takes(&query.filter, record)).cloned().collect();
    found.sort_by(|a, b| compare(a, b, &query.order));
    assert_eq!(query.start, Start::Offset(0), "it starts at the beginning");
    found
}

fn compare(a: &Record, b: &Record, order: &[(FieldRef, Direction)]) -> Ordering {
    for (field, direction) in order {
        let ordering = a.value_of(*field).compare(&b.value_of(*field));
        let ordering = if *direction == Direction::Ascending { ordering } else { ordering.reverse() };
        if ordering.is_ne() {
            return ordering;
        }
    }
    a.key.as_str().cmp(b.key.as_str())
}

fn takes(filter: &Filter, record: &Record) -> bool {
    let holds = |field: &FieldRef, comparison: Comparison, value: &Value| {
        let own = record.value_of(*field);
        if own.is_null() || value.is_null() {
            return false;
        }
        let ordering = own.compare(value);
        match comparison {
            Comparison::Eq => ordering.is_eq(),
            Comparison::Ne => ordering.is_ne(),
            Comparison::Lt => ordering.is_lt(),
            Comparison::Lte => ordering.is_le(),
            Comparison::Gt => ordering.is_gt(),
            Comparison::Gte => ordering.is_ge(),
        }
    };
    match filter {
        Filter::All => true,
        Filter::And(parts) => parts.iter().all(|part| takes(part, record)),
        Filter::Or(parts) => parts.iter().any(|part| takes(part, record)),
        Filter::Not(part) => !takes(part, record),
        Filter::Compare(field, comparison, value) => holds(field, *comparison, value),
        Filter::In(field, values) => values.iter().any(|value| holds(field, Comparison::Eq, value)),
        Filter::Between(field, low, high) => {
            holds(field, Comparison::Gte, low) && holds(field, Comparison::Lte, high)
        }
        Filter::IsNull(field) => record.value_of(*field).is_null(),
        Filter::Holds(field, part) => match record.value_of(*field) {
            Value::Text(text) => holds_part(&text, part),
            _ => false,
        },
        Filter::Same(field, text) => match record.value_of(*field) {
            Value::Text(own) => own.chars().count() == text.chars().count() && holds_part(&own, text),
            _ => false,
        },
        Filter::Like(field, pattern) => match record.value_of(*field) {
            Value::Text(text) => {
                like(&text.chars().collect::<Vec<_>>(), &pattern.chars().collect::<Vec<_>>())
            }
            _ => false,
        },
    }
}

fn holds_part(text: &str, part: &str) -> bool {
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let same = |(a, b): (&char, &char)| forms_of(*b).contains(a);
    part.is_empty() || text.windows(part.len()).any(|window| window.iter().zip(&part).all(same))
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['%', rest @ ..], text) => (0..=text.len()).any(|skipped| like(&text[skipped..], rest)),
        (['_', rest @ ..], [_, later @ ..]) => like(later, rest),
        (['\\', literal, rest @ ..], [first, later @ ..]) => literal == first && like(later, rest),
        (['\\', _, ..], []) => false,
        ([literal, rest @ ..], [first, later @ ..]) => literal == first && like(later, rest),
        (_, []) => false,
    }
}
