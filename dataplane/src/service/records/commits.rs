//! How units of work reach the store, and the tiers what came of them.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::timeout;

use super::{Records, Wish};
use crate::service::error::ServiceError;
use model::{
    change::{Action, Change, Origin, UnitOfWork, Written},
    key::Key,
    record::{Lookup, Record},
    schema::Schema,
    value::Row,
};
use store::StoreError;

impl Records {
    /// What the same request was answered before; none where it was not done, or cannot be told from others.
    ///
    /// # Errors
    /// `KeyReused`, or what the store says.
    pub async fn recall(&self, origin: &Origin) -> Result<Option<Vec<Written>>, ServiceError> {
        match &origin.idempotency {
            Some(key) => self.in_time_of(origin, self.store.recall(&self.collection, key)).await,
            None => Ok(None),
        }
    }

    /// Completes values from elsewhere, checks the whole, and computes what the server computes.
    ///
    /// # Errors
    /// `Invalid`, or what the completion says.
    pub async fn settle(
        &self,
        values: Row,
        current: Option<&Record>,
        origin: &Origin,
    ) -> Result<Row, ServiceError> {
        let mut values = match &self.completion {
            None => values,
            Some(complete) => {
                let before = current
                    .map_or_else(Vec::new, |current| (self.schema().rules)(self.schema(), &current.values));
                let known = current.map(|current| current.values.clone());
                let wish = Wish { values, current: known, origin: origin.clone() };
                let completed = timeout(self.time_left(origin), complete(wish)).await;
                let values = completed.map_err(|_| ServiceError::Timeout)??;
                let mut faults = self.schema().faults_of(&values);
                // what was wrong before, and the body does not speak of, is not this change's fault
                faults.retain(|fault| !before.contains(fault));
                if !faults.is_empty() {
                    return Err(ServiceError::Invalid(faults));
                }
                values
            }
        };
        (self.schema().derive)(self.schema(), &mut values);
        self.schema().fold(&mut values, current.map(|current| &current.values));
        Ok(values)
    }

    pub(super) async fn commit(
        &self,
        key: Key,
        action: Action,
        origin: &Origin,
    ) -> Result<Written, ServiceError> {
        let change = Change { collection: Arc::clone(&self.collection), key, action };
        let written = self.commit_all(vec![change], origin).await?;
        written
            .into_iter()
            .next()
            .ok_or_else(|| ServiceError::Internal("the store answered for no change".to_owned()))
    }

    /// Commits changes as one unit of work. It runs on when the caller goes away, so that what is committed
    /// always reaches tiers and relay.
    ///
    /// # Errors
    /// What the store says.
    pub async fn commit_all(
        &self,
        changes: Vec<Change>,
        origin: &Origin,
    ) -> Result<Vec<Written>, ServiceError> {
        self.commit_unit(changes, origin).await.map_err(|error| error.split().1)
    }

    /// The same; a refusal says of which change it is, where there are several and it is known.
    ///
    /// # Errors
    /// What the store says.
    pub async fn commit_unit(
        &self,
        changes: Vec<Change>,
        origin: &Origin,
    ) -> Result<Vec<Written>, ServiceError> {
        let origin = &self.in_its_time(origin);
        let time_left = self.time_left(origin);
        if time_left.is_zero() {
            // nothing was changed, and that is known
            return Err(ServiceError::Timeout);
        }
        let schemas: Vec<Arc<Schema>> =
            changes.iter().map(|change| Arc::clone(&change.collection.schema)).collect();
        let work = UnitOfWork::new(changes, origin);
        let (store, tiered, wake) =
            (Arc::clone(&self.store), Arc::clone(&self.tiered), Arc::clone(&self.wake));
        let oddities = Arc::clone(&self.oddities);
        let task = tokio::spawn(async move {
            let written = store.commit(work).await?;
            wake();
            oddities.forget(written.iter().map(|written| &written.key));
            // an answer of before may be older than what the tiers know
            let news = written.iter().filter(|written| !written.repeated);
            join_all(news.map(|written| async {
                tiered.after_commit(&written.key, &state_of(written)).await;
            }))
            .await;
            Ok::<_, StoreError>(written)
        });
        let late = || ServiceError::Unknown("the store did not answer in time".to_owned());
        let done = timeout(time_left, task).await.map_err(|_| late())?;
        let done = done.map_err(|error| ServiceError::Internal(error.to_string()))?;
        done.map_err(|error| {
            let mut refusal = ServiceError::from(error);
            let (mut schema, mut innermost) = (self.schema(), &mut refusal);
            while let ServiceError::At { index, error } = innermost {
                schema = schemas.get(*index).map_or(schema, Arc::as_ref);
                innermost = error;
            }
            if let ServiceError::Duplicate { field } = innermost {
                *field = schema.known_as(field).to_owned();
            }
            refusal
        })
    }
}

/// What the store knows of a key after a change.
fn state_of(written: &Written) -> Lookup {
    match &written.record {
        Some(record) => Lookup::Found(record.clone()),
        None => Lookup::Deleted(written.version),
    }
}
