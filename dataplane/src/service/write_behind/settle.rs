//! Brings what the log decided into the store: the newest version of each key, many keys at once, again until
//! the store took it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::ledger::{Due, Ledger};
use crate::service::records::Wake;
use model::{
    change::{Action, Change, Collection, UnitOfWork},
    key::{Key, Version},
    record::Lookup,
};
use store::{RecordStore, StoreError, apply::State};

/// Keys that are settled at once, and one by one at the same time where the store cannot take them together.
const TOGETHER: usize = 128;
const AT_ONCE: usize = 16;
/// How long the store may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The wait after a failure, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often it is looked for what other replicas left.
const LOOK: Duration = Duration::from_millis(500);

/// Settles until the ledger is gone.
pub async fn run(store: Arc<dyn RecordStore>, collection: Arc<Collection>, ledger: Weak<Ledger>, wake: Wake) {
    let mut wait = RETRY_FIRST;
    while let Some(ledger) = ledger.upgrade() {
        let due = ledger.due(TOGETHER);
        if due.is_empty() {
            _ = timeout(LOOK, ledger.news.notified()).await;
            continue;
        }
        if settle(&*store, &collection, &ledger, due).await {
            wait = RETRY_FIRST;
            wake();
        } else {
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}

/// Settles some keys; says whether the store took or refused each for good.
async fn settle(
    store: &dyn RecordStore,
    collection: &Arc<Collection>,
    ledger: &Ledger,
    mut due: Vec<Due>,
) -> bool {
    if !ledger.is_caught_up() && !leave_out_known(store, collection, ledger, &mut due).await {
        return false;
    }
    if due.is_empty() {
        return true;
    }
    let whole = commit(store, collection, &due).await;
    match whole {
        Ok(()) => {
            due.iter().for_each(|due| ledger.settle(&due.key, due.state.version(), false));
            true
        }
        // one of them is there already, or the store takes them only one by one
        Err(StoreError::Stale { .. } | StoreError::Unsupported(_) | StoreError::Invalid(_)) => {
            let one = async |due: &Due| match commit(store, collection, std::slice::from_ref(due)).await {
                Ok(()) => {
                    ledger.settle(&due.key, due.state.version(), false);
                    true
                }
                Err(StoreError::Stale { current }) => {
                    ledger.settle(&due.key, due.state.version(), current > due.state.version());
                    true
                }
                Err(error) => {
                    warn!(pool = collection.pool, %error, "the store did not take a write of the log yet");
                    false
                }
            };
            let done: Vec<bool> = stream::iter(&due).map(one).buffer_unordered(AT_ONCE).collect().await;
            done.into_iter().all(|done| done)
        }
        Err(error) => {
            warn!(pool = collection.pool, %error, keys = due.len(), "the store did not take writes of the log yet");
            false
        }
    }
}

/// After a start most of what the log holds is in the store already: one look at many keys tells. Says
/// whether the store answered.
async fn leave_out_known(
    store: &dyn RecordStore,
    collection: &Collection,
    ledger: &Ledger,
    due: &mut Vec<Due>,
) -> bool {
    let keys: Vec<Key> = due.iter().map(|due| due.key.clone()).collect();
    let found = match timeout(DEADLINE, store.read(collection, &keys)).await {
        Ok(Ok(found)) => found,
        _ => return false,
    };
    let version = |found: &Lookup| match found {
        Lookup::Found(record) => record.version,
        Lookup::Deleted(version) => *version,
        Lookup::Missing => Version(0),
        Lookup::Unreadable(unreadable) => unreadable.rest.version,
    };
    let mut stored = found.iter().map(version);
    due.retain(|due| {
        let known = stored.next().is_some_and(|stored| stored >= due.state.version());
        if known {
            ledger.settle(&due.key, due.state.version(), false);
        }
        !known
    });
    true
}

async fn commit(
    store: &dyn RecordStore,
    collection: &Arc<Collection>,
    due: &[Due],
) -> Result<(), StoreError> {
    let change = |Due { key, state, actor: _ }: &Due| {
        let (version, record) = match state {
            State::Present(record) => (record.version, Some(record.clone())),
            State::Absent(version) => (*version, None),
            State::Unreadable(unreadable) => (unreadable.rest.version, Some(unreadable.rest.clone())),
        };
        Change {
            collection: collection.clone(),
            key: key.clone(),
            action: Action::Settle { version, record },
        }
    };
    let actor = due.first().map(|due| due.actor.clone()).unwrap_or_default();
    let work =
        UnitOfWork { changes: due.iter().map(change).collect(), actor, idempotency: None, deadline: None };
    match timeout(DEADLINE, store.commit(work)).await {
        Ok(done) => done.map(drop),
        Err(_) => Err(StoreError::Unavailable("it did not answer in time".to_owned())),
    }
}
