//! Batches: up to 1,000 operations on one collection, each by itself, or all as one unit of work.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};

use super::{
    error::ServiceError,
    precondition::Precondition,
    records::{
        Records,
        writes::{ATTEMPTS_MAX, back_off},
    },
};
use model::{
    batch::{Op, Operation},
    change::{Action, Change, Guard, Idempotency, Origin, Written},
    fault::FieldFault,
    json::{Draft, Echo, Patch, Replacement, parse_create, parse_patch, parse_replace},
    key::{Key, Version},
    record::{Lookup, Record},
    schema::Wrote,
    value::{Row, Timestamp},
};

/// How many operations of one batch are under way at once.
const CONCURRENCY: usize = 16;

/// How long a batch may take. Operations that were not done by then are told so, each by itself; a gateway
/// waits for longer.
const TIME: Duration = Duration::from_secs(20);

/// What became of one operation.
pub type Outcome = Result<Done, ServiceError>;

/// An operation that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The record's key.
    pub key: Key,
    /// The version that it made.
    pub version: Version,
    /// What was done: a create, or an update that created; or anything else; or a delete.
    pub kind: DoneKind,
}

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneKind {
    /// The record is new.
    Created,
    /// The record was changed.
    Changed,
    /// The record is gone.
    Deleted,
}

/// Why a unit of work was not done.
#[derive(Debug)]
pub enum Undone {
    /// An operation cannot be done by what is there.
    Planned {
        /// Its place.
        index: usize,
        /// Why.
        error: ServiceError,
    },
    /// The store refused an operation.
    Refused {
        /// Its place.
        index: usize,
        /// Why.
        error: ServiceError,
    },
    /// The whole was not done.
    Whole(ServiceError),
}

/// What a pool allows of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Whether an update creates a record that is not there.
    pub upserts: bool,
    /// The most bytes of an operation's data, as of the body of a request for one record.
    pub data_bytes_max: usize,
}

/// An operation whose data was read.
enum Job {
    Create(Draft),
    Update(Key, Precondition, Replacement),
    Patch(Key, Precondition, Patch),
    Delete(Key, Precondition),
}

/// Does each operation by itself, those on one record in their order, and says what became of each. Where
/// records can be in each other's way, by a unique value, all are done in their order. With an idempotency
/// key, each operation is told from its repeats by its place.
pub async fn run(
    records: &Records,
    bounds: Bounds,
    operations: &[Operation<'_>],
    origin: &Origin,
) -> Vec<Outcome> {
    let origin = &origin.within(TIME);
    let schema = records.schema();
    // which values of a declared table are unique only its owner knows
    let in_order = records.collection().declared || schema.fields.iter().any(|field| field.unique);
    let mut groups: Vec<Vec<(usize, Result<Job, ServiceError>)>> = Vec::new();
    let mut of_key: HashMap<Key, usize> = HashMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let job = job(records, bounds, operation);
        let key = job.as_ref().ok().and_then(Job::key).cloned();
        let group = match key {
            _ if in_order => 0,
            Some(key) => *of_key.entry(key).or_insert(groups.len()),
            None => groups.len(),
        };
        if group == groups.len() {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.get_mut(group) {
            group.push((index, job));
        }
    }
    let mut outcomes: Vec<(usize, Outcome)> = stream::iter(groups)
        .map(|group| async {
            let mut outcomes = Vec::with_capacity(group.len());
            for (index, job) in group {
                let origin = at_place(origin, index);
                let outcome = match job {
                    Ok(job) => alone(records, bounds.upserts, job, &origin).await,
                    Err(error) => Err(error),
                };
                outcomes.push((index, outcome));
            }
            outcomes
        })
        .buffer_unordered(CONCURRENCY)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .flatten()
        .collect();
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Does all operations or none. Each sees what those before it did.
///
/// # Errors
/// The first operation that cannot be done, or what the store says of the whole.
pub async fn run_atomic(
    records: &Records,
    bounds: Bounds,
    operations: &[Operation<'_>],
    origin: &Origin,
) -> Result<Vec<Done>, Undone> {
    let origin = &records.in_its_time(origin);
    let mut attempt = 0;
    loop {
        let undone = match unit(records, bounds, operations, origin).await {
            Err(undone) => undone,
            Ok(changes) => match records.commit_unit(changes, origin).await.map_err(ServiceError::split) {
                Ok(written) => return Ok(written.iter().map(done).collect()),
                // another writer came between the look and the commit
                Err((_, ServiceError::Stale { .. } | ServiceError::Exists | ServiceError::NotFound))
                    if attempt < ATTEMPTS_MAX =>
                {
                    back_off(attempt).await;
                    attempt += 1;
                    continue;
                }
                Err((Some(index), error)) => Undone::Refused { index, error },
                Err((None, error)) => Undone::Whole(error),
            },
        };
        return match records.recall(origin).await {
            Ok(Some(written)) => Ok(written.iter().map(done).collect()),
            Err(ServiceError::KeyReused) => Err(Undone::Whole(ServiceError::KeyReused)),
            Ok(None) | Err(_) => Err(undone),
        };
    }
}

async fn alone(records: &Records, upserts: bool, job: Job, origin: &Origin) -> Outcome {
    let changed = |record: &Record, created: bool| Done {
        key: record.key.clone(),
        version: record.version,
        kind: if created { DoneKind::Created } else { DoneKind::Changed },
    };
    match job {
        Job::Create(draft) => Ok(changed(&records.create(draft, origin).await?, true)),
        Job::Update(key, asked, body) if upserts => {
            let (record, created) = records.upsert(&key, &asked, body, origin).await?;
            Ok(changed(&record, created))
        }
        Job::Update(key, asked, body) => {
            Ok(changed(&records.replace(&key, &asked, body, origin).await?, false))
        }
        Job::Patch(key, asked, patch) => {
            Ok(changed(&records.patch(&key, &asked, &patch, origin).await?, false))
        }
        Job::Delete(key, asked) => {
            let version = records.delete(&key, &asked, origin).await?;
            Ok(Done { key, version, kind: DoneKind::Deleted })
        }
    }
}

fn job(records: &Records, bounds: Bounds, operation: &Operation<'_>) -> Result<Job, ServiceError> {
    if operation.data.len() > bounds.data_bytes_max {
        return Err(ServiceError::TooLarge(bounds.data_bytes_max));
    }
    let (schema, data) = (records.schema(), operation.data.as_bytes());
    let asked = operation.version.map_or(Precondition::None, |version| Precondition::OneOf(vec![version]));
    if operation.op == Op::Create {
        let mut draft = parse_create(schema, data)?;
        if let Some(key) = &operation.key {
            if draft.key.as_ref().is_some_and(|other| other != key) {
                return Err(ServiceError::field(&schema.key, "must be the id of the operation, or left out"));
            }
            draft.key =
                Some(schema.may_create(key.clone()).map_err(|fault| ServiceError::Invalid(vec![fault]))?);
        }
        return Ok(Job::Create(draft));
    }
    let key = operation.key.clone().ok_or_else(|| ServiceError::field("id", "is required"))?;
    Ok(match operation.op {
        Op::Update => Job::Update(key, asked, parse_replace(schema, data)?),
        Op::Patch => Job::Patch(key, asked, parse_patch(schema, data)?),
        Op::Create | Op::Delete => Job::Delete(key, asked),
    })
}

impl Job {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Create(draft) => draft.key.as_ref(),
            Self::Update(key, ..) | Self::Patch(key, ..) | Self::Delete(key, _) => Some(key),
        }
    }
}

fn done(written: &Written) -> Done {
    let kind = match (&written.record, written.created) {
        (None, _) => DoneKind::Deleted,
        (Some(_), true) => DoneKind::Created,
        (Some(_), false) => DoneKind::Changed,
    };
    Done { key: written.key.clone(), version: written.version, kind }
}

/// Each operation of a batch is a request of its own.
fn at_place(origin: &Origin, index: usize) -> Origin {
    let idempotency = origin.idempotency.as_ref().map(|Idempotency { key, request }| {
        // a key has room for its place
        Idempotency { key: format!("{key}.{index}"), request: request.clone() }
    });
    Origin { idempotency, ..origin.clone() }
}

/// The changes of a unit of work, by what the store has now. Nothing is changed by putting them together.
async fn unit(
    records: &Records,
    bounds: Bounds,
    operations: &[Operation<'_>],
    origin: &Origin,
) -> Result<Vec<Change>, Undone> {
    let planned = |index| move |error| Undone::Planned { index, error };
    let mut jobs = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        jobs.push(job(records, bounds, operation).map_err(planned(index))?);
    }
    let mut keys: Vec<Key> = jobs.iter().filter_map(Job::key).cloned().collect();
    keys.sort();
    keys.dedup();
    let found = records.look_up_for(origin, &keys).await.map_err(Undone::Whole)?;
    let there = keys
        .iter()
        .zip(&found)
        .filter(|(_, found)| matches!(found, Lookup::Found(_) | Lookup::Unreadable(_)));
    let stored = there.map(|(key, _)| key.clone()).collect();
    let (states, alone) = (keys.into_iter().zip(found).collect(), jobs.len() == 1);
    let mut draft =
        Unit { records, upserts: bounds.upserts, origin, states, stored, alone, index: 0, under_way: None };
    let mut changes = Vec::with_capacity(jobs.len());
    for (index, job) in jobs.into_iter().enumerate() {
        draft.index = index;
        let (key, action) = draft.add(job).await.map_err(planned(index))?;
        changes.push(Change { collection: records.collection().clone(), key, action });
    }
    match draft.under_way {
        None => Ok(changes),
        Some(index) => {
            let why = "something goes on with this record that has to end first: in an atomic batch it would end even where the \
                       batch is refused. Cancel it before, or delete it by itself";
            Err(planned(index)(ServiceError::Conflict(why.to_owned())))
        }
    }
}

/// A unit of work while it is put together: what its operations so far make of the records.
struct Unit<'a> {
    records: &'a Records,
    upserts: bool,
    origin: &'a Origin,
    states: HashMap<Key, Lookup>,
    /// The records that are there before it.
    stored: HashSet<Key>,
    /// Whether there is no other operation.
    alone: bool,
    /// The place of the operation that is looked at.
    index: usize,
    /// The first delete of a record with which something goes on.
    under_way: Option<usize>,
}

impl Unit<'_> {
    async fn add(&mut self, job: Job) -> Result<(Key, Action), ServiceError> {
        let schema = self.records.schema();
        match job {
            Job::Create(Draft { key, values }) => {
                let fresh_key = key.is_none();
                let key = key.unwrap_or_else(Key::generate);
                if matches!(self.states.get(&key), Some(Lookup::Found(_) | Lookup::Unreadable(_))) {
                    return Err(ServiceError::Exists);
                }
                let mut values = self.records.settle(values, None, self.origin).await?;
                self.records.note(None, &mut values, Wrote::Created);
                self.becomes(&key, Some(values.clone()));
                Ok((key, Action::Create { values, fresh_key }))
            }
            Job::Update(key, asked, Replacement { echo, values }) => {
                if let Some(change) = self.mend(&key, &asked, &values).await? {
                    return Ok(change);
                }
                let current = match self.current(&key, &asked, &echo) {
                    Err(ServiceError::NotFound) if self.upserts && asked == Precondition::None => {
                        schema.may_create(key.clone()).map_err(|fault| ServiceError::Invalid(vec![fault]))?;
                        let mut values = self.records.settle(values, None, self.origin).await?;
                        self.records.note(None, &mut values, Wrote::Created);
                        self.becomes(&key, Some(values.clone()));
                        return Ok((key, Action::Create { values, fresh_key: false }));
                    }
                    current => current?,
                };
                let mut values = self.records.with_read_only(values, &current);
                self.records.note(Some(&current.values), &mut values, Wrote::Replaced);
                self.replaced(key, &current, values).await
            }
            Job::Patch(key, asked, patch) => {
                let current = self.current(&key, &asked, &patch.echo)?;
                let mut values = patch.apply(schema, &current.values)?;
                self.records.note(Some(&current.values), &mut values, Wrote::Patched(&patch.fields()));
                self.replaced(key, &current, values).await
            }
            Job::Delete(key, asked) => {
                let (current, is_readable) = match self.states.get(&key) {
                    Some(Lookup::Unreadable(unreadable)) => {
                        asked.check(unreadable.rest.version)?;
                        (unreadable.rest.clone(), false)
                    }
                    _ => (self.current(&key, &asked, &Echo::default())?, true),
                };
                self.records.may_delete(&current).await?;
                if !self.alone && self.stored.contains(&key) && self.records.is_under_way(&current) {
                    self.under_way.get_or_insert(self.index);
                }
                let ended = self.alone && self.records.end(&key, self.origin).await?;
                let guard = if ended || !is_readable { Guard::Any } else { Guard::Exactly(current.version) };
                self.becomes(&key, None);
                Ok((key, Action::Delete { guard }))
            }
        }
    }

    /// Replaces a record that cannot be read; none where it is none.
    async fn mend(
        &mut self,
        key: &Key,
        asked: &Precondition,
        values: &Row,
    ) -> Result<Option<(Key, Action)>, ServiceError> {
        let Some(Lookup::Unreadable(unreadable)) = self.states.get(key) else { return Ok(None) };
        asked.check(unreadable.rest.version)?;
        let mut values = self.records.with_read_only(values.clone(), &unreadable.rest);
        self.records.note(Some(&unreadable.rest.values), &mut values, Wrote::Replaced);
        let values = self.records.settle(values, Some(&unreadable.rest), self.origin).await?;
        self.records.judge(&unreadable.rest, &values).await?;
        self.becomes(key, Some(values.clone()));
        Ok(Some((key.clone(), Action::Replace { guard: Guard::Any, values })))
    }

    async fn replaced(
        &mut self,
        key: Key,
        current: &Record,
        values: Row,
    ) -> Result<(Key, Action), ServiceError> {
        let values = self.records.settle(values, Some(current), self.origin).await?;
        self.records.judge(current, &values).await?;
        self.becomes(&key, Some(values.clone()));
        Ok((key, Action::Replace { guard: Guard::Exactly(current.version), values }))
    }

    /// The record as it is by now, if it may be changed.
    fn current(&self, key: &Key, asked: &Precondition, echo: &Echo) -> Result<Record, ServiceError> {
        let schema = self.records.schema();
        let current = match self.states.get(key) {
            Some(Lookup::Found(current)) => current,
            Some(Lookup::Unreadable(unreadable)) => {
                return Err(ServiceError::Unreadable(Arc::new((**unreadable).clone())));
            }
            Some(Lookup::Deleted(_) | Lookup::Missing) | None => return Err(ServiceError::NotFound),
        };
        asked.check(current.version)?;
        let wrong = |fault: FieldFault| ServiceError::Invalid(vec![fault]);
        echo.check_key(schema, key).map_err(wrong)?;
        if echo.version.is_some_and(|seen| seen != current.version) {
            return Err(ServiceError::Stale { current: current.version });
        }
        echo.check(schema, current).map_err(ServiceError::Invalid)?;
        Ok(current.clone())
    }

    fn becomes(&mut self, key: &Key, values: Option<Row>) {
        let (version, created_at) = match self.states.get(key) {
            Some(Lookup::Found(record)) => (record.version.next(), record.created_at),
            Some(Lookup::Unreadable(unreadable)) => {
                (unreadable.rest.version.next(), unreadable.rest.created_at)
            }
            Some(Lookup::Deleted(version)) => (version.next(), Timestamp::now()),
            Some(Lookup::Missing) | None => (Version(1), Timestamp::now()),
        };
        let state = match values {
            Some(values) => Lookup::Found(Record {
                key: key.clone(),
                version,
                created_at,
                updated_at: Timestamp::now(),
                values,
            }),
            None => Lookup::Deleted(version),
        };
        self.states.insert(key.clone(), state);
    }
}
