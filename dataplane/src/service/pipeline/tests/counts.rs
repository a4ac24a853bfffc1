//! Events of price and stock beside orders: unknown products, letters that wait for one, and everything at
//! once at random.

use std::{collections::BTreeMap, sync::Arc};

use crds::service::messaging::UnknownProducts;
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::support::{Mood, Shop, settings};
use crate::service::{
    ingest::{
        Ingestor,
        letters::{Letters, Replays, STAGE},
        waiting::Waiting,
    },
    precondition::Precondition,
    records::Records,
};
use events::intake::Batch;
use model::{
    budget::Allowance,
    change::Origin,
    counted::Place,
    holds,
    json::{parse_create, parse_patch},
    key::Key,
    price_event::PriceEvent,
    query::{Filter, Query, Start},
    record::Record,
    value::{Timestamp, Value},
};

struct Counter {
    shop: Shop,
    products: Arc<Records>,
    ingestor: Arc<Ingestor>,
}

impl Counter {
    async fn open() -> Self {
        let shop = Shop::open(settings()).await;
        let products = shop.parts.products.clone().unwrap();
        let letters = shop.parts.letters.clone();
        let ingestor = Arc::new(Ingestor::new(products.clone(), Arc::new(Letters::new(letters.clone()))));
        letters.serve(STAGE, Arc::new(Replays::new(letters.clone(), ingestor.clone())));
        Self { shop, products, ingestor }
    }

    async fn find(&self, product: &str) -> Option<Record> {
        self.products.find_one(&product.parse().unwrap()).await.unwrap()
    }

    async fn apply(&self, events: &[PriceEvent]) {
        let batch = Batch { events: events.to_vec(), unreadable: Vec::new() };
        // a batch is applied again and again, as its worker does
        for _ in 0..50 {
            if self.ingestor.apply(&batch).await.is_ok() {
                return;
            }
        }
        panic!("not applied");
    }

    async fn patch(&self, product: &str, body: &str) {
        let patch = parse_patch(self.products.schema(), body.as_bytes()).unwrap();
        let (key, origin) = (product.parse().unwrap(), Origin::of("test"));
        self.products.patch(&key, &Precondition::None, &patch, &origin).await.unwrap();
    }

    async fn delete(&self, product: &str) {
        self.products
            .delete(&product.parse().unwrap(), &Precondition::None, &Origin::of("test"))
            .await
            .unwrap();
    }

    async fn waiting(&self) -> usize {
        self.shop.letters().await.into_iter().filter(|letter| letter.1.0 == STAGE).count()
    }

    fn look(&self) -> Waiting {
        Waiting::new(self.shop.parts.letters.clone(), self.products.clone())
    }
}

fn event(product: &str, price: i64, stock: i64, at: Timestamp, seq: i64) -> PriceEvent {
    PriceEvent {
        id: Uuid::now_v7(),
        product_id: product.to_owned(),
        price: price.into(),
        stock,
        at: at.0,
        accepted: at.0,
        undated: true,
        place: Some(Place { log: "log".to_owned(), seq }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_makes_its_product_but_not_one_that_was_deleted_since() {
    let counter = Counter::open().await;
    let schema = counter.products.schema().clone();
    let first = event("abc123", 49, 100, Timestamp::now(), 1);
    let race = [event("other", 3, 1, Timestamp::now(), 2), first.clone()];
    tokio::join!(counter.apply(&race), counter.apply(&race), counter.apply(&race));
    let made = counter.find("abc123").await.unwrap();
    assert_eq!((made.version.0, counter.shop.stock("abc123").await), (1, 100), "once, by whoever was first");
    for (field, text) in [("name", "abc123"), ("currency", "USD")] {
        assert_eq!(schema.get(&made.values, field).as_text(), Some(text));
    }
    let order = counter.shop.order_priced("abc123", 100, "49").await;
    counter.shop.drive(&order).await;
    assert_eq!(counter.shop.stock("abc123").await, 0, "it is sold like any other");

    counter.delete("abc123").await;
    counter.apply(std::slice::from_ref(&first)).await;
    assert!(counter.find("abc123").await.is_none(), "older than its delete");
    let later = Timestamp(Timestamp::now().0 + 10);
    counter.apply(&[event("abc123", 50, 7, later, 3)]).await;
    let again = counter.find("abc123").await.unwrap();
    assert!(again.version.0 > made.version.0, "its versions go on");
    assert_eq!(counter.waiting().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_waits_for_its_product_is_replayed_when_that_comes() {
    let counter = Counter::open().await;
    counter.ingestor.set_unknown(UnknownProducts::Reject);
    counter
        .apply(&[event("late", 3, 4, Timestamp::now(), 1), event("never", 1, 1, Timestamp::now(), 2)])
        .await;
    assert_eq!(counter.waiting().await, 2);
    assert_eq!(counter.look().look(None).await.unwrap(), None);
    assert_eq!(counter.waiting().await, 2, "they are not there yet");
    let body = br#"{"id":"late","name":"P","price":"1"}"#;
    let draft = parse_create(counter.products.schema(), body).unwrap();
    counter.products.create(draft, &Origin::of("test")).await.unwrap();
    counter.look().look(None).await.unwrap();
    assert_eq!((counter.waiting().await, counter.shop.stock("late").await), (1, 4));
    assert!(counter.find("never").await.is_none());
}

/// Everything at once, at random. `FLYWEIGHT_ROUNDS` says how many shops there are, `FLYWEIGHT_SEED` repeats
/// one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_sold_than_counted_no_unit_is_lost_and_every_charge_is_its_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) =
        (number("FLYWEIGHT_SEED"), number("FLYWEIGHT_ROUNDS").map_or(1, |rounds| rounds.div_ceil(50)));
    let first = seed.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("FLYWEIGHT_SEED={first}");
    for seed in first..first + if seed.is_some() { 1 } else { rounds } {
        at_random(seed).await;
    }
}

async fn at_random(seed: u64) {
    const PRODUCTS: usize = 2;
    const START: i64 = 20;
    let mut dice = StdRng::seed_from_u64(seed);
    let counter = Counter::open().await;
    for product in 0..PRODUCTS {
        counter.shop.product(&format!("p{product}"), START).await;
    }
    let (mut orders, mut events, mut seq) = (Vec::new(), Vec::new(), 0);
    for _ in 0..12 {
        let moods = [Mood::Approve, Mood::Approve, Mood::Decline, Mood::Fail(2)];
        counter.shop.bank.set(moods[dice.random_range(0..moods.len())]);
        let mut placed = Vec::new();
        for _ in 0..4 {
            let items = [("p0", dice.random_range(1..4)), ("p1", dice.random_range(1..4))];
            placed.push(counter.shop.order(&items[dice.random_range(0..2)..]).await);
        }
        // all that is there is counted now, and told later
        for product in ["p0", "p1"] {
            let at = Timestamp::now();
            let found = counter.find(product).await.unwrap();
            let schema = counter.products.schema();
            let there = holds::stock(schema, &found.values) + holds::held(schema, &found.values);
            seq += 1;
            let undated = dice.random();
            events.push(PriceEvent { undated, ..event(product, 2, there, at, seq) });
        }
        let called_off: Vec<Key> = placed.iter().filter(|_| dice.random_range(0..4) == 0).cloned().collect();
        let told: Vec<PriceEvent> = (0..dice.random_range(0..=events.len()))
            .map(|_| events.swap_remove(dice.random_range(0..events.len())))
            .collect();
        let shop = &counter.shop;
        let ends = join_all(placed.iter().map(|order| shop.drive(order)));
        let cancels = join_all(called_off.iter().map(|order| shop.call_off(order)));
        let counts = join_all(told.iter().map(|event| counter.apply(std::slice::from_ref(event))));
        tokio::join!(ends, cancels, counts);
        orders.extend(placed);
    }
    counter.apply(&events).await;
    join_all(orders.iter().map(|order| counter.shop.drive(order))).await;
    while counter.shop.pipeline.under_way() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    join_all(orders.iter().map(|order| counter.shop.drive(order))).await;

    let sold = settled(&counter, seed, &orders).await;
    for product in ["p0", "p1"] {
        let sold = sold.get(product).copied().unwrap_or_default();
        assert!(sold <= START, "seed {seed}: {sold} of {product} are sold");
        // the last count finds what no order took, and all of that can be sold
        counter.patch(product, &format!(r#"{{"stock":{}}}"#, START - sold)).await;
        let left = counter.shop.stock(product).await;
        assert_eq!(left, START - sold, "seed {seed}: nothing of {product} is held any more");
    }
}

/// What was sold of each product: every order has ended, paid what it says or nothing.
async fn settled(counter: &Counter, seed: u64, orders: &[Key]) -> BTreeMap<String, i64> {
    let all = Query {
        filter: Filter::All,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 1_000,
        count: false,
        allowance: Allowance::default(),
    };
    let parts = &counter.shop.parts;
    let payments = parts.payments.as_ref().unwrap();
    let found = payments.find(&all).await.unwrap().records;
    let (mut sold, mut charged) = (BTreeMap::new(), 0);
    for order in orders {
        let snapshot = counter.shop.pipeline.snapshot(order).await.unwrap().unwrap();
        let of = |records: &Records, record: &Record, field: &str| {
            records.schema().get(&record.values, field).clone()
        };
        let paid: Vec<&Record> = found
            .iter()
            .filter(|payment| of(payments, payment, "order_id").as_text() == Some(order.as_str()))
            .filter(|payment| of(payments, payment, "status").as_text() == Some("completed"))
            .collect();
        let is_sold = counter.shop.status(order).await == "completed";
        assert_eq!(paid.len(), usize::from(is_sold), "seed {seed}: {order}");
        for payment in paid {
            charged += 1;
            for (here, there) in [("amount", "total"), ("currency", "currency")] {
                let there = of(&parts.orders, &snapshot.record, there);
                assert_eq!(of(payments, payment, here), there, "seed {seed}: {order}");
                assert_ne!(there, Value::Null);
            }
        }
        if is_sold {
            for item in &snapshot.items {
                *sold.entry(item.product_id.clone()).or_insert(0) += item.quantity;
            }
        }
    }
    let bank = &counter.shop.bank;
    assert_eq!(
        bank.charged() - bank.reversed(),
        charged,
        "seed {seed}: what the bank has is what orders paid"
    );
    sold
}

impl Shop {
    async fn order_priced(&self, product: &str, quantity: i64, price: &str) -> Key {
        let items = serde_json::json!([{ "product_id": product, "quantity": quantity, "price": price }]);
        let body = serde_json::json!({ "user_id": "u1", "items": items }).to_string();
        let draft = parse_create(self.parts.orders.schema(), body.as_bytes()).unwrap();
        self.parts.orders.create(draft, &Origin::of("test")).await.unwrap().key
    }

    /// Calls an order off, unless it is too late for that.
    async fn call_off(&self, order: &Key) {
        _ = self.pipeline.cancel(order, "at random", "test").await;
    }
}
