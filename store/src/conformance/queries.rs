//! Queries: every operator, nulls, orders, pages and totals, and random ones held against one in memory.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{field::*, *};
use model::{
    budget::{Allowance, Budget},
    query::{Comparison, Direction, Filter, Page, Query, Start},
    schema::FieldRef,
};

const TEXTS: [&str; 14] =
    ["", "a", "A", "a ", "ab", "b", "ä", "é", "a%b", "a_b", "a\\b", "[x]*?", "日本", "z|."];
const PATTERNS: [&str; 14] =
    ["%", "", "a%", "%b", "_", "a_", r"a\%b", r"a\_b", r"a\\b", "[x]*?", "%|%", "日_", "A", r"a\"];
const PARTS: [&str; 12] = ["a", "A", "Ä", "é", "%", "_", "\\", "[x]*?", "日", "|.", "B", "a b"];

fn query(filter: Filter) -> Query {
    Query {
        filter,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 1000,
        count: true,
        allowance: Allowance::default(),
    }
}

async fn find(target: &Target, query: &Query) -> Page {
    target.store.find(&target.things, query).await.unwrap_or_else(|error| panic!("{query:?}: {error}"))
}

async fn keys(target: &Target, filter: Filter) -> Vec<String> {
    let page = find(target, &query(filter)).await;
    assert_eq!(page.total, Some(page.records.len() as u64));
    page.records.iter().map(|record| record.key.to_string()).collect()
}

pub async fn comparisons_have_two_values(target: &Target) {
    for (key, size) in [("n", Value::Null), ("one", Value::Int(1)), ("two", Value::Int(2))] {
        let mut row = titled(key);
        row.0[SIZE] = size;
        target.one(create(&target.things, key, row)).await.unwrap();
    }
    let size = FieldRef::Field(SIZE);
    let compare = |comparison| Filter::Compare(size, comparison, Value::Int(1));
    let not = |filter: Filter| Filter::Not(Box::new(filter));
    assert_eq!(keys(target, compare(Comparison::Eq)).await, ["one"]);
    assert_eq!(keys(target, not(compare(Comparison::Eq))).await, ["n", "two"]);
    assert_eq!(keys(target, compare(Comparison::Ne)).await, ["two"]);
    assert_eq!(keys(target, not(compare(Comparison::Ne))).await, ["n", "one"]);
    assert_eq!(keys(target, not(Filter::In(size, vec![Value::Int(2), Value::Null]))).await, ["n", "one"]);
    assert_eq!(keys(target, Filter::In(size, vec![])).await, [""; 0]);
    assert_eq!(keys(target, Filter::IsNull(size)).await, ["n"]);
    assert_eq!(keys(target, not(not(Filter::IsNull(size)))).await, ["n"]);
    assert_eq!(keys(target, Filter::Compare(size, Comparison::Eq, Value::Null)).await, [""; 0]);
    assert_eq!(
        keys(target, not(Filter::Compare(size, Comparison::Ne, Value::Null))).await,
        ["n", "one", "two"]
    );
    assert_eq!(keys(target, Filter::Between(size, Value::Int(1), Value::Int(2))).await, ["one", "two"]);
    assert_eq!(keys(target, not(Filter::Between(size, Value::Int(2), Value::Int(9)))).await, ["n", "one"]);
    assert_eq!(keys(target, Filter::And(vec![])).await, ["n", "one", "two"]);
    assert_eq!(keys(target, Filter::Or(vec![])).await, [""; 0]);
    assert_eq!(keys(target, Filter::Compare(FieldRef::Key, Comparison::Gt, text("n"))).await, ["one", "two"]);
    assert_eq!(
        keys(target, Filter::Compare(FieldRef::Version, Comparison::Eq, Value::Int(1))).await.len(),
        3
    );
    let now = Value::Time(Timestamp(Timestamp::now().0 + 1000));
    assert_eq!(
        keys(target, Filter::Compare(FieldRef::CreatedAt, Comparison::Lt, now.clone())).await.len(),
        3
    );
    assert_eq!(keys(target, Filter::Compare(FieldRef::UpdatedAt, Comparison::Gt, now)).await.len(), 0);
    target.one(delete(&target.things, "one", Guard::Any)).await.unwrap();
    assert_eq!(keys(target, Filter::All).await, ["n", "two"], "what is deleted is not found");
    assert_eq!(keys(target, not(compare(Comparison::Eq))).await, ["n", "two"]);
}

pub async fn patterns_match_alike(target: &Target) {
    let title = |index: usize, row: &mut Row| row.0[TITLE] = text(TEXTS[index]);
    let records = fill(target, &mut StdRng::seed_from_u64(1), TEXTS.len(), title).await;
    for pattern in PATTERNS {
        let query = query(Filter::Like(FieldRef::Field(TITLE), pattern.to_owned()));
        let page = find(target, &query).await;
        assert_eq!(page.records, oracle::all(&records, &query), "{pattern}");
    }
}

pub async fn parts_are_found_in_either_case(target: &Target) {
    let title = |index: usize, row: &mut Row| row.0[TITLE] = text(TEXTS[index]);
    let records = fill(target, &mut StdRng::seed_from_u64(3), TEXTS.len(), title).await;
    for part in PARTS {
        let query = query(Filter::Holds(FieldRef::Field(TITLE), part.to_owned()));
        let page = find(target, &query).await;
        assert_eq!(page.records, oracle::all(&records, &query), "{part}");
    }
    for whole in TEXTS {
        let query = query(Filter::Same(FieldRef::Field(TITLE), whole.to_uppercase()));
        let page = find(target, &query).await;
        assert_eq!(page.records, oracle::all(&records, &query), "{whole}");
    }
}

pub async fn pages_follow_an_order(target: &Target) {
    let size = |index: usize, row: &mut Row| {
        row.0[SIZE] = if index.is_multiple_of(3) { Value::Null } else { Value::Int((index % 4) as i64) };
    };
    let records = fill(target, &mut StdRng::seed_from_u64(2), 25, size).await;
    for direction in [Direction::Ascending, Direction::Descending] {
        let order = vec![(FieldRef::Field(SIZE), direction)];
        let all = Query { order, limit: 4, ..query(Filter::All) };
        let expected = oracle::all(&records, &all);
        assert_eq!(walk(target, &all).await, (expected.clone(), Some(25)), "{direction:?}");
        let second = find(target, &Query { start: Start::Offset(5), ..all.clone() }).await;
        assert_eq!(second.records, expected[5..9], "an offset");
        assert_eq!(second.total, Some(25));
        let beyond = find(target, &Query { start: Start::Offset(100), count: false, ..all.clone() }).await;
        assert_eq!((beyond.records.len(), beyond.total, beyond.next), (0, None, None));
        let exact = find(target, &Query { limit: 25, ..all }).await;
        assert_eq!((exact.records.len(), exact.next), (25, None), "the last page knows that it is the last");
    }
}

/// One for the process: every store gets the same records and is asked the same.
static SEED: LazyLock<u64> = LazyLock::new(|| number_of("SEED").unwrap_or_else(rand::random));
/// Random trees, and those of a soak (`FLYWEIGHT_SOAK`), where `FLYWEIGHT_TREES` says nothing else.
const TREES: u64 = 1_000;
const TREES_SOAK: u64 = 10_000;
/// Queries at once.
const AT_ONCE: usize = 8;

/// The statements of half as many shapes, two for each, are more than a connection keeps.
const NEW_SHAPES: usize = 300;
/// How many times `SELECT 1` a filter of a new shape may cost: it is prepared and counted too.
const NEW_SHAPE_COST_MAX: u32 = 50;

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The same keys in the same order from every store: those that the one in memory finds.
pub async fn random_queries_agree_with_the_model(target: &Target) {
    let seed = *SEED;
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let records = fill(target, &mut random.clone(), 60, |_, _| ()).await;
    let usual = if number_of("FLYWEIGHT_SOAK").is_some_and(|soak| soak != 0) { TREES_SOAK } else { TREES };
    let count = number_of("FLYWEIGHT_TREES").unwrap_or(usual);
    let started = Instant::now();
    let trees = (0..count).map(|_| {
        let order = (0..random.random_range(0..3)).map(|_| {
            let field = *[
                FieldRef::Key,
                FieldRef::Version,
                FieldRef::CreatedAt,
                FieldRef::UpdatedAt,
                FieldRef::Field(TITLE),
                FieldRef::Field(SIZE),
                FieldRef::Field(PRICE),
                FieldRef::Field(ACTIVE),
                FieldRef::Field(SEEN),
            ]
            .choose(&mut random)
            .unwrap();
            (field, *[Direction::Ascending, Direction::Descending].choose(&mut random).unwrap())
        });
        let order = order.collect();
        let limit = random.random_range(4..40);
        Query { order, limit, ..query(filter(&mut random, 3)) }
    });
    let agrees = async |query: Query| {
        let expected = oracle::all(&records, &query);
        let (found, total) = walk(target, &query).await;
        assert_eq!(found, expected, "SEED={seed} {query:?}");
        assert_eq!(total, Some(expected.len() as u64), "SEED={seed} {query:?}");
    };
    stream::iter(trees).for_each_concurrent(AT_ONCE, agrees).await;
    println!("{count} trees in {:?}", started.elapsed());
}

/// What statements cost that a connection has not seen before, when it has seen more than it keeps; beside
/// one that it knows.
pub async fn a_filter_of_a_new_shape_costs_little_more_than_any(target: &Target) {
    let of_shape = |shape: usize| {
        let part = |bit: usize| match shape >> bit & 1 {
            0 => Filter::IsNull(FieldRef::Field(SIZE)),
            _ => Filter::Compare(FieldRef::Field(SIZE), Comparison::Eq, Value::Int(1)),
        };
        query(Filter::Or((0..10).map(part).collect()))
    };
    let store = sql::of_one_connection(target);
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for shape in 0..NEW_SHAPES {
        let started = Instant::now();
        store.find(&target.things, &of_shape(shape)).await.unwrap();
        new.push(started.elapsed());
        let started = Instant::now();
        store.ping().await.unwrap();
        known.push(started.elapsed());
    }
    let (new, known) = (usual(new.split_off(NEW_SHAPES / 2)), usual(known));
    println!("a filter of a new shape took {new:?}, SELECT 1 {known:?}");
    assert!(new < known * NEW_SHAPE_COST_MAX, "a filter of a new shape took {new:?}, SELECT 1 {known:?}");
}

/// What it takes where nothing else is in the way.
fn usual(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 10]
}

pub async fn what_cannot_be_searched_is_refused(target: &Target) {
    let refused = [
        Filter::Compare(FieldRef::Field(SECRET), Comparison::Eq, text("x")),
        Filter::IsNull(FieldRef::Field(SECRET)),
        Filter::Compare(FieldRef::Field(TAGS), Comparison::Eq, json("1")),
        Filter::Compare(FieldRef::Field(SIZE), Comparison::Eq, text("x")),
        Filter::Like(FieldRef::Field(SIZE), "x".to_owned()),
        Filter::Compare(FieldRef::Field(99), Comparison::Eq, text("x")),
        Filter::In(FieldRef::Field(SIZE), vec![Value::Int(1); 5000]),
        (0..100).fold(Filter::All, |filter, _| Filter::Not(Box::new(filter))),
    ];
    for filter in refused {
        let result = target.store.find(&target.things, &query(filter.clone())).await;
        assert!(matches!(result, Err(StoreError::Unsupported(_))), "{filter:?}");
    }
    let order = vec![(FieldRef::Field(TAGS), Direction::Ascending)];
    let result = target.store.find(&target.things, &Query { order, ..query(Filter::All) }).await;
    assert!(matches!(result, Err(StoreError::Unsupported(_))));
}

/// All records of a query, page by page, and how many there are as the first page has it.
async fn walk(target: &Target, query: &Query) -> (Vec<Record>, Option<u64>) {
    let mut query = query.clone();
    let (mut records, mut total) = (Vec::new(), None);
    loop {
        let page = find(target, &query).await;
        assert!(page.records.len() <= query.limit as usize);
        total = total.or(page.total);
        records.extend(page.records);
        match page.next {
            Some(next) => (query.start, query.count) = (Start::After(next), false),
            None => return (records, total),
        }
        assert!(records.len() < 1000, "pages without end: {query:?}");
    }
}

/// Creates random records, changes some, and gives all that are there.
async fn fill(
    target: &Target,
    random: &mut StdRng,
    count: usize,
    adjust: impl Fn(usize, &mut Row),
) -> Vec<Record> {
    for index in 0..count {
        let value = |field, random: &mut StdRng| match random.random_ratio(1, 5) {
            true => Value::Null,
            false => some_value(field, random),
        };
        let mut row = Row((0..=SECRET).map(|field| value(field, random)).collect());
        adjust(index, &mut row);
        let key = format!("{}{index}", if random.random() { "k" } else { "K" });
        target.one(create(&target.things, &key, row.clone())).await.unwrap();
        if random.random_ratio(1, 3) {
            target.one(replace(&target.things, &key, Guard::Any, row)).await.unwrap();
        }
    }
    let page = find(target, &query(Filter::All)).await;
    assert_eq!(page.records.len(), count);
    page.records
}

fn some_value(field: usize, random: &mut StdRng) -> Value {
    match field {
        TITLE | SECRET => text(TEXTS.choose(random).unwrap()),
        SIZE => Value::Int(*[i64::MIN, -5, 0, 1, 2, 3, i64::MAX].choose(random).unwrap()),
        PRICE => decimal(["-5.5", "0", "0.0001", "2", "10", "10.00", "19.9", "100"].choose(random).unwrap()),
        ACTIVE => Value::Bool(random.random()),
        SEEN => Value::Time(Timestamp(
            *[-1, 0, 1, 1_769_860_800_123, 253_402_300_799_999].choose(random).unwrap(),
        )),
        _ => json([r#"{"a":1}"#, "[]", "1.5", "null"].choose(random).unwrap()),
    }
}

fn filter(random: &mut StdRng, depth: u32) -> Filter {
    if depth > 0 && random.random_ratio(1, 2) {
        let parts =
            |random: &mut StdRng| (0..random.random_range(0..4)).map(|_| filter(random, depth - 1)).collect();
        return match random.random_range(0..3) {
            0 => Filter::And(parts(random)),
            1 => Filter::Or(parts(random)),
            _ => Filter::Not(Box::new(filter(random, depth - 1))),
        };
    }
    let at = random.random_range(TITLE..=SEEN);
    let field = FieldRef::Field(at);
    let value = |random: &mut StdRng| match random.random_ratio(1, 12) {
        true => Value::Null,
        false => some_value(at, random),
    };
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Ne};
    match random.random_range(0..9) {
        8 => Filter::Holds(FieldRef::Field(TITLE), (*PARTS.choose(random).unwrap()).to_owned()),
        0 => Filter::All,
        1 => Filter::IsNull(field),
        2 => Filter::In(field, (0..random.random_range(0..4)).map(|_| value(random)).collect()),
        3 => Filter::Between(field, value(random), value(random)),
        4 => Filter::Like(FieldRef::Field(TITLE), (*PATTERNS.choose(random).unwrap()).to_owned()),
        _ => Filter::Compare(field, *[Eq, Ne, Lt, Lte, Gt, Gte].choose(random).unwrap(), value(random)),
    }
}

pub async fn a_page_ends_where_its_memory_does(target: &Target) {
    let tags = json(&format!(r#"["{}"]"#, "x".repeat(9_000)));
    for index in 0..9 {
        let mut row = titled("large");
        row.0[TAGS] = tags.clone();
        target.one(create(&target.things, &format!("t{index}"), row)).await.unwrap();
    }
    let budget = Budget::new(60_000);
    let (mut start, mut seen) = (Start::Offset(0), Vec::new());
    loop {
        let held = Arc::new(budget.share());
        let page =
            find(target, &Query { start, allowance: Allowance::of(&held), ..query(Filter::All) }).await;
        assert!((1..=3).contains(&page.records.len()), "{} records", page.records.len());
        assert_eq!(page.total, Some(9));
        seen.extend(page.records.iter().map(|record| record.key.to_string()));
        match page.next {
            Some(next) => start = Start::After(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..9).map(|index| format!("t{index}")).collect::<Vec<_>>());
    assert!(budget.peak() <= 60_000);
    budget.set_capacity(1_000);
    let allowance = Allowance::of(&Arc::new(budget.share()));
    let refused = target.store.find(&target.things, &Query { allowance, ..query(Filter::All) }).await;
    assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
    assert_eq!(find(target, &query(Filter::All)).await.records.len(), 9, "the store is as before");
}
