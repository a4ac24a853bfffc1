//! The changes that the service itself does: no rule is asked.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{
    Records,
    writes::{ATTEMPTS_MAX, back_off, record_of},
};
use crate::service::{error::ServiceError, precondition::Precondition};
use model::{
    change::{Action, Guard, Origin, Written},
    json::Echo,
    key::Key,
    record::{Lookup, Record},
    value::Row,
};

/// Whether a change may still be made.
pub type Still<'a> = dyn Fn() -> BoxFuture<'a, Result<bool, ServiceError>> + Sync + 'a;

/// What came of a change that the server itself does.
#[derive(Clone, Debug, PartialEq)]
pub enum Adjusted {
    /// The record is changed, and is so now.
    Changed(Record),
    /// There was nothing to change.
    Unchanged,
    /// There was something to change, but no permission any more.
    Refused,
}

impl Adjusted {
    /// The record, where it was changed.
    fn changed(self) -> Option<Record> {
        match self {
            Self::Changed(record) => Some(record),
            Self::Unchanged | Self::Refused => None,
        }
    }
}

impl Records {
    /// The record as the store has it; none where it is not there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn find_one(&self, key: &Key) -> Result<Option<Record>, ServiceError> {
        match self.look_up(key).await? {
            Lookup::Found(record) => Ok(Some(record)),
            Lookup::Deleted(_) | Lookup::Missing => Ok(None),
            Lookup::Unreadable(unreadable) => Err(ServiceError::Unreadable(Arc::from(unreadable))),
        }
    }

    /// Creates or replaces a record with values that the server itself made.
    ///
    /// # Errors
    /// `Duplicate`, or what the store says.
    pub async fn put(&self, key: &Key, values: Row, actor: &str) -> Result<Record, ServiceError> {
        record_of(
            self.commit(key.clone(), Action::Upsert { guard: Guard::Any, values }, &Origin::of(actor))
                .await?,
        )
    }

    /// Creates a record with values that the server itself made.
    ///
    /// # Errors
    /// `Exists`, `Duplicate`, or what the store says.
    pub async fn insert(&self, key: &Key, values: Row, actor: &str) -> Result<Record, ServiceError> {
        record_of(
            self.commit(key.clone(), Action::Create { values, fresh_key: false }, &Origin::of(actor)).await?,
        )
    }

    /// Changes a record by a function of its current state that the server itself does: no rule is asked.
    /// None from the function leaves the record as it is, and none is answered.
    ///
    /// # Errors
    /// What the function says, and `NotFound`, `Duplicate`, `Contended`, or what the store says.
    pub async fn adjust(
        &self,
        key: &Key,
        actor: &str,
        change: impl Fn(&Record) -> Result<Option<Row>, ServiceError>,
    ) -> Result<Option<Record>, ServiceError> {
        Ok(self.adjust_from(key, None, actor, change, &|| Box::pin(async { Ok(true) })).await?.changed())
    }

    /// The same for a record that was read just now: it is read again only where it changed since.
    ///
    /// # Errors
    /// As `adjust`.
    pub async fn update_if_version(
        &self,
        seen: &Record,
        actor: &str,
        change: impl Fn(&Record) -> Result<Option<Row>, ServiceError>,
    ) -> Result<Option<Record>, ServiceError> {
        let always = || Box::pin(async { Ok(true) }) as BoxFuture<'_, _>;
        Ok(self.adjust_from(&seen.key, Some(seen.clone()), actor, change, &always).await?.changed())
    }

    /// The same, as long as `still` says so, which is asked between each read of the record and the commit
    /// that is guarded by the version read. So who stands still in between, for however long, changes
    /// nothing, where whatever ends the permission changes the record too.
    ///
    /// # Errors
    /// What the functions say, and `NotFound`, `Duplicate`, `Contended`, or what the store says.
    pub async fn update_if(
        &self,
        key: &Key,
        actor: &str,
        change: impl Fn(&Record) -> Result<Option<Row>, ServiceError>,
        still: &Still<'_>,
    ) -> Result<Adjusted, ServiceError> {
        self.adjust_from(key, None, actor, change, still).await
    }

    async fn adjust_from(
        &self,
        key: &Key,
        mut seen: Option<Record>,
        actor: &str,
        change: impl Fn(&Record) -> Result<Option<Row>, ServiceError>,
        still: &Still<'_>,
    ) -> Result<Adjusted, ServiceError> {
        let origin = &self.in_its_time(&Origin::of(actor));
        for attempt in 0..ATTEMPTS_MAX {
            let current = match seen.take() {
                Some(seen) => seen,
                None => self.current(key, origin).await?,
            };
            let Some(values) = change(&current)? else { return Ok(Adjusted::Unchanged) };
            if !still().await? {
                return Ok(Adjusted::Refused);
            }
            let action = Action::Replace { guard: Guard::Exactly(current.version), values };
            match self.commit(key.clone(), action, origin).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return record_of(done?).map(Adjusted::Changed),
            }
        }
        Err(ServiceError::Contended)
    }

    /// Changes a record by a function of its current state, read from the store; tried again when others were
    /// faster.
    ///
    /// # Errors
    /// What the function says, and `NotFound`, `Stale`, `Duplicate`, `Contended`, `KeyReused`, or what the
    /// store says.
    pub async fn update(
        &self,
        key: &Key,
        precondition: &Precondition,
        echo: &Echo,
        origin: &Origin,
        change: impl Fn(&Record) -> Result<Row, ServiceError>,
    ) -> Result<Record, ServiceError> {
        let origin = &self.in_its_time(origin);
        record_of(
            self.learn(
                key,
                self.once(origin, self.try_update(key, precondition, echo, origin, change)).await,
            )?,
        )
    }

    pub(super) async fn try_update(
        &self,
        key: &Key,
        precondition: &Precondition,
        echo: &Echo,
        origin: &Origin,
        change: impl Fn(&Record) -> Result<Row, ServiceError>,
    ) -> Result<Written, ServiceError> {
        for attempt in 0..ATTEMPTS_MAX {
            let current = self.current(key, origin).await?;
            precondition.check(current.version)?;
            if echo.version.is_some_and(|seen| seen != current.version) {
                return Err(ServiceError::Stale { current: current.version });
            }
            echo.check(self.schema(), &current).map_err(ServiceError::Invalid)?;
            let values = self.settle(change(&current)?, Some(&current), origin).await?;
            self.judge(&current, &values).await?;
            let action = Action::Replace { guard: Guard::Exactly(current.version), values };
            match self.commit(key.clone(), action, origin).await {
                Err(ServiceError::Stale { .. }) => back_off(attempt).await,
                done => return done,
            }
        }
        Err(ServiceError::Contended)
    }
}
