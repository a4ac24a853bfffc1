//! A group of consumers as any may be written: each event takes effect in the order in which it comes, once,
//! by an inbox of the events' ids, while members come and go with events in hand.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use events::{
    EventBus,
    consumer::{Content, Delivery},
    kafka::{KafkaBus, config::KafkaOptions},
};
use harness::{client::Api, seed, server::Server, wait};
use model::event::Envelope;
use rand::Rng;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::group::Group;

/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most events that a member has in hand.
const HAND: usize = 50;

/// What the events did. One lock stands for the transaction of the inbox and the effect.
#[derive(Default)]
struct Effects {
    inbox: HashSet<String>,
    /// The version of each key.
    versions: HashMap<String, u64>,
    repeats: u64,
    /// Versions that came out of order.
    faults: Vec<String>,
    /// Events that each member had.
    had: [u64; 2],
}

/// What became of a group.
#[derive(Debug)]
pub struct Outcome {
    /// How often it was shared out anew.
    pub rebalances: usize,
    /// Events that came again.
    pub repeats: u64,
}

/// A group of one or two members.
pub struct Readers {
    entity: &'static str,
    prefix: String,
    bus: Arc<KafkaBus>,
    group: Group,
    effects: Arc<Mutex<Effects>>,
    first: Member,
    second: Option<Member>,
    rebalances: usize,
    seed: u32,
}

struct Member {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Effects {
    fn take(&mut self, event: &Envelope) {
        if !self.inbox.insert(event.id.to_string()) {
            self.repeats += 1;
            return;
        }
        let last = self.versions.insert(event.key.clone(), event.version).unwrap_or(0);
        if event.version != last + 1 {
            self.faults.push(format!("{}: {} after {last}", event.key, event.version));
        }
    }
}

impl Readers {
    /// A group with one member, of the events of an entity whose keys begin so.
    pub fn join(kafka: &Server, entity: &'static str, prefix: &str, seed: u32) -> Self {
        let bus = Arc::new(KafkaBus::start(KafkaOptions::new(kafka.url(), "shop.")).unwrap());
        let (effects, group) = (Arc::default(), Group::of(kafka, &name_of(entity)));
        let first = member(&bus, &effects, 0, entity, prefix, seed);
        Self {
            entity,
            prefix: prefix.to_owned(),
            bus,
            group,
            effects,
            first,
            second: None,
            rebalances: 0,
            seed,
        }
    }

    /// A member comes, or goes, and the group is shared out anew: every member has events before and after
    /// it.
    pub async fn rebalance(&mut self, api: &Api) {
        self.each_has_events(api).await;
        match self.second.take() {
            None => {
                let seed = self.seed.wrapping_add(self.rebalances as u32 + 1);
                self.second = Some(member(&self.bus, &self.effects, 1, self.entity, &self.prefix, seed));
                self.group.has(2).await;
            }
            Some(second) => {
                second.leave().await;
                self.group.has(1).await;
            }
        }
        self.each_has_events(api).await;
        self.rebalances += 1;
    }

    /// Waits until each member has had an event from now on. The writers may be through by now, so there are
    /// some more, of records of their own.
    async fn each_has_events(&self, api: &Api) {
        let (before, members) = (self.effects.lock().unwrap().had, if self.second.is_some() { 2 } else { 1 });
        wait::until("events for each member", PATIENCE, async || {
            let (path, body) = self.another();
            // one replica or the other may be away
            _ = api.call(reqwest::Method::POST, path, &[], Some(body.to_string().into_bytes())).await;
            let had = self.effects.lock().unwrap().had;
            (0..members).all(|member| had[member] > before[member]).then_some(())
        })
        .await;
    }

    /// A new record that no effect is wanted of.
    fn another(&self) -> (&'static str, Value) {
        match self.entity {
            "user" => {
                let email = format!("{}@example.com", rand::random::<u64>());
                ("/api/v1/users", json!({ "email": email, "name": "one more" }))
            }
            _ => ("/api/v1/products", json!({ "name": "one more", "price": 1 })),
        }
    }

    /// Waits until each of so many keys is at this version, and says what became of the group.
    pub async fn finish(self, keys: usize, version: usize) -> Outcome {
        let all = || {
            let effects = self.effects.lock().unwrap();
            effects.versions.len() == keys && effects.versions.values().all(|at| *at == version as u64)
        };
        wait::until("every event", PATIENCE, async || {
            let effects = self.effects.lock().unwrap();
            assert!(effects.faults.is_empty(), "{:?}", effects.faults);
            drop(effects);
            all().then_some(())
        })
        .await;
        self.first.leave().await;
        if let Some(second) = self.second {
            second.leave().await;
        }
        let effects = self.effects.lock().unwrap();
        assert!(effects.faults.is_empty(), "{:?}", effects.faults);
        eprintln!(
            "{}: {} events in order, {} repetitions kept out by the inbox, shared out anew {} times, by member {:?}",
            self.entity,
            effects.inbox.len(),
            effects.repeats,
            self.rebalances,
            effects.had
        );
        Outcome { rebalances: self.rebalances, repeats: effects.repeats }
    }
}

impl Member {
    async fn leave(self) {
        _ = self.stop.send(true);
        self.task.await.unwrap();
    }
}

/// A member that takes events into its hand, and lets them take effect from there a little later.
fn member(
    bus: &Arc<KafkaBus>,
    effects: &Arc<Mutex<Effects>>,
    number: usize,
    entity: &'static str,
    prefix: &str,
    seed: u32,
) -> Member {
    let (bus, effects, prefix) = (bus.clone(), effects.clone(), prefix.to_owned());
    let mut choices = seed::choices(seed);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut consumer = bus.consume(&name_of(entity), entity).await.unwrap();
        let mut hand: Vec<Delivery> = Vec::new();
        let mut full = 1;
        while !*stopped.borrow() {
            let next = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
            let waited = next.is_err();
            // an error is the topic that is not known yet
            hand.extend(next.ok().and_then(Result::ok));
            if waited || hand.len() >= full {
                see_to(&mut hand, &effects, number, &prefix);
                full = choices.random_range(1..=HAND);
            }
        }
        see_to(&mut hand, &effects, number, &prefix);
    });
    Member { stop, task }
}

/// The name of the group of an entity's readers.
fn name_of(entity: &str) -> String {
    format!("readers-{entity}")
}

/// Each event takes effect, and then its place is given up.
fn see_to(hand: &mut Vec<Delivery>, effects: &Mutex<Effects>, member: usize, prefix: &str) {
    for Delivery { content, ticket } in hand.drain(..) {
        let mut effects = effects.lock().unwrap();
        effects.had[member] += 1;
        match content {
            Content::Event(event) if event.key.starts_with(prefix) => effects.take(&event),
            Content::Event(_) => (),
            Content::Poison { place, error, .. } => panic!("{place}: {error}"),
        }
        ticket.seen_to();
    }
}
