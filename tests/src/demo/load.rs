//! Traffic through the Service while something happens: every request is counted, every failure kept.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
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
}

#[derive(Default)]
struct State {
    answered: AtomicUsize,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    created: Mutex<Vec<String>>,
}

impl Load {
    /// Starts clients that read one record; `writers` of them create records as well.
    pub fn start(api: &Api, path: &str, readers: usize, writers: usize) -> Self {
        let state = Arc::new(State::default());
        let clients = (0..readers + writers)
            .map(|n| tokio::spawn(client(api.clone(), path.to_owned(), n < writers, state.clone())))
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
        Outcome {
            answered: self.state.answered.load(Ordering::Relaxed),
            failures: take(&self.state.failures),
            created: take(&self.state.created),
        }
    }
}

async fn client(api: Api, path: String, writes: bool, state: Arc<State>) {
    while !state.stop.load(Ordering::Relaxed) {
        let outcome = if writes {
            let body = json!({ "name": "load", "price": 1 }).to_string().into_bytes();
            api.call(Method::POST, "/api/v1/products", &[], Some(body)).await
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
        if let (Some(failure), Ok(mut failures)) = (failure, state.failures.lock()) {
            failures.push(failure);
        }
    }
}
