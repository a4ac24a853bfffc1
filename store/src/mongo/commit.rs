//! A change as one guarded update of one document: the record, its version and its event change together or
//! not at all.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bson::{Bson, Document, doc};
use tokio::time::Instant;

use super::{
    super::{
        answer,
        apply::{Applied, State, apply},
        leases::shard_of,
        limits::Limits,
    },
    StoreError, audit,
    document::{Documents, PENDING, PENDING_AT, SHARD},
    fault::{Fault, write},
    ledger::{Known, Ledger, answer_in, rider},
    values::time_to_bson,
};
use model::{
    change::{Action, Change, UnitOfWork, Written},
    key::{Key, Version},
    value::Timestamp,
};

/// How often a change is tried when others change the same record.
const ATTEMPTS_MAX: u32 = 64;
/// The most events that wait in one document, and the most bytes of them: a document can have 16 MiB.
const PENDING_MAX: usize = 1000;
const PENDING_BYTES_MAX: usize = 4 << 20;

/// Commits a unit whose changes are all of one record.
pub async fn commit(
    documents: &Arc<Documents>,
    ledger: &Ledger,
    work: &UnitOfWork,
    deadline: Instant,
) -> Result<Vec<Written>, StoreError> {
    let Some(first) = work.changes.first() else { return Ok(Vec::new()) };
    if let Some(why) = &documents.read_only {
        return Err(StoreError::ReadOnly(why.clone()));
    }
    let (mut work, mut first_try) = (Cow::Borrowed(work), true);
    if let Some(key) = &work.idempotency {
        match ledger.reserve(key, &first.key, deadline).await? {
            None => (),
            Some(Known::Done(answer)) => return repeated(documents, &work, &answer),
            Some(Known::Reserved(record)) => {
                first_try = false;
                let made = matches!(first.action, Action::Create { fresh_key: true, .. });
                if made {
                    work.to_mut().changes.iter_mut().for_each(|change| change.key = record.clone());
                }
            }
        }
    }
    let done = attempts(documents, ledger, &work, first_try, deadline).await;
    if let (Some(key), Err(error)) = (&work.idempotency, &done)
        && error.is_refusal()
    {
        // as in every store: what was refused leaves its key free. Where this fails the key stays with this
        // request
        _ = ledger.release(key, deadline).await;
    }
    done
}

async fn attempts(
    documents: &Documents,
    ledger: &Ledger,
    work: &UnitOfWork,
    first_try: bool,
    deadline: Instant,
) -> Result<Vec<Written>, StoreError> {
    for attempt in 1..=ATTEMPTS_MAX {
        let unit = Unit { documents, ledger, work, trusted: first_try && attempt == 1, deadline };
        if let Some(written) = unit.attempt().await? {
            return Ok(written);
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..=u64::from(attempt)))).await;
    }
    let key = work.changes.first().map(|change| change.key.to_string()).unwrap_or_default();
    Err(StoreError::Unavailable(format!("too many changes of {key} at once")))
}

/// The answer of an earlier unit with the same key.
pub fn repeated(documents: &Documents, work: &UnitOfWork, answer: &str) -> Result<Vec<Written>, StoreError> {
    let Some(key) = &work.idempotency else { return Ok(Vec::new()) };
    let collections = work.changes.iter().map(|change| change.collection.as_ref());
    answer::decode(answer, collections, key, documents.sealer.as_ref())
}

/// A unit that is tried.
struct Unit<'a> {
    documents: &'a Documents,
    ledger: &'a Ledger,
    work: &'a UnitOfWork,
    /// Whether a key that was made just now is surely new.
    trusted: bool,
    deadline: Instant,
}

impl Unit<'_> {
    /// One try; none where another writer came first.
    async fn attempt(&self) -> Result<Option<Vec<Written>>, StoreError> {
        let Self { documents, work, deadline, .. } = self;
        let Some(first) = work.changes.first() else { return Ok(Some(Vec::new())) };
        let fresh = self.trusted && matches!(first.action, Action::Create { fresh_key: true, .. });
        let stored = match fresh {
            true => None,
            false => {
                let stored = stored(documents, &first.key, *deadline).await?;
                if let Some(answer) = self.done(stored.as_ref()).await? {
                    return repeated(documents, work, &answer).map(Some);
                }
                stored
            }
        };
        if let Some(stored) = &stored {
            check_room(stored, &first.key)?;
        }
        let (id, before) = match &stored {
            Some(stored) => (own_id(documents, stored, work)?, self.known_state(stored).await?),
            None => (documents.id_of(&first.key)?, State::Absent(Version(0))),
        };
        let now = self.ledger.now(*deadline).await?;
        let (mut state, mut written, mut riders) = (before, Vec::new(), Vec::new());
        for (place, change) in work.changes.iter().enumerate() {
            let applied = apply(&state, change, now, &Limits::default());
            let named =
                |error: StoreError| if work.changes.len() > 1 { error.of_change(place) } else { error };
            let Applied { state: next, written: done, event, before } = applied.map_err(named)?;
            state = next;
            riders.push(rider(&event, &work.actor, before.as_deref())?);
            written.push(done);
        }
        if let State::Present(record) = &state {
            documents.check_numbers(record)?;
        }
        self.add_answer(&written, &mut riders)?;
        let update = update(documents, first, &state, riders, now);
        let done = match &stored {
            None => insert(documents, id, update, *deadline).await,
            Some(stored) => replace(documents, id, stored, update, *deadline).await,
        };
        match done {
            Ok(true) => Ok(Some(written)),
            Ok(false) => Ok(None),
            Err(Fault::Taken(index)) => match documents.taken(&index) {
                // somebody created it since it was looked for
                StoreError::Exists => Ok(None),
                // it may have been the same request
                _ if work.idempotency.is_some() && self.trusted => Ok(None),
                duplicate => Err(duplicate),
            },
            Err(Fault::Store(error)) => Err(error),
        }
    }

    /// What a document says of its key. Where its version cannot be read, it goes on from the newest that the
    /// audit knows.
    async fn known_state(&self, stored: &Document) -> Result<State, StoreError> {
        let (key, mut state) = self.documents.state(stored).map_err(|named| {
            StoreError::Corrupt(format!(
                "the {} of a document of {}",
                named.field, self.documents.collection.name
            ))
        })?;
        if let State::Unreadable(unreadable) = &mut state
            && !unreadable.has_version()
        {
            let newest =
                audit::newest(self.ledger, self.documents, stored, key.as_str(), self.deadline).await?;
            unreadable.rest.version = newest;
        }
        Ok(state)
    }

    /// What this unit's key was answered: in the document, or filed before the document was read.
    async fn done(&self, stored: Option<&Document>) -> Result<Option<String>, StoreError> {
        let Some(key) = &self.work.idempotency else { return Ok(None) };
        if let Some(answer) = stored.and_then(|stored| answer_in(stored, &key.key)) {
            return Ok(Some(answer.to_owned()));
        }
        match self.ledger.known(key, self.deadline).await? {
            Some(Known::Done(answer)) => Ok(Some(answer)),
            Some(Known::Reserved(_)) | None => Ok(None),
        }
    }

    fn add_answer(&self, written: &[Written], riders: &mut [Document]) -> Result<(), StoreError> {
        let (Some(key), Some(rider)) = (&self.work.idempotency, riders.first_mut()) else { return Ok(()) };
        let collections = self.work.changes.iter().map(|change| change.collection.as_ref());
        let answer = answer::encode(written, collections, key, self.documents.sealer.as_ref())?;
        rider.insert("done", doc! { "key": &key.key, "answer": answer });
        Ok(())
    }
}

/// The document of a key: that whose `_id` is of the collection's form, or else one that another program
/// mixed in.
async fn stored(documents: &Documents, key: &Key, deadline: Instant) -> Result<Option<Document>, StoreError> {
    let find = doc! { "_id": { "$in": documents.ids(key.as_str()) } };
    let mut found = super::collect_raw(documents.raw().find(find), deadline).await?;
    found.sort_by_key(|document| !document.get("_id").is_some_and(|id| documents.key.has(id)));
    Ok(found.into_iter().next())
}

/// The `_id` of a stored document. One of another type than the others' stays what it is, so the document can
/// only be deleted.
fn own_id(documents: &Documents, stored: &Document, work: &UnitOfWork) -> Result<Bson, StoreError> {
    let id = stored.get("_id").cloned().unwrap_or(Bson::Null);
    let deletes = work.changes.iter().all(|change| matches!(change.action, Action::Delete { .. }));
    match deletes || documents.key.has(&id) {
        true => Ok(id),
        false => Err(StoreError::Unsupported(format!(
            "the _id of this document has another type than the others of {}: delete it, and create it anew",
            documents.collection.name
        ))),
    }
}

/// A record whose events nobody relays may not grow until its document is full.
pub fn check_room(stored: &Document, key: &Key) -> Result<(), StoreError> {
    let pending = stored.get_array(PENDING).map(Vec::as_slice).unwrap_or_default();
    let bytes: usize = pending.iter().filter_map(Bson::as_document).map(rider_len).sum();
    if pending.len() >= PENDING_MAX || bytes >= PENDING_BYTES_MAX {
        return Err(StoreError::Unavailable(format!("too many events of {key} wait to be published")));
    }
    Ok(())
}

/// About how many bytes an event takes with what rides with it.
fn rider_len(rider: &Document) -> usize {
    let text = |document: &Document, name: &str| document.get_str(name).map_or(0, str::len);
    let answer = rider.get_document("done").map_or(0, |done| text(done, "answer"));
    text(rider, "envelope") + text(rider, "before") + answer
}

/// The text of a pending event.
pub fn envelope_of(pending: &Bson) -> Option<&str> {
    pending.as_document()?.get_str("envelope").ok()
}

/// What makes a document this state, with its events.
pub struct Update {
    /// The fields that it gets.
    pub set: Document,
    /// The fields that it loses.
    pub unset: Document,
    /// Its events.
    pub pending: Vec<Bson>,
    /// When they were made.
    pub at: Bson,
}

/// The update that makes a document this state.
pub fn update(
    documents: &Documents,
    change: &Change,
    state: &State,
    riders: Vec<Document>,
    now: Timestamp,
) -> Update {
    let (mut set, unset) = match state {
        State::Present(record) => documents.parts(record),
        // nothing is made unreadable
        State::Unreadable(unreadable) => documents.parts(&unreadable.rest),
        State::Absent(version) => documents.tombstone(*version, now),
    };
    set.insert(SHARD, shard_of(&documents.collection.name, change.key.as_str()));
    Update { set, unset, pending: riders.into_iter().map(Bson::Document).collect(), at: time_to_bson(now) }
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
