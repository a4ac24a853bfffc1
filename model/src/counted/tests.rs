//! Counts that come late, early and in no order, beside sales and people: against what is really on the
//! shelf.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::{
    entities::product,
    json::{parse_create, parse_patch},
    key::Key,
    price_event::PriceEvent,
    stock::{Held, Settling, hold, settle},
};

const START: i64 = 1_700_000_000_000;

/// A product, and what is really there of it.
struct Shop {
    schema: Schema,
    row: Row,
    now: i64,
    seq: i64,
}

impl Shop {
    fn of(stock: i64) -> Self {
        let schema = product::schema();
        let body = format!(r#"{{"name":"Lamp","price":"1","stock":{stock}}}"#);
        let mut row = parse_create(&schema, body.as_bytes()).unwrap().values;
        on_write(&schema, None, &mut row, Wrote::Created, Timestamp(START));
        Self { schema, row, now: START + 1_000, seq: 0 }
    }

    fn stock(&self) -> i64 {
        holds::stock(&self.schema, &self.row)
    }

    fn price(&self) -> String {
        Left::of(&self.schema, &self.row).price
    }

    fn hold(&mut self, order: &str, pieces: i64) -> bool {
        self.now += 1;
        match hold(&self.schema, &self.row, &order.parse().unwrap(), pieces, Timestamp(self.now)) {
            Held::Now(row) => {
                self.row = row;
                true
            }
            Held::Short(_) => false,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, order: &str, settling: Settling) {
        self.now += 1;
        let order: Key = order.parse().unwrap();
        self.row = settle(&self.schema, &self.row, &order, settling, Timestamp(self.now)).unwrap();
        assert!(settle(&self.schema, &self.row, &order, settling, Timestamp(self.now)).is_none(), "once");
    }

    fn sell(&mut self, order: &str, pieces: i64) -> bool {
        let held = self.hold(order, pieces);
        if held {
            self.end(order, Settling::Commit);
        }
        self.now += 1;
        held
    }

    /// An event that is accepted now.
    fn event(&mut self, stock: i64, at: Option<i64>) -> PriceEvent {
        (self.seq, self.now) = (self.seq + 1, self.now + 1);
        PriceEvent {
            id: Uuid::now_v7(),
            product_id: "lamp".to_owned(),
            price: self.seq.into(),
            stock,
            at: at.unwrap_or(self.now),
            accepted: self.now,
            undated: at.is_none(),
            place: Some(Place { log: "log".to_owned(), seq: self.seq }),
        }
    }

    fn apply(&mut self, event: &PriceEvent) -> bool {
        let applied = event.applied(&self.schema, &self.row, Timestamp(self.now));
        let changed = applied.is_some();
        self.row = applied.unwrap_or_else(|| self.row.clone());
        assert_eq!(
            event.applied(&self.schema, &self.row, Timestamp(self.now)),
            None,
            "a repetition does nothing"
        );
        changed
    }

    fn patch(&mut self, body: &str) {
        self.now += 1;
        let patch = parse_patch(&self.schema, body.as_bytes()).unwrap();
        let mut after = patch.apply(&self.schema, &self.row).unwrap();
        on_write(
            &self.schema,
            Some(&self.row),
            &mut after,
            Wrote::Patched(&patch.fields()),
            Timestamp(self.now),
        );
        self.row = after;
    }

    fn put(&mut self, stock: i64) {
        self.now += 1;
        let mut after = self.row.clone();
        self.schema.set(&mut after, "stock", Value::Int(stock));
        on_write(&self.schema, Some(&self.row), &mut after, Wrote::Replaced, Timestamp(self.now));
        self.row = after;
    }
}

#[test]
fn a_count_from_before_a_sale_sells_nothing_twice() {
    let mut shop = Shop::of(5);
    let before = shop.now;
    assert!(shop.sell("a", 5));
    let late = shop.event(5, Some(before));
    assert!(shop.apply(&late));
    assert_eq!(shop.stock(), 0);
    assert!(!shop.sell("b", 1));
    // counted after the sale: the shelf was filled
    let full = shop.event(7, None);
    shop.apply(&full);
    assert_eq!(shop.stock(), 7);
    assert!(!shop.apply(&late), "older than the last count");
    // a part was sold after it
    let before = shop.now;
    shop.sell("c", 2);
    let late = shop.event(20, Some(before));
    shop.apply(&late);
    assert_eq!(shop.stock(), 18);
}

#[test]
fn what_orders_hold_is_part_of_a_count() {
    let mut shop = Shop::of(5);
    shop.hold("a", 2);
    let count = shop.event(5, None);
    shop.apply(&count);
    assert_eq!(shop.stock(), 3, "two are there and not to be had");
    shop.end("a", Settling::Release);
    assert_eq!(shop.stock(), 5);
    shop.hold("b", 4);
    // fewer than are held: what comes back makes up for what is missing
    let count = shop.event(1, None);
    shop.apply(&count);
    assert_eq!(shop.stock(), 0);
    shop.end("b", Settling::Release);
    assert_eq!(shop.stock(), 1);
    // held before a count, sold before it comes
    shop.hold("c", 1);
    let late = shop.event(4, Some(shop.now));
    shop.end("c", Settling::Commit);
    shop.apply(&late);
    assert_eq!(shop.stock(), 3);
}

#[test]
fn a_person_is_not_undone_by_an_older_event() {
    let mut shop = Shop::of(5);
    let late = shop.event(50, Some(shop.now));
    shop.patch(r#"{"price":"9"}"#);
    assert!(shop.apply(&late));
    assert_eq!((shop.price().as_str(), shop.stock()), ("9", 50), "each by its own");
    let same = shop.event(51, Some(shop.now));
    shop.patch(r#"{"price":"9"}"#);
    let same = PriceEvent { at: shop.now, accepted: shop.now, ..same };
    assert!(shop.apply(&same));
    assert_eq!((shop.price().as_str(), shop.stock()), ("9", 51), "at one moment a person is right");
    shop.now += 1;
    let late = shop.event(7, Some(shop.now));
    shop.patch(r#"{"stock":6}"#);
    shop.patch(r#"{"brand":"x"}"#);
    assert!(shop.apply(&late));
    assert_eq!((shop.price().as_str(), shop.stock()), ("3", 6));
    let newer = shop.event(8, None);
    shop.apply(&newer);
    assert_eq!(shop.stock(), 8);
    // a count, by hand: what is held is part of it
    shop.hold("a", 2);
    shop.put(10);
    assert_eq!(shop.stock(), 8);
    shop.put(8);
    assert_eq!(shop.stock(), 8, "sent back as it was read");
    shop.patch(r#"{"stock":8}"#);
    assert_eq!(shop.stock(), 6, "said by itself it is a count");
    let old = shop.event(99, Some(START - 1));
    assert!(!shop.apply(&old), "older than all");
    assert!(!Shop::of(5).apply(&old), "a create with a stock is a count");
    assert!(Shop::of(0).apply(&old), "without one it waits for its events");
}

#[test]
fn without_a_time_the_log_decides_and_a_clock_that_is_ahead_holds_up_nobody() {
    let mut shop = Shop::of(1);
    let first = shop.event(3, None);
    let mut second = shop.event(4, None);
    // accepted by a process whose clock is behind
    second.accepted -= 100;
    second.at -= 100;
    for order in [[&first, &second], [&second, &first]] {
        let mut shop = Shop::of(1);
        order.into_iter().for_each(|event| _ = shop.apply(event));
        assert_eq!(shop.stock(), 4, "the newer of two");
    }
    let (one, other) = (shop.event(6, Some(START + 50)), shop.event(7, Some(START + 50)));
    for order in [[&one, &other], [&other, &one]] {
        let mut shop = Shop::of(1);
        order.into_iter().for_each(|event| _ = shop.apply(event));
        assert_eq!(shop.stock(), 7, "at one time the later in the log");
    }
    let ahead = shop.event(8, Some(shop.now + 240_000));
    shop.apply(&ahead);
    shop.sell("a", 1);
    assert_eq!(shop.stock(), 7, "what is sold before its time is sold");
    let next = shop.event(9, None);
    assert!(shop.apply(&next));
    assert_eq!(shop.stock(), 9);
    // a log that was made anew counts from the start
    let anew = PriceEvent { place: Some(Place { log: "log".to_owned(), seq: 1 }), ..shop.event(2, None) };
    let anew = PriceEvent { accepted: anew.accepted + 10_000, at: anew.at + 10_000, ..anew };
    assert!(shop.apply(&anew));
}

#[test]
fn a_count_that_wins_though_it_was_made_before_the_last_sells_nothing_twice() {
    // two senders whose clocks are ahead: the later time wins, though it was accepted earlier
    for apart in [10, CLOCKS_MS * 3] {
        let mut shop = Shop::of(5);
        let first = shop.event(5, Some(shop.now + 200_000));
        assert!(shop.sell("a", 2));
        shop.now += apart;
        let second = shop.event(3, Some(shop.now + 100_000));
        assert!(shop.apply(&second));
        assert_eq!(shop.stock(), 3);
        assert!(shop.apply(&first));
        assert_eq!(shop.stock(), 3, "the two that were sold, {apart} ms apart");
    }
    // a log whose order is not that in which its events were accepted
    let mut shop = Shop::of(5);
    let first = shop.event(5, None);
    assert!(shop.sell("a", 2));
    let second = PriceEvent { place: Some(Place { log: "log".to_owned(), seq: 0 }), ..shop.event(3, None) };
    assert!(shop.apply(&second) && shop.apply(&first));
    assert_eq!(shop.stock(), 3);
    // a person of whom a later event of the log knows nothing
    let mut shop = Shop::of(5);
    let late = shop.event(5, None);
    assert!(shop.sell("a", 2));
    shop.patch(r#"{"stock":3}"#);
    let newer = PriceEvent { place: Some(Place { log: "log".to_owned(), seq: 0 }), ..shop.event(3, None) };
    assert!(shop.apply(&newer) && shop.apply(&late));
    assert_eq!(shop.stock(), 3);
}

#[test]
fn pieces_that_are_missing_are_missing_whoever_gives_them_back() {
    let mut shop = Shop::of(5);
    assert!(shop.hold("a", 4));
    let count = shop.event(1, None);
    assert!(shop.apply(&count));
    // an older process gives back what was held, and knows nothing of what is missing
    shop.schema.set(&mut shop.row, "stock", Value::Int(4));
    shop.schema.set(&mut shop.row, "holds", Value::Null);
    assert!(!shop.hold("b", 2), "one is there");
    assert!(shop.hold("b", 1));
}

#[test]
fn products_of_an_earlier_release_are_read_and_never_oversold() {
    let mut shop = Shop::of(5);
    shop.hold("a", 2);
    let (schema, changed) = (shop.schema.clone(), Timestamp(shop.now));
    schema.set(&mut shop.row, FIELD, Value::Null);
    let mark = format!("{:016x}-{}", (START as u64) ^ (1 << 63), Uuid::now_v7());
    schema.set(&mut shop.row, PRICED_BY, Value::Text(mark));
    let older = shop.event(9, Some(START - 1));
    assert_eq!(
        older.applied(&schema, &shop.row, changed),
        None,
        "older than the event that it has its price from"
    );
    let stock =
        |event: &PriceEvent| holds::stock(&schema, &event.applied(&schema, &shop.row, changed).unwrap());
    let mut before = shop.row.clone();
    for (at, pieces, expected) in [(START + 1, 9, 3), (START + 1, 4, 2), (changed.0 + 1, 9, 7)] {
        let event = PriceEvent { accepted: changed.0 + 10, ..older.clone() };
        let event = PriceEvent { id: Uuid::now_v7(), at, stock: pieces, ..event };
        assert_eq!(stock(&event), expected, "{pieces} counted at {at}");
    }
    // an older process of a rolling change sells and remembers nothing
    Counted::of(&schema, &before, changed).write(&schema, &mut before);
    schema.set(&mut before, "holds", Value::Null);
    let event = PriceEvent { id: Uuid::now_v7(), at: changed.0 + 1, accepted: changed.0 + 30, ..older };
    let row = event.applied(&schema, &before, Timestamp(changed.0 + 20)).unwrap();
    assert_eq!(holds::stock(&schema, &row), 3, "what it sold is not known");
}

#[test]
fn the_memory_is_bounded_and_what_it_forgets_is_not_sold_again() {
    let mut shop = Shop::of(1_000_000);
    let mut times = Vec::new();
    for n in 0..2_000_i64 {
        times.push((shop.now, n));
        assert!(shop.sell(&format!("o{n}"), 1));
        shop.now += n % 7;
    }
    let Value::Json(kept) = shop.schema.get(&shop.row, FIELD) else { panic!() };
    assert!(kept.as_str().len() < 4_096, "{} bytes", kept.as_str().len());
    let lately = times.len() - 20;
    for (at, sold) in times.into_iter().skip(1) {
        let mut copy = Shop { schema: shop.schema.clone(), row: shop.row.clone(), now: shop.now, seq: 0 };
        let late = copy.event(10_000, Some(at));
        assert!(copy.apply(&late));
        let exact = 10_000 - (2_000 - sold);
        assert!(copy.stock() <= exact, "counted before order {sold}");
        assert!(exact - copy.stock() <= 200, "{} fewer than there are", exact - copy.stock());
        if sold as usize >= lately {
            assert!(exact - copy.stock() <= 10, "the last ones nearly exactly");
        }
    }
}

/// Random changes against a shelf: never more is sold than is there, and with every piece counted none is
/// lost. `FLYWEIGHT_ROUNDS` says how many shops there are, `FLYWEIGHT_SEED` repeats one.
#[test]
fn whatever_comes_in_whatever_order_no_more_is_sold_than_is_there() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) = (number("FLYWEIGHT_SEED"), number("FLYWEIGHT_ROUNDS").unwrap_or(60));
    let first = seed.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("FLYWEIGHT_SEED={first}");
    for seed in first..first + if seed.is_some() { 1 } else { rounds } {
        Model::run(seed, 300);
    }
}

struct Model {
    shop: Shop,
    dice: StdRng,
    seed: u64,
    shelf: i64,
    open: BTreeMap<String, i64>,
    orders: usize,
    /// Counts that were made and are not yet accepted: the pieces, and the time.
    counts: Vec<(i64, i64)>,
    /// Accepted and not yet applied.
    log: Vec<PriceEvent>,
    delivers: bool,
}

impl Model {
    fn run(seed: u64, steps: usize) {
        let mut dice = StdRng::seed_from_u64(seed);
        let shelf = dice.random_range(1..40);
        let delivers = dice.random();
        let (open, counts, log) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut model =
            Self { shop: Shop::of(shelf), dice, seed, shelf, open, orders: 0, counts, log, delivers };
        for step in 0..steps {
            model.step();
            model.check(step);
        }
        model.end();
    }

    fn step(&mut self) {
        // in every second shop counts reach back further than the memory
        let (step, lead) = if self.seed.is_multiple_of(2) { (30, 1_000) } else { (3_000, 240_000) };
        self.shop.now += self.dice.random_range(1..step);
        match self.dice.random_range(0..12) {
            0..=2 => {
                let (order, pieces) = (format!("o{}", self.orders), self.dice.random_range(1..4));
                self.orders += 1;
                if self.shop.hold(&order, pieces) {
                    self.open.insert(order, pieces);
                }
            }
            3..=5 => self.end_one(),
            6 => self.counts.push((self.shelf, self.shop.now)),
            7 => {
                if !self.counts.is_empty() {
                    let (pieces, at) = self.counts.swap_remove(self.dice.random_range(0..self.counts.len()));
                    let event = self.shop.event(pieces, Some(at));
                    self.log.push(event);
                }
            }
            8 => {
                // counted and sent at once, by nobody's clock or by one that is ahead
                let ahead = self.dice.random_range(0..2) * self.dice.random_range(1..lead);
                let at = (ahead > 0).then_some(self.shop.now + ahead);
                let mut event = self.shop.event(self.shelf, at);
                if at.is_none() && self.dice.random() {
                    // accepted by a process whose clock is behind
                    let late = self.dice.random_range(0..100);
                    (event.accepted, event.at) = (event.accepted - late, event.at - late);
                }
                self.log.push(event);
            }
            9 | 10 => {
                if !self.log.is_empty() {
                    let event = self.log.swap_remove(self.dice.random_range(0..self.log.len()));
                    self.shop.apply(&event);
                }
            }
            _ if self.delivers && self.dice.random() => self.shelf += self.dice.random_range(1..10),
            _ => {
                let body = format!(r#"{{"stock":{}}}"#, self.shelf);
                self.shop.patch(&body);
            }
        }
    }

    fn end_one(&mut self) {
        let Some(index) = (!self.open.is_empty()).then(|| self.dice.random_range(0..self.open.len())) else {
            return;
        };
        let order = self.open.keys().nth(index).unwrap().clone();
        let pieces = self.open.remove(&order).unwrap();
        if self.dice.random_range(0..3) == 0 {
            self.shop.end(&order, Settling::Release);
        } else {
            self.shop.end(&order, Settling::Commit);
            self.shelf -= pieces;
        }
        self.shop.now += 1;
    }

    fn check(&self, step: usize) {
        let held: i64 = self.open.values().sum();
        let (stock, shelf) = (self.shop.stock(), self.shelf);
        let what = format!("seed {}, step {step}: {stock} to be had, {held} held, {shelf} there", self.seed);
        assert!(shelf >= 0 && stock + held <= shelf, "{what}");
        assert_eq!(holds::held(&self.shop.schema, &self.shop.row), held, "{what}");
    }

    /// All that is under way ends, and one more count tells it exactly.
    fn end(mut self) {
        while !self.log.is_empty() {
            let event = self.log.swap_remove(0);
            self.shop.apply(&event);
        }
        while !self.open.is_empty() {
            self.end_one();
        }
        let last = self.shop.event(self.shelf, None);
        self.shop.apply(&last);
        assert_eq!(self.shop.stock(), self.shelf, "seed {}", self.seed);
        while self.shop.sell(&format!("last{}", self.shelf), 1) {
            self.shelf -= 1;
        }
        assert_eq!(self.shelf, 0, "seed {}", self.seed);
    }
}
