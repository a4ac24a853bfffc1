//! What is there in the end: records with all their versions, lists, and the topic itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{
    client::Api,
    history::{
        Chain,
        feed::Told,
        ledger::{Books, Money, Order, Product},
    },
    wait,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::{Value, json};

use super::{clients, world::World};
use crate::feed;

/// The longest that reading the topic may take.
const TOPIC: Duration = Duration::from_secs(60);
/// How soon every replica has the newest version of everything, once nothing hinders it.
const NEWEST: Duration = Duration::from_secs(15);

/// An event of the topic.
pub struct Event {
    entity: String,
    told: Told,
    data: Value,
}

/// Waits until every order has ended, nothing is held, and every event is out.
pub async fn settled(world: &World, within: Duration) {
    let api = world.pod(0);
    wait::until("every order to end", within, async || {
        let open = json!({ "field": "status", "op": "in", "value": ["pending", "processing", "paid"] });
        let query = json!({ "repository": "orders", "where": open, "limit": 1 });
        let found = api.post("/api/v1/repositories/query", &query).await;
        let is_done = found.status == 200 && found.json()["items"].as_array()?.is_empty();
        let holding = api.get("/api/v1/pipeline").await.json()["holding"].as_u64()?;
        (is_done && holding == 0).then_some(())
    })
    .await;
    for index in 0..2 {
        feed::drained(&world.pod(index), within).await;
    }
}

/// Every event of the topic, in the order of each partition.
pub fn topic(world: &World) -> Vec<Event> {
    tokio::task::block_in_place(|| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", world.servers().kafka.url()).set("group.id", "histories");
        let consumer: BaseConsumer = config.set("enable.auto.commit", "false").create().unwrap();
        let second = Duration::from_secs(5);
        let metadata = consumer.fetch_metadata(Some("shop.changes"), second).unwrap();
        let (mut places, mut left) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks("shop.changes", partition.id(), second).unwrap();
            left += high - low;
            places.add_partition_offset("shop.changes", partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&places).unwrap();
        let (begun, mut events) = (Instant::now(), Vec::new());
        while left > 0 {
            assert!(begun.elapsed() < TOPIC, "{left} records of the topic did not come");
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let event: Value = serde_json::from_slice(message.unwrap().payload().unwrap()).unwrap();
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let told = Told { key: text("key"), version: event["version"].as_u64().unwrap(), id: text("id") };
            events.push(Event { entity: text("entity"), told, data: event["data"].clone() });
            left -= 1;
        }
        events
    })
}

/// What the topic tells of users and products, by their paths.
pub fn told(topic: &[Event]) -> Vec<Told> {
    let told = topic.iter().filter(|event| matches!(event.entity.as_str(), "user" | "product"));
    told.map(|event| Told {
        key: format!("/api/v1/{}s/{}", event.entity, event.told.key),
        ..event.told.clone()
    })
    .collect()
}

/// What the topic tells of elements, by their names.
pub fn told_elements(topic: &[Event], seed: u32) -> Vec<Told> {
    let named = |event: &Event| {
        let name = match event.entity.as_str() {
            "product" => event.told.key.clone(),
            "user" => event.data["email"].as_str()?.split('@').next()?.to_owned(),
            _ => return None,
        };
        name.starts_with(&clients::element(seed)).then(|| Told { key: name, ..event.told.clone() })
    };
    topic.iter().filter_map(named).collect()
}

/// Every version of the records at these paths, as the audit has them.
pub async fn chains<S>(
    world: &World,
    paths: &[String],
    state: impl Fn(&Value) -> S,
) -> BTreeMap<String, Chain<S>> {
    let (api, mut chains) = (world.pod(0), BTreeMap::new());
    for path in paths {
        let mut parts = path.rsplit('/');
        let (id, collection) = (parts.next().unwrap(), parts.next().unwrap());
        let export = api.get(&format!("/api/v1/audit/export?entity={collection}&id={id}")).await;
        assert_eq!(export.status, 200, "{}", export.text);
        let entries = export.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut chain = Chain::new();
        for entry in entries {
            let version = entry["version"].as_u64().unwrap();
            let before = chain.insert(version, state(&entry["after"]));
            assert!(before.is_none(), "{path}: version {version} has two entries in the audit");
        }
        chains.insert(path.clone(), chain);
    }
    chains
}

/// The newest version of each record.
pub fn newest<S>(chains: &BTreeMap<String, Chain<S>>) -> BTreeMap<String, u64> {
    let newest =
        |(path, chain): (&String, &Chain<S>)| (path.clone(), chain.keys().next_back().copied().unwrap_or(0));
    chains.iter().map(newest).collect()
}

/// Replicas that do not serve the newest version of everything, in their tiers too; and what they say of it.
pub async fn differing(world: &World, newest: &BTreeMap<String, u64>) -> Vec<String> {
    let mut found = Vec::new();
    for index in 0..2 {
        let (api, begun) = (world.pod(index), Instant::now());
        let mut missing: BTreeMap<&String, String> = BTreeMap::new();
        loop {
            missing.clear();
            for (path, newest) in newest {
                let answer = api.get_with(path, &[("flyweight-explain", "1")]).await;
                let version = (answer.status == 200).then(|| answer.json()["version"].as_u64()).flatten();
                if version != Some(*newest) {
                    let how = answer.header("flyweight-explain");
                    missing.insert(
                        path,
                        format!(
                            "{path}: replica {index} serves {version:?} ({how}), and {newest} is the newest"
                        ),
                    );
                }
            }
            if missing.is_empty() || begun.elapsed() > NEWEST {
                break;
            }
        }
        if !missing.is_empty() {
            found.extend(missing.into_values());
            found.push(api.get("/api/v1/health").await.text);
        }
    }
    found
}

/// All elements that are there.
pub async fn elements(world: &World, seed: u32) -> Vec<String> {
    let (api, prefix) = (world.pod(1), clients::element(seed));
    let mut names: Vec<String> = all(&api, "products").await.iter().map(|item| text(item, "id")).collect();
    let users = all(&api, "users").await;
    names.extend(users.iter().map(|item| text(item, "email").split('@').next().unwrap().to_owned()));
    names.retain(|name| name.starts_with(&prefix));
    names
}

/// The books of the shop.
pub async fn ledger(world: &World, seed: u32) -> Books {
    let (api, mut books) = (world.pod(1), Books::default());
    for (name, price, currency) in clients::PRODUCTS {
        let id = format!("{name}-{seed}");
        let read =
            api.get_with(&format!("/api/v1/products?ids={id}"), &[("cache-control", "no-cache")]).await;
        let left = read.json()["items"][0]["stock"].as_i64().unwrap();
        let price = Money { amount: price, currency: currency.to_owned() };
        books.products.insert(id, Product { price, stock: clients::STOCK, left });
    }
    for order in all(&api, "orders").await {
        let item = &order["items"][0];
        let quantity = item["quantity"].as_i64().unwrap();
        let placed = Order { id: text(&order, "id"), product: text(item, "product_id"), quantity };
        books.orders.push((placed, text(&order, "status"), money(&order, "total")));
    }
    let payments = all(&api, "payments").await;
    let paid = payments.iter().filter(|payment| payment["status"] == "completed");
    books.payments = paid.map(|payment| (text(payment, "order_id"), money(payment, "amount"))).collect();
    let charges = world.bank.charges().into_iter();
    let money = |amount: &str, currency| Money { amount: amount.parse().unwrap(), currency };
    books.charges = charges.map(|charge| (charge.order, money(&charge.amount, charge.currency))).collect();
    books
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

fn money(of: &Value, field: &str) -> Money {
    let amount = of[field].as_f64().unwrap();
    assert_eq!(amount.fract(), 0.0, "{of}");
    Money { amount: amount as i64, currency: text(of, "currency") }
}

/// All records of a collection.
async fn all(api: &Api, collection: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/api/v1/{collection}?limit=1000{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let page = page.json();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}
