//! Ingestion: takes accepted events of price and stock out of their log, batch by batch, and applies the
//! newest of each product, in one transaction where the store can.
//!
//! A product remembers the change that it has its price and its stock from, so a batch that is applied twice,
//! or after a newer one, changes nothing. An event of a product that is not there makes it or is set aside,
//! as `spec.ingest.unknownProducts` says.

pub mod letters;
pub mod queue;
pub mod waiting;
pub mod workers;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use crds::service::messaging::UnknownProducts;
use futures::{StreamExt, stream};

use super::{
    error::ServiceError,
    records::{Records, writes::back_off},
};
use events::intake::{Batch, Unreadable};
use model::{
    actor,
    audit::{AuditFound, AuditQuery},
    change::{Action, Change, Guard, Origin},
    currency,
    key::Key,
    price_event::PriceEvent,
    record::{Lookup, Record},
    value::{Row, Timestamp},
};

/// Who changes products here, for the audit.
const ACTOR: &str = actor::INGEST;
/// The most products that one transaction changes: it must end within the deadline of a commit.
const CHANGES_MAX: usize = 2_000;
/// Products that are changed at the same time where the store commits them one by one.
const AT_ONCE: usize = 16;
/// Audit entries that one look reads, and how many looks there are at most.
const ENTRIES: u32 = 500;
const LOOKS_MAX: u32 = 20;
/// How the error of a letter begins whose event waits for its product.
const NO_PRODUCT: &str = "there is no product";
/// How often a batch is tried again when others change its products at the same time.
const ATTEMPTS_MAX: u32 = 8;

/// Where events go that can never be applied.
#[async_trait]
pub trait Rejects: Send + Sync {
    /// Keeps an event with the reason, durably.
    async fn put(&self, event: &PriceEvent, why: String) -> Result<(), ServiceError>;

    /// Keeps what is no event, durably.
    async fn put_unreadable(&self, record: &Unreadable) -> Result<(), ServiceError>;
}

/// Applies events to products.
pub struct Ingestor {
    products: Arc<Records>,
    rejects: Arc<dyn Rejects>,
    /// Whether the store was found to commit no more than one record at a time.
    one_by_one: AtomicBool,
    /// Whether events of unknown products make them.
    creates: AtomicBool,
    meter: Meter,
}

#[derive(Default)]
struct Meter {
    applied: AtomicU64,
    outdated: AtomicU64,
    rejected: AtomicU64,
    failures: AtomicU64,
}

/// What was done with events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestFigures {
    /// Events that gave a product its price and stock.
    pub applied: u64,
    /// Events that had no effect: a newer one of their product was there.
    pub outdated: u64,
    /// Events that can never be applied, and are kept as dead letters.
    pub rejected: u64,
    /// Batches that failed and were tried again.
    pub failures: u64,
}

impl Ingestor {
    /// Applies events to these products; what cannot be applied goes to `rejects`.
    pub fn new(products: Arc<Records>, rejects: Arc<dyn Rejects>) -> Self {
        let (one_by_one, creates) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { products, rejects, one_by_one, creates, meter: Meter::default() }
    }

    /// From now on events of unknown products are treated so.
    pub fn set_unknown(&self, unknown: UnknownProducts) {
        self.creates.store(unknown == UnknownProducts::Create, Ordering::Relaxed);
    }

    /// The figures now.
    pub fn figures(&self) -> IngestFigures {
        let Meter { applied, outdated, rejected, failures } = &self.meter;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IngestFigures {
            applied: read(applied),
            outdated: read(outdated),
            rejected: read(rejected),
            failures: read(failures),
        }
    }

    /// Applies a batch. After an error a part of it may have been applied: the same batch again does the
    /// rest.
    ///
    /// # Errors
    /// What the store says, when trying again may help.
    pub async fn apply(&self, batch: &Batch) -> Result<(), ServiceError> {
        for record in &batch.unreadable {
            self.rejects.put_unreadable(record).await?;
        }
        self.count(&self.meter.rejected, batch.unreadable.len());
        self.apply_events(&batch.events).await
    }

    async fn apply_events(&self, events: &[PriceEvent]) -> Result<(), ServiceError> {
        let newest = newest(events);
        self.count(&self.meter.outdated, events.len() - newest.len());
        let all: Vec<_> = newest.into_iter().collect();
        for part in all.chunks(CHANGES_MAX) {
            if let Err(error) = self.apply_part(part).await {
                if may_pass(&error) {
                    self.count(&self.meter.failures, 1);
                    return Err(error);
                }
                // one of them spoils the rest: each alone
                for one in part {
                    match self.apply_part(std::slice::from_ref(one)).await {
                        Err(error) if may_pass(&error) => return Err(error),
                        Err(error) => self.reject(one.1, error.to_string()).await?,
                        Ok(()) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies an event that was rejected before.
    ///
    /// # Errors
    /// `Conflict` where there is still no such product, or what the store says.
    pub async fn replay(&self, event: &PriceEvent) -> Result<(), ServiceError> {
        let key = event.key().map_err(ServiceError::Conflict)?;
        match self.products.find_one(&key).await? {
            Some(_) => self.apply_events(std::slice::from_ref(event)).await,
            None if self.creates.load(Ordering::Relaxed) => {
                self.apply_events(std::slice::from_ref(event)).await
            }
            None => Err(ServiceError::Conflict(format!("there is still no product {key}"))),
        }
    }

    async fn apply_part(&self, part: &[(Key, &PriceEvent)]) -> Result<(), ServiceError> {
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                back_off(attempt).await;
            }
            let changes = self.changes(part).await?;
            if changes.is_empty() {
                return Ok(());
            }
            let count = changes.len();
            match self.commit(changes).await {
                Ok(()) => {
                    self.count(&self.meter.applied, count);
                    return Ok(());
                }
                // somebody made, changed or deleted one of the products: look again. What was applied is
                // found to be so
                Err(ServiceError::Stale { .. } | ServiceError::NotFound | ServiceError::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ServiceError::Contended)
    }

    /// What is to be changed: nothing where a product knows of something newer.
    async fn changes(&self, part: &[(Key, &PriceEvent)]) -> Result<Vec<Change>, ServiceError> {
        let keys: Vec<Key> = part.iter().map(|(key, _)| key.clone()).collect();
        let found = self.products.look_up_all(&keys).await?;
        let mut changes = Vec::with_capacity(part.len());
        for ((key, event), found) in part.iter().zip(found) {
            let schema = self.products.schema();
            let next = match found {
                Lookup::Found(record) => event
                    .applied(schema, &record.values, record.updated_at)
                    .map(|values| (values, Some(record))),
                // the others of this batch go on; whoever mends the record lets its event be replayed
                Lookup::Unreadable(unreadable) => {
                    self.reject(event, unreadable.to_string()).await?;
                    continue;
                }
                // the product that it speaks of is gone
                Lookup::Deleted(_) if self.is_deleted_since(key, event).await? => None,
                Lookup::Deleted(_) | Lookup::Missing => match self.creates.load(Ordering::Relaxed) {
                    true => Some((event.product(schema), None)),
                    false => {
                        self.reject(event, format!("{NO_PRODUCT} {key}")).await?;
                        continue;
                    }
                },
            };
            let Some((values, record)) = next else {
                self.count(&self.meter.outdated, 1);
                continue;
            };
            match self.amount_fault(event, &values) {
                Some(why) => self.reject(event, why).await?,
                None => changes.push(self.change(key.clone(), values, record.as_ref())),
            }
        }
        Ok(changes)
    }

    /// Why an event's price cannot be one of its product: the currency may have changed since it was
    /// accepted.
    fn amount_fault(&self, event: &PriceEvent, values: &Row) -> Option<String> {
        let code = self.products.schema().get(values, "currency").as_text().unwrap_or(currency::DEFAULT);
        Some(format!("price {}", currency::amount_fault(code, event.price)?))
    }

    /// Whether a product that is not there was deleted after an event, by the audit.
    async fn is_deleted_since(&self, key: &Key, event: &PriceEvent) -> Result<bool, ServiceError> {
        let mut query = AuditQuery {
            entities: vec![self.products.schema().entity.clone()],
            key: Some(key.to_string()),
            since: Some(Timestamp(event.mark().moment)),
            limit: ENTRIES,
            ..AuditQuery::default()
        };
        for _ in 0..LOOKS_MAX {
            let AuditFound { entries, more } = self.products.audit(&query).await?;
            if entries.iter().any(|entry| entry.action == "deleted") {
                return Ok(true);
            }
            let last = entries.last().filter(|_| more);
            let Some(last) = last else { return Ok(false) };
            let at = last.at.parse().map_err(ServiceError::Internal)?;
            query.after = Some((at, last.id));
        }
        // so much happened since then that the event is old
        Ok(true)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), ServiceError> {
        let origin = Origin::of(ACTOR);
        if !self.one_by_one.load(Ordering::Relaxed) {
            match self.products.commit_all(changes.clone(), &origin).await {
                Err(ServiceError::Unsupported(_)) if changes.len() > 1 => {
                    self.one_by_one.store(true, Ordering::Relaxed)
                }
                done => return done.map(drop),
            }
        }
        let commits = changes.into_iter().map(|change| self.products.commit_all(vec![change], &origin));
        let mut commits = stream::iter(commits).buffer_unordered(AT_ONCE);
        let mut failed = Ok(());
        while let Some(done) = commits.next().await {
            if let Err(error) = done {
                failed = Err(error);
            }
        }
        failed
    }

    fn change(&self, key: Key, values: Row, before: Option<&Record>) -> Change {
        let action = match before {
            Some(before) => Action::Replace { guard: Guard::Exactly(before.version), values },
            None => Action::Create { values, fresh_key: false },
        };
        Change { collection: self.products.collection().clone(), key, action }
    }

    async fn reject(&self, event: &PriceEvent, why: String) -> Result<(), ServiceError> {
        self.rejects.put(event, why).await?;
        self.count(&self.meter.rejected, 1);
        Ok(())
    }

    fn count(&self, counter: &AtomicU64, events: usize) {
        counter.fetch_add(events as u64, Ordering::Relaxed);
    }
}

/// The newest event of each product, by its key.
fn newest(batch: &[PriceEvent]) -> BTreeMap<Key, &PriceEvent> {
    let mut ordered: Vec<&PriceEvent> = batch.iter().collect();
    ordered.sort_by(|one, other| one.place.cmp(&other.place));
    let mut newest: BTreeMap<Key, &PriceEvent> = BTreeMap::new();
    for event in ordered {
        let Ok(key) = event.key() else { continue };
        let held = newest.entry(key).or_insert(event);
        if event.is_newer_than(held) {
            *held = event;
        }
    }
    newest
}

/// Whether trying again may help.
fn may_pass(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::Unavailable(_)
            | ServiceError::Full(_)
            | ServiceError::PoolUnavailable(_)
            | ServiceError::Setup(_)
            | ServiceError::Timeout
            | ServiceError::Unknown(_)
            | ServiceError::Contended
            | ServiceError::Stale { .. }
            | ServiceError::NotYet { .. }
    )
}
