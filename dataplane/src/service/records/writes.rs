//! The changes of a pool's records: each a unit of work, tried again where others were faster, told from its
//! repeats.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    super::{error::ServiceError, precondition::Precondition},
    Records, Seen,
};
use model::{
    change::{Action, Guard, Origin, Written},
    json::{Draft, Echo, Patch, Replacement},
    key::{Key, Version},
    record::{Record, Unreadable},
    schema::Wrote,
    value::Row,
};

/// How often a change is tried again when others change the record at the same time.
pub const ATTEMPTS_MAX: u32 = 12;

impl Records {
    /// Creates a record.
    ///
    /// # Errors
    /// `Exists`, `Duplicate`, `Invalid`, `KeyReused`, or what the store says.
    pub async fn create(&self, draft: Draft, origin: &Origin) -> Result<Record, ServiceError> {
        let origin = &self.in_its_time(origin);
        record_of(self.once(origin, self.try_create(draft, origin)).await?)
    }

    async fn try_create(&self, draft: Draft, origin: &Origin) -> Result<Written, ServiceError> {
        let Draft { key, values } = draft;
        let fresh_key = key.is_none();
        let mut values = self.settle(values, None, origin).await?;
        self.note(None, &mut values, Wrote::Created);
        let key = key.unwrap_or_else(Key::generate);
        self.commit(key, Action::Create { values, fresh_key }, origin).await
    }

    /// Replaces a record's values; read-only fields stay.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Invalid`, `Duplicate`, `Contended`, `KeyReused`, or what the store says.
    pub async fn replace(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        origin: &Origin,
    ) -> Result<Record, ServiceError> {
        let origin = &self.in_its_time(origin);
        record_of(
            self.learn(key, self.once(origin, self.try_replace(key, precondition, body, origin)).await)?,
        )
    }

    async fn try_replace(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        origin: &Origin,
    ) -> Result<Written, ServiceError> {
        let Replacement { echo, values } = body;
        self.check_key(&echo, key)?;
        if let (Some(guard), false) = (self.blind_guard(precondition, &echo), self.schema().has_read_only()) {
            let values = self.settle(values, None, origin).await?;
            return self.commit(key.clone(), Action::Replace { guard, values }, origin).await;
        }
        let kept = |current: &Record| {
            let mut values = self.with_read_only(values.clone(), current);
            self.note(Some(&current.values), &mut values, Wrote::Replaced);
            Ok(values)
        };
        let done = self.try_update(key, precondition, &echo, origin, kept).await;
        match done {
            Err(ServiceError::Unreadable(unreadable)) => {
                self.mend(&unreadable, precondition, &echo, values, origin).await
            }
            done => done,
        }
    }

    /// Replaces a record that cannot be read. What it shows of its version is asked for as of any other; what
    /// it does not show, nobody can ask for.
    async fn mend(
        &self,
        unreadable: &Unreadable,
        precondition: &Precondition,
        echo: &Echo,
        values: Row,
        origin: &Origin,
    ) -> Result<Written, ServiceError> {
        let current = &unreadable.rest;
        precondition.check(current.version)?;
        if echo.version.is_some_and(|seen| seen != current.version) {
            return Err(ServiceError::Stale { current: current.version });
        }
        let mut values = self.with_read_only(values, current);
        self.note(Some(&current.values), &mut values, Wrote::Replaced);
        let values = self.settle(values, Some(current), origin).await?;
        self.judge(current, &values).await?;
        let guard = if unreadable.has_version() { Guard::Exactly(current.version) } else { Guard::Any };
        self.commit(current.key.clone(), Action::Replace { guard, values }, origin).await
    }

    /// Merges a patch into a record.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Invalid`, `Duplicate`, `Contended`, `KeyReused`, or what the store says.
    pub async fn patch(
        &self,
        key: &Key,
        precondition: &Precondition,
        patch: &Patch,
        origin: &Origin,
    ) -> Result<Record, ServiceError> {
        self.check_key(&patch.echo, key)?;
        let merged = |current: &Record| {
            let mut values = patch.apply(self.schema(), &current.values)?;
            self.note(Some(&current.values), &mut values, Wrote::Patched(&patch.fields()));
            Ok(values)
        };
        self.update(key, precondition, &patch.echo, origin, merged).await
    }

    /// Replaces a record's values, or creates it. Says whether it was created.
    ///
    /// # Errors
    /// `Stale`, `Invalid`, `Duplicate`, `KeyReused`, or what the store says.
    pub async fn upsert(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        origin: &Origin,
    ) -> Result<(Record, bool), ServiceError> {
        let origin = &self.in_its_time(origin);
        let written =
            self.learn(key, self.once(origin, self.try_upsert(key, precondition, body, origin)).await)?;
        let created = written.created;
        Ok((record_of(written)?, created))
    }

    async fn try_upsert(
        &self,
        key: &Key,
        precondition: &Precondition,
        body: Replacement,
        origin: &Origin,
    ) -> Result<Written, ServiceError> {
        self.check_key(&body.echo, key)?;
        let mut precondition = precondition;
        if let Precondition::NoneOf { present: false, .. } = precondition {
            match self.try_replace(key, precondition, body.clone(), origin).await {
                // what is not there has none of the versions
                Err(ServiceError::NotFound) => precondition = &Precondition::Absent,
                replaced => return replaced,
            }
        }
        let of_any = matches!(precondition, Precondition::None | Precondition::Absent);
        if let Err(fault) = self.schema().may_create(key.clone()) {
            // another program's record of such a key can be replaced, but none is made
            return match self.try_replace(key, precondition, body, origin).await {
                Err(ServiceError::NotFound) => Err(ServiceError::Invalid(vec![fault])),
                replaced => replaced,
            };
        }
        if !of_any || body.echo.version.is_some() || !body.echo.values.is_empty() {
            return match self.try_replace(key, precondition, body, origin).await {
                Err(ServiceError::NotFound) => Err(ServiceError::Stale { current: Version(0) }),
                replaced => replaced,
            };
        }
        let values = self.settle(body.values, None, origin).await?;
        let action = match precondition {
            Precondition::Absent => Action::Create { values, fresh_key: false },
            _ => Action::Upsert { guard: Guard::Any, values },
        };
        match self.commit(key.clone(), action, origin).await {
            Err(ServiceError::Exists) if *precondition == Precondition::Absent => {
                Err(ServiceError::Stale { current: self.seen(key, origin).await?.record().version })
            }
            done => done,
        }
    }

    /// Deletes a record, and gives the version of the delete.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Contended`, `KeyReused`, `Timeout`, or what the store says.
    pub async fn delete(
        &self,
        key: &Key,
        precondition: &Precondition,
        origin: &Origin,
    ) -> Result<Version, ServiceError> {
        let origin = &self.in_its_time(origin);
        Ok(self.learn(key, self.once(origin, self.try_delete(key, precondition, origin)).await)?.version)
    }

    async fn try_delete(
        &self,
        key: &Key,
        precondition: &Precondition,
        origin: &Origin,
    ) -> Result<Written, ServiceError> {
        if let (Some(guard), None) = (precondition.guard(), self.keeper.get()) {
            return self.commit(key.clone(), Action::Delete { guard }, origin).await;
        }
        for attempt in 0..ATTEMPTS_MAX {
            let seen = self.seen(key, origin).await?;
            precondition.check(seen.record().version)?;
            self.may_delete(seen.record()).await?;
            if self.end(key, origin).await? {
                return self.commit(key.clone(), Action::Delete { guard: Guard::Any }, origin).await;
            }
            match self.commit(key.clone(), Action::Delete { guard: seen.guard() }, origin).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return done,
            }
        }
        Err(ServiceError::Contended)
    }

    /// Asks the keeper whether a record may get these values.
    ///
    /// # Errors
    /// What the keeper says.
    pub async fn judge(&self, current: &Record, next: &Row) -> Result<(), ServiceError> {
        match self.keeper.get() {
            Some(keeper) => keeper.check(current, next).await,
            None => Ok(()),
        }
    }

    /// Whether something goes on with a record that has to end before it is deleted.
    pub fn is_under_way(&self, current: &Record) -> bool {
        self.keeper.get().is_some_and(|keeper| keeper.is_under_way(current))
    }

    /// Asks the keeper whether a record may be deleted as it is.
    ///
    /// # Errors
    /// What the keeper says.
    pub async fn may_delete(&self, current: &Record) -> Result<(), ServiceError> {
        match self.keeper.get() {
            Some(keeper) => keeper.check_delete(current).await,
            None => Ok(()),
        }
    }

    /// Lets the keeper end what goes on with a record before it is deleted. Says whether it may have changed
    /// the record.
    ///
    /// # Errors
    /// What the keeper says.
    pub async fn end(&self, key: &Key, origin: &Origin) -> Result<bool, ServiceError> {
        let Some(keeper) = self.keeper.get() else { return Ok(false) };
        let ended = timeout(self.time_left(origin), keeper.before_delete(key, &origin.actor)).await;
        ended.map_err(|_| ServiceError::Timeout)?
    }

    /// The origin of a change that begins now: all its attempts, with every read between them, end within the
    /// time of one call of the store.
    pub fn in_its_time(&self, origin: &Origin) -> Origin {
        origin.within(self.deadline)
    }

    /// A version that the caller did not expect may be news to the tiers as well: the process that committed
    /// it can have been killed before it told them, and whoever reads again after a 412 must not get the old
    /// one again.
    pub(super) fn learn<T>(&self, key: &Key, done: Result<T, ServiceError>) -> Result<T, ServiceError> {
        if let Err(ServiceError::Stale { current }) = &done {
            self.tiered.invalidate(key, *current);
        }
        done
    }

    /// Where a change failed that the same request had made before, its answer then is the answer now.
    pub(super) async fn once(
        &self,
        origin: &Origin,
        work: impl Future<Output = Result<Written, ServiceError>>,
    ) -> Result<Written, ServiceError> {
        let done = work.await;
        if done.is_ok() {
            return done;
        }
        match self.recall(origin).await {
            Ok(Some(earlier)) => earlier.into_iter().next().map_or(done, Ok),
            Err(ServiceError::KeyReused) => Err(ServiceError::KeyReused),
            Ok(None) | Err(_) => done,
        }
    }

    fn check_key(&self, echo: &Echo, key: &Key) -> Result<(), ServiceError> {
        echo.check_key(self.schema(), key).map_err(|fault| ServiceError::Invalid(vec![fault]))
    }

    /// The guard of a change that needs no look at the record first.
    fn blind_guard(&self, precondition: &Precondition, echo: &Echo) -> Option<Guard> {
        if !echo.values.is_empty() {
            return None;
        }
        match (precondition.guard()?, echo.version) {
            (guard, None) => Some(guard),
            (Guard::Any, Some(version)) => Some(Guard::Exactly(version)),
            (guard @ Guard::Exactly(asked), Some(version)) => (asked == version).then_some(guard),
        }
    }

    /// Values in which read-only fields are as the record has them.
    pub fn with_read_only(&self, mut values: Row, current: &Record) -> Row {
        let slots = self.schema().fields.iter().zip(&mut values.0).zip(&current.values.0);
        for ((_, slot), kept) in slots.filter(|((field, _), _)| field.read_only) {
            slot.clone_from(kept);
        }
        values
    }
}

impl Seen {
    /// The record, or what can be read of it.
    fn record(&self) -> &Record {
        match self {
            Self::Whole(record) => record,
            Self::Unreadable(unreadable) => &unreadable.rest,
        }
    }

    /// The guard of a change that follows this look.
    fn guard(&self) -> Guard {
        match self {
            Self::Unreadable(unreadable) if !unreadable.has_version() => Guard::Any,
            seen => Guard::Exactly(seen.record().version),
        }
    }
}

pub(super) fn record_of(written: Written) -> Result<Record, ServiceError> {
    written.record.ok_or_else(|| ServiceError::Internal("the store answered without the record".to_owned()))
}

/// A short pause of random length, longer with each attempt, so that writers of one key get out of each
/// other's way.
pub async fn back_off(attempt: u32) {
    let ms_max = 2u64 << attempt.min(6);
    sleep(Duration::from_millis(rand::random_range(0..ms_max))).await;
}
