//! What stores make of rows and documents that other programs wrote: a record, or what of it cannot be read;
//! and pages that go on past those.

use model::{
    query::{HELD_PER_BYTE, PAGE_BYTES_MAX, Page, Position, Query, Start},
    record::{Named, Oddity, Record, Unreadable},
    value::Value,
};

use super::StoreError;

/// A row or a document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A record.
    Whole(Record),
    /// A record that cannot be read whole.
    Unreadable(Box<Unreadable>),
    /// It has no key that anybody could ask for it by.
    Keyless(Named),
}

/// What is stored where nothing with an exact meaning is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Odd {
    /// Its type.
    pub kind: String,
    /// Its bytes.
    pub length: u64,
}

impl Odd {
    /// A value of a type with so many bytes.
    pub fn new(kind: &str, length: u64) -> Self {
        Self { kind: kind.to_owned(), length }
    }
}

impl Reading {
    /// The record with what of it cannot be read.
    pub fn of(record: Record, oddities: Vec<Oddity>) -> Self {
        match oddities.is_empty() {
            true => Self::Whole(record),
            false => Self::Unreadable(Box::new(Unreadable { rest: record, oddities })),
        }
    }

    /// The bytes that it has in an answer, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Whole(record) => record.answer_bytes(),
            Self::Unreadable(unreadable) => unreadable.rest.answer_bytes(),
            Self::Keyless(named) => 64 + named.field.len(),
        }
    }

    /// Its place in the order of a query, where that can be told.
    fn position(&self, query: &Query) -> Option<Position> {
        match self {
            Self::Whole(record) => Some(record.position(&query.order)),
            Self::Unreadable(unreadable) => unreadable.position(&query.order),
            Self::Keyless(_) => None,
        }
    }
}

/// The decimal that a double stands for: of at most 15 digits, which each double keeps. Others have no short
/// exact meaning.
pub fn short_decimal(real: f64) -> Option<Value> {
    const DIGITS_MAX: usize = 15;
    let text = real.is_finite().then(|| format!("{real:e}"))?;
    let digits = text.split('e').next()?.bytes().filter(u8::is_ascii_digit).count();
    if digits > DIGITS_MAX {
        return None;
    }
    Value::exact(&text)
}

/// What is read at once for a page: it ends at the query's limit, at the bytes of a page, or where there is
/// no more memory.
pub struct Part<'a> {
    query: &'a Query,
    readings: Vec<Reading>,
    bytes: usize,
    /// Whether there are further ones.
    more: bool,
}

/// A page that is read in parts, until it ends at a record whose place can be told.
pub struct Pager<'a> {
    query: &'a Query,
    page: Page,
    /// Records of this page so far.
    taken: u64,
}

/// The most parts of a page none of whose records has a place.
const PARTS_MAX: u64 = 100;

impl<'a> Part<'a> {
    /// A part for the page of a query.
    pub fn new(query: &'a Query) -> Self {
        Self { query, readings: Vec::new(), bytes: 0, more: false }
    }

    /// Takes what was read next, as far as it still belongs to the part. Says whether to go on reading.
    pub fn push(&mut self, reading: Reading) -> bool {
        let bytes = reading.bytes();
        let is_full = self.readings.len() >= self.query.limit as usize
            || (!self.readings.is_empty() && self.bytes + bytes > PAGE_BYTES_MAX)
            || !self.query.allowance.take(HELD_PER_BYTE * bytes);
        self.more |= is_full;
        if !self.more {
            self.bytes += bytes;
            self.readings.push(reading);
        }
        !self.more
    }
}

impl<'a> Pager<'a> {
    /// The page of a query.
    pub fn new(query: &'a Query) -> Self {
        Self { query, page: Page::default(), taken: 0 }
    }

    /// How many records come before the next part, beyond the query's start.
    pub fn offset(&self) -> u64 {
        let skip = match &self.query.start {
            Start::Offset(offset) => *offset,
            Start::After(position) => position.skip,
        };
        skip.saturating_add(self.taken)
    }

    /// Takes what was read from there on. Says whether the page is done.
    ///
    /// # Errors
    /// There is no memory for one record, or so many in a row cannot be read that no place is found to go on
    /// from.
    pub fn take(&mut self, part: Part<'_>) -> Result<bool, StoreError> {
        let Part { query: _, readings, bytes: _, more } = part;
        if more && readings.is_empty() {
            return Err(StoreError::Overloaded);
        }
        let places = readings.iter().rev().enumerate();
        let place =
            places.filter_map(|(after, reading)| Some((after as u64, reading.position(self.query)?))).next();
        self.taken += readings.len() as u64;
        for reading in readings {
            match reading {
                Reading::Whole(record) => self.page.records.push(record),
                Reading::Unreadable(unreadable) => self.page.unreadable.push(unreadable.named()),
                Reading::Keyless(named) => self.page.unreadable.push(named),
            }
        }
        match place {
            _ if !more => Ok(true),
            Some((after, position)) => {
                self.page.next = Some(Position { skip: after, ..position });
                Ok(true)
            }
            None if self.taken > PARTS_MAX.saturating_mul(u64::from(self.query.limit.max(1))) => {
                Err(StoreError::Corrupt("too many records in a row have no place in this order".to_owned()))
            }
            None => Ok(false),
        }
    }

    /// The page, with the number of records in all where it is known.
    pub fn page(self, total: Option<u64>) -> Page {
        Page { total, ..self.page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        budget::Allowance,
        key::Version,
        query::{Direction, Filter},
        schema::FieldRef,
        value::{Row, Timestamp},
    };

    #[test]
    fn a_double_is_the_short_decimal_that_it_stands_for() {
        for (real, text) in
            [(19.9, "19.9"), (5.0, "5"), (-0.1, "-0.1"), (1e20, "100000000000000000000"), (0.0, "0")]
        {
            assert_eq!(short_decimal(real), Value::exact(text), "{real}");
        }
        for odd in [f64::NAN, f64::INFINITY, 0.1 + 0.2, 1e300, 1.0 / 3.0] {
            assert_eq!(short_decimal(odd), None, "{odd}");
        }
    }

    fn record(key: &str) -> Record {
        let (key, at) = (key.parse().unwrap(), Timestamp(0));
        Record { key, version: Version(1), created_at: at, updated_at: at, values: Row(vec![Value::Null]) }
    }

    fn odd(key: &str, at: FieldRef) -> Reading {
        let oddity = Oddity { at, field: "x".to_owned(), kind: "text".to_owned(), length: 3 };
        Reading::of(record(key), vec![oddity])
    }

    #[test]
    fn a_page_goes_on_past_records_without_a_place() {
        let order = vec![(FieldRef::Field(0), Direction::Ascending)];
        let query = Query {
            filter: Filter::All,
            order,
            start: Start::Offset(7),
            limit: 2,
            count: false,
            allowance: Allowance::default(),
        };
        let place = FieldRef::Field(0);
        let mut pager = Pager::new(&query);
        let part = |readings: Vec<Reading>| {
            let mut part = Part::new(&query);
            readings.into_iter().all(|reading| part.push(reading));
            part
        };
        assert!(!pager.take(part(vec![odd("a", place), odd("b", place), odd("c", place)])).unwrap());
        assert_eq!(pager.offset(), 9, "the next part starts behind them");
        let last = vec![Reading::Whole(record("c")), odd("d", place), odd("e", FieldRef::Version)];
        assert!(pager.take(part(last)).unwrap());
        let page = pager.page(None);
        let next = page.next.unwrap();
        assert_eq!((next.key.as_str(), next.skip), ("c", 1), "one record behind c was given too");
        assert_eq!(page.unreadable.len(), 3);
        let after = Start::After(Position { values: vec![Value::Null], key: next.key, skip: 1 });
        let query = Query { start: after, ..query };
        let mut pager = Pager::new(&query);
        assert_eq!(pager.offset(), 1);
        let mut part = Part::new(&query);
        assert!(part.push(odd("e", FieldRef::Version)));
        assert!(pager.take(part).unwrap());
        assert_eq!(pager.page(None).next, None);
    }

    fn large(key: &str, bytes: usize) -> Reading {
        Reading::Whole(Record { values: Row(vec![Value::Text("x".repeat(bytes))]), ..record(key) })
    }

    #[test]
    fn a_page_ends_at_its_bytes_and_says_where_it_goes_on() {
        let (order, start) = (Vec::new(), Start::Offset(0));
        let query = Query {
            filter: Filter::All,
            order,
            start,
            limit: 9,
            count: false,
            allowance: Allowance::default(),
        };
        let (mut pager, mut part) = (Pager::new(&query), Part::new(&query));
        assert!(part.push(large("a", PAGE_BYTES_MAX / 2)) && part.push(large("b", PAGE_BYTES_MAX / 4)));
        assert!(!part.push(large("c", PAGE_BYTES_MAX / 2)), "nothing after it is read");
        assert!(pager.take(part).unwrap());
        let page = pager.page(None);
        assert_eq!((page.records.len(), page.next.unwrap().key.as_str()), (2, "b"));
        // one that is larger than a page is a page of its own
        let (mut pager, mut part) = (Pager::new(&query), Part::new(&query));
        assert!(part.push(large("a", 2 * PAGE_BYTES_MAX)) && !part.push(large("b", 1)));
        assert!(pager.take(part).unwrap());
        assert_eq!(pager.page(None).records.len(), 1);
    }

    #[test]
    fn a_page_ends_early_where_memory_does_and_is_refused_without_any() {
        let budget = model::budget::Budget::new(10_000);
        let (order, start, held) = (Vec::new(), Start::Offset(0), std::sync::Arc::new(budget.share()));
        let allowance = Allowance::of(&held);
        let query = Query { filter: Filter::All, order, start, limit: 9, count: false, allowance };
        let (mut pager, mut part) = (Pager::new(&query), Part::new(&query));
        assert!(part.push(large("a", 4_000)) && !part.push(large("b", 4_000)));
        assert!(pager.take(part).unwrap());
        assert_eq!(pager.page(None).next.unwrap().key.as_str(), "a");
        let mut part = Part::new(&query);
        assert!(!part.push(large("b", 4_000)));
        assert!(matches!(Pager::new(&query).take(part), Err(StoreError::Overloaded)));
        assert!(budget.peak() <= 10_000);
    }
}
