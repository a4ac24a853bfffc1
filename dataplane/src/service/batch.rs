//! Batches: up to 1,000 operations on one collection, each by itself, or all as one unit of work.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};

use super::{
    error::ServiceError,
    precondition::Precondition,
    records::{
        Records,
        writes::{ATTEMPTS_MAX, back_off},
    },
};
use crate::domain::{
    batch::{Op, Operation},
    change::{Action, Change, Guard, Idempotency, Origin, Written},
    json::{Draft, Echo, Patch, Replacement, parse_create, parse_patch, parse_replace},
    record::{Key, Lookup, Record, Row, Version},
    schema::{FieldFault, Wrote},
    value::Timestamp,
};

/// How many operations of one batch are under way at once.
const CONCURRENCY: usize = 16;

/// How long a batch may take. Operations that were not done by then are told so, each by itself; a gateway waits for longer.
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
pub struct Undone {
    /// The operation that failed; none where only the store knows.
    pub index: Option<usize>,
    /// Why.
    pub error: ServiceError,
}

/// An operation whose data was read.
enum Job {
    Create(Draft),
    Update(Key, Precondition, Replacement),
    Patch(Key, Precondition, Patch),
    Delete(Key, Precondition),
}

/// Does each operation by itself, those on one record in their order, and says what became of each. With an idempotency key, each
/// operation is told from its repeats by its place.
pub async fn run(records: &Records, upserts: bool, operations: &[Operation<'_>], origin: &Origin) -> Vec<Outcome> {
    let origin = &origin.within(TIME);
    let mut groups: Vec<Vec<(usize, Result<Job, ServiceError>)>> = Vec::new();
    let mut of_key: HashMap<Key, usize> = HashMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let job = job(records, operation);
        let key = job.as_ref().ok().and_then(Job::key).cloned();
        let group = match key {
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
                    Ok(job) => alone(records, upserts, job, &origin).await,
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
    upserts: bool,
    operations: &[Operation<'_>],
    origin: &Origin,
) -> Result<Vec<Done>, Undone> {
    let origin = &records.in_its_time(origin);
    let mut attempt = 0;
    loop {
        let undone = match unit(records, upserts, operations, origin).await {
            Err(undone) => undone,
            Ok(changes) => match records.commit_all(changes, origin).await {
                Ok(written) => return Ok(written.iter().map(done).collect()),
                // another writer came between the look and the commit
                Err(ServiceError::Stale { .. } | ServiceError::Exists | ServiceError::NotFound)
                    if attempt < ATTEMPTS_MAX =>
                {
                    back_off(attempt).await;
                    attempt += 1;
                    continue;
                }
                Err(error) => Undone { index: None, error },
            },
        };
        return match records.recall(origin).await {
            Ok(Some(written)) => Ok(written.iter().map(done).collect()),
            Err(ServiceError::KeyReused) => Err(Undone { index: None, error: ServiceError::KeyReused }),
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
        Job::Update(key, asked, body) => Ok(changed(&records.replace(&key, &asked, body, origin).await?, false)),
        Job::Patch(key, asked, patch) => Ok(changed(&records.patch(&key, &asked, &patch, origin).await?, false)),
        Job::Delete(key, asked) => {
            let version = records.delete(&key, &asked, origin).await?;
            Ok(Done { key, version, kind: DoneKind::Deleted })
        }
    }
}

fn job(records: &Records, operation: &Operation<'_>) -> Result<Job, ServiceError> {
    let (schema, data) = (records.schema(), operation.data.as_bytes());
    let asked = operation.version.map_or(Precondition::None, |version| Precondition::OneOf(vec![version]));
    if operation.op == Op::Create {
        let mut draft = parse_create(schema, data)?;
        if let Some(key) = &operation.key {
            if draft.key.as_ref().is_some_and(|other| other != key) {
                return Err(ServiceError::field(&schema.key, "must be the id of the operation, or left out"));
            }
            draft.key = Some(schema.may_create(key.clone()).map_err(|fault| ServiceError::Invalid(vec![fault]))?);
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

/// The changes of a unit of work, by what the store has now.
async fn unit(
    records: &Records,
    upserts: bool,
    operations: &[Operation<'_>],
    origin: &Origin,
) -> Result<Vec<Change>, Undone> {
    let mut jobs = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        jobs.push(job(records, operation).map_err(|error| Undone { index: Some(index), error })?);
    }
    let mut keys: Vec<Key> = jobs.iter().filter_map(Job::key).cloned().collect();
    keys.sort();
    keys.dedup();
    let found = records.look_up_for(origin, &keys).await.map_err(|error| Undone { index: None, error })?;
    let mut draft = Unit { records, upserts, origin, states: keys.into_iter().zip(found).collect() };
    let mut changes = Vec::with_capacity(jobs.len());
    for (index, job) in jobs.into_iter().enumerate() {
        let (key, action) = draft.add(job).await.map_err(|error| Undone { index: Some(index), error })?;
        changes.push(Change { collection: records.collection().clone(), key, action });
    }
    Ok(changes)
}

/// A unit of work while it is put together: what its operations so far make of the records.
struct Unit<'a> {
    records: &'a Records,
    upserts: bool,
    origin: &'a Origin,
    states: HashMap<Key, Lookup>,
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
                self.records.note(Some(&current.values), &mut values, Wrote::Patched(&patch));
                self.replaced(key, &current, values).await
            }
            Job::Delete(key, asked) => {
                let guard = match self.states.get(&key) {
                    Some(Lookup::Unreadable(unreadable)) => {
                        asked.check(unreadable.rest.version)?;
                        self.records.may_delete(&unreadable.rest).await?;
                        self.records.end(&key, self.origin).await?;
                        Guard::Any
                    }
                    _ => {
                        let current = self.current(&key, &asked, &Echo::default())?;
                        self.records.may_delete(&current).await?;
                        let ended = self.records.end(&key, self.origin).await?;
                        if ended { Guard::Any } else { Guard::Exactly(current.version) }
                    }
                };
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

    async fn replaced(&mut self, key: Key, current: &Record, values: Row) -> Result<(Key, Action), ServiceError> {
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
            Some(Lookup::Unreadable(unreadable)) => (unreadable.rest.version.next(), unreadable.rest.created_at),
            Some(Lookup::Deleted(version)) => (version.next(), Timestamp::now()),
            Some(Lookup::Missing) | None => (Version(1), Timestamp::now()),
        };
        let state = match values {
            Some(values) => {
                Lookup::Found(Record { key: key.clone(), version, created_at, updated_at: Timestamp::now(), values })
            }
            None => Lookup::Deleted(version),
        };
        self.states.insert(key.clone(), state);
    }
}
