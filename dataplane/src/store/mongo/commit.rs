//! A change as one guarded update of one document: the record, its version and its event change together or not at all.

use std::{sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use tokio::time::Instant;

use super::{
    super::{
        apply::{Applied, State, apply},
        leases::shard_of,
    },
    StoreError,
    document::{Documents, PENDING, PENDING_AT, SHARD},
    fault::{Fault, read, write},
    values::time_to_bson,
};
use crate::domain::{
    change::{Action, Change, UnitOfWork, Written},
    event::Envelope,
    record::Version,
    value::Timestamp,
};

/// How often a change is tried when others change the same record.
const ATTEMPTS_MAX: u32 = 64;
/// The most events that wait in one document, and the most bytes of them: a document can have 16 MiB.
const PENDING_MAX: usize = 1000;
const PENDING_BYTES_MAX: usize = 4 << 20;

/// Commits a unit: several changes only where all are of one record.
pub async fn commit(
    documents: &Arc<Documents>,
    work: &UnitOfWork,
    deadline: Instant,
) -> Result<Vec<Written>, StoreError> {
    let Some(first) = work.changes.first() else { return Ok(Vec::new()) };
    let one_record = |change: &Change| change.key == first.key && change.collection.name == first.collection.name;
    if !work.changes.iter().all(one_record) {
        return Err(StoreError::Unsupported(
            "changes of several records are not atomic in MongoDB: commit them one by one".to_owned(),
        ));
    }
    if let Some(why) = &documents.read_only {
        return Err(StoreError::ReadOnly(why.clone()));
    }
    let mut attempt = 1;
    loop {
        let trusted = attempt == 1;
        match try_commit(documents, &work.changes, trusted, deadline).await? {
            Some(written) => return Ok(written),
            None if attempt == ATTEMPTS_MAX => {
                return Err(StoreError::Unavailable(format!("too many changes of {} at once", first.key)));
            }
            None => tokio::time::sleep(Duration::from_millis(rand::random_range(0..=u64::from(attempt)))).await,
        }
        attempt += 1;
    }
}

/// One try; none where another writer came first.
async fn try_commit(
    documents: &Documents,
    changes: &[Change],
    trusted: bool,
    deadline: Instant,
) -> Result<Option<Vec<Written>>, StoreError> {
    let Some(first) = changes.first() else { return Ok(Some(Vec::new())) };
    let id = documents.id_of(&first.key)?;
    let fresh = trusted && matches!(first.action, Action::Create { fresh_key: true, .. });
    let stored = match fresh {
        true => None,
        false => read(deadline, documents.handle.find_one(doc! { "_id": id.clone() })).await?,
    };
    if let Some(stored) = &stored {
        check_room(stored, first)?;
    }
    let before = match &stored {
        Some(stored) => documents.state(stored)?.1,
        None => State::Absent(Version(0)),
    };
    let now = Timestamp::now();
    let (mut state, mut written, mut events) = (before, Vec::new(), Vec::new());
    for change in changes {
        let Applied { state: next, written: done, event } = apply(&state, change, now)?;
        (state, events) = (next, [events, vec![event]].concat());
        written.push(done);
    }
    let update = update(documents, first, &state, &events, now)?;
    let done = match &stored {
        None => insert(documents, id, update, deadline).await,
        Some(stored) => replace(documents, id, stored, update, deadline).await,
    };
    match done {
        Ok(true) => Ok(Some(written)),
        Ok(false) => Ok(None),
        Err(Fault::Taken(index)) => match documents.taken(&index) {
            // somebody created it since it was looked for
            StoreError::Exists => Ok(None),
            duplicate => Err(duplicate),
        },
        Err(Fault::Store(error)) => Err(error),
    }
}

/// A record whose events nobody relays may not grow until its document is full.
fn check_room(stored: &Document, change: &Change) -> Result<(), StoreError> {
    let pending = stored.get_array(PENDING).map(Vec::as_slice).unwrap_or_default();
    let bytes: usize = pending.iter().filter_map(envelope_of).map(str::len).sum();
    if pending.len() >= PENDING_MAX || bytes >= PENDING_BYTES_MAX {
        return Err(StoreError::Unavailable(format!("too many events of {} wait to be published", change.key)));
    }
    Ok(())
}

/// The text of a pending event.
pub fn envelope_of(pending: &Bson) -> Option<&str> {
    pending.as_document()?.get_str("envelope").ok()
}

/// What makes a document this state, with its events.
struct Update {
    set: Document,
    unset: Document,
    pending: Vec<Bson>,
    at: Bson,
}

fn update(
    documents: &Documents,
    change: &Change,
    state: &State,
    events: &[Envelope],
    now: Timestamp,
) -> Result<Update, StoreError> {
    let (mut set, unset) = match state {
        State::Present(record) => documents.parts(record),
        State::Absent(version) => documents.tombstone(*version, now),
    };
    set.insert(SHARD, shard_of(&documents.collection.name, change.key.as_str()));
    let mut pending = Vec::with_capacity(events.len());
    for event in events {
        let text = serde_json::to_string(event).map_err(|error| StoreError::Unsupported(error.to_string()))?;
        pending.push(Bson::Document(doc! { "id": event.id.to_string(), "envelope": text }));
    }
    Ok(Update { set, unset, pending, at: time_to_bson(now) })
}

async fn insert(documents: &Documents, id: Bson, update: Update, deadline: Instant) -> Result<bool, Fault> {
    let Update { set, unset: _, pending, at } = update;
    let mut document = doc! { "_id": id };
    document.extend(set);
    document.insert(PENDING, pending);
    document.insert(PENDING_AT, at);
    write(deadline, documents.handle.insert_one(document)).await.map(|_| true)
}

/// Guarded by the version that the document had, or by its not having one.
async fn replace(
    documents: &Documents,
    id: Bson,
    stored: &Document,
    update: Update,
    deadline: Instant,
) -> Result<bool, Fault> {
    let Update { set, unset, pending, at } = update;
    let version = stored.get(&documents.version).cloned().unwrap_or(Bson::Null);
    let guard = doc! { "_id": id, &documents.version: version };
    let changes = doc! {
        "$set": set,
        "$unset": unset,
        "$push": { PENDING: { "$each": pending } },
        // the oldest stays
        "$min": { PENDING_AT: at },
    };
    write(deadline, documents.handle.update_one(guard, changes)).await.map(|done| done.matched_count == 1)
}
