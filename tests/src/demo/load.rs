//! Traffic through the Service while something happens: every request is counted, every failure kept.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{client::Api, wait};

/// Clients that read and write until they are told to stop.
pub struct Load {
    state: Arc<State>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients have seen.
#[derive(Debug)]
pub struct Outcome {
    /// Requests that were answered.
    pub answered: usize,
    /// What went wrong, a line each.
    pub failures: Vec<String>,
    /// Paths of created records.
    pub created: Vec<String>,
    /// How long answers took, the quickest first.
    pub took: Vec<Duration>,
}

#[derive(Default)]
struct State {
    answered: AtomicUsize,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    created: Mutex<Vec<String>>,
    took: Mutex<Vec<Duration>>,
}

impl Outcome {
    /// What so many of a hundred answers took at most.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).copied().unwrap_or_default()
    }
}

impl Load {
    /// Starts clients that read one record; `writers` of them create records as well.
    pub fn start(api: &Api, path: &str, readers: usize, writers: usize) -> Self {
        let state = Arc::new(State::default());
        let clients = (0..readers + writers)
            .map(|n| tokio::spawn(client(api.clone(), path.to_owned(), n < writers, None, state.clone())))
            .collect();
        Self { state, clients }
    }

    /// The same at a rate: each client sends when its time has come, and what comes late makes up for it.
    pub fn at_rate(api: &Api, path: &str, per_second: u32, readers: u32, writers: u32) -> Self {
        let state = Arc::new(State::default());
        let clients = readers + writers;
        let pause = Duration::from_secs(clients.into()) / per_second;
        let clients = (0..clients)
            .map(|n| {
                tokio::spawn(client(api.clone(), path.to_owned(), n < writers, Some(pause), state.clone()))
            })
            .collect();
        Self { state, clients }
    }

    /// Waits until so many more requests were answered.
    pub async fn pass(&self, more: usize) {
        let due = self.state.answered.load(Ordering::Relaxed) + more;
        wait::until(&format!("{more} more answers"), Duration::from_secs(60), async || {
            (self.state.answered.load(Ordering::Relaxed) >= due).then_some(())
        })
        .await;
    }

    /// Stops the clients and says what they have seen.
    pub async fn stop(self) -> Outcome {
        self.state.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            _ = client.await;
        }
        let take = |list: &Mutex<Vec<String>>| list.lock().map(|list| list.clone()).unwrap_or_default();
        let mut took = self.state.took.lock().map(|list| list.clone()).unwrap_or_default();
        took.sort_unstable();
        Outcome {
            took,
            answered: self.state.answered.load(Ordering::Relaxed),
            failures: take(&self.state.failures),
            created: take(&self.state.created),
        }
    }
}

async fn client(api: Api, path: String, writes: bool, pause: Option<Duration>, state: Arc<State>) {
    let mut due = pause.map(tokio::time::interval);
    while !state.stop.load(Ordering::Relaxed) {
        if let Some(due) = &mut due {
            due.tick().await;
        }
        let start = Instant::now();
        let outcome = if writes {
            let body = json!({ "name": "load", "price": 1 }).to_string().into_bytes();
            // What was sent to a pod that dies may be sent again: the key makes it one write.
            let key = format!("load-{:x}", rand::random::<u128>());
            api.call(Method::POST, "/api/v1/products", &[("idempotency-key", &key)], Some(body)).await
        } else {
            api.call(Method::GET, &path, &[], None).await
        };
        let failure = match outcome {
            Ok(answer) if answer.status == 201 => {
                if let Ok(mut created) = state.created.lock() {
                    created.push(answer.header("location").to_owned());
                }
                None
            }
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("{}: {}", answer.status, answer.text)),
            Err(error) => Some(format!("{error:?}")),
        };
        state.answered.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut took) = state.took.lock() {
            took.push(start.elapsed());
        }
        if let (Some(failure), Ok(mut failures)) = (failure, state.failures.lock()) {
            failures.push(failure);
        }
    }
}
