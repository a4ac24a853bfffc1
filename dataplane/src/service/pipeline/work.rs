//! What a worker does with an order: finds its stage, does the step, and decides what follows from a failure.

use std::{sync::Arc, time::Duration};

use serde_json::{Value as Tree, json};
use tracing::{Instrument, debug, info, info_span, warn};

use super::{ACTOR, Pipeline, after, backoff, queues::Job};
use crate::service::{
    dead_letters::Letter,
    error::ServiceError,
    failure::{Class, Failure},
};
use model::{
    entities::order::{self, Item},
    key::Key,
    progress::{Progress, Stage},
    record::Record,
    value::Timestamp,
};

/// The wait for a worker that has the same order.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// How long an order may be set aside while it holds stock, before it is ended as failed.
pub(super) const PARKED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an order whose stock is to be sold or given back is set aside: it cannot be given up, so it is
/// tried again without anybody's word.
const OWING_MAX: Duration = Duration::from_secs(10 * 60);

/// An order in a worker's hands, as it was read.
#[derive(Clone)]
pub(super) struct OrderSnapshot {
    pub key: Key,
    pub record: Record,
    pub progress: Progress,
    pub items: Vec<Item>,
}

/// What follows for a job.
enum Next {
    /// Nothing.
    Done,
    /// It belongs to another stage.
    Elsewhere(Stage),
    /// A step was done, and the order is at this stage now, as far as it is known.
    Onward(Stage, Option<Record>),
    /// It is not its time yet.
    Later(Duration),
}

/// An order that no other worker of this process has.
struct Claim<'a> {
    pipeline: &'a Pipeline,
    order: &'a Key,
}

impl<'a> Claim<'a> {
    fn on(pipeline: &'a Pipeline, order: &'a Key) -> Option<Self> {
        // lazily: a claim that is not made must not be dropped
        let free = pipeline.busy.lock().insert(order.clone());
        free.then(|| Self { pipeline, order })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pipeline.busy.lock().remove(self.order);
    }
}

impl OrderSnapshot {
    pub fn trace(&self) -> String {
        self.progress.trace.clone().unwrap_or_default()
    }

    /// Whether this is a repetition of a failed attempt.
    pub fn again(&self) -> bool {
        self.progress.attempts > 0
    }
}

impl Pipeline {
    /// Handles one job.
    pub(super) async fn handle(self: &Arc<Self>, stage: Stage, mut job: Job) {
        let next = {
            let Some(_claim) = Claim::on(self, &job.place.order) else {
                // the worker has one of the places, this job another: a third one waits already
                match job.place.count() <= 2 {
                    true => self.later(stage, job, BUSY_WAIT),
                    false => job.see_to_event(),
                }
                return;
            };
            self.step(stage, &job.place.order, job.seen.take()).await
        };
        match next {
            Ok(Next::Done | Next::Onward(Stage::Done, _)) => job.see_to_event(),
            Ok(Next::Elsewhere(stage)) => self.queues.send(stage, job),
            // it has ended: those that have not need the places, and a sweep finds it for its message
            Ok(Next::Onward(Stage::Notifications, _)) if self.in_flight.is_crowded() => job.see_to_event(),
            // with its place: an order that is half done must not wait for all that came after it. The event
            // was seen to
            Ok(Next::Onward(stage, seen)) => {
                job.see_to_event();
                job.seen = seen;
                self.queues.send(stage, job);
            }
            // one job that waits for its time is enough for an order
            Ok(Next::Later(_)) | Err(_) if job.place.count() > 1 => job.see_to_event(),
            // the order itself says when: the event is seen to
            Ok(Next::Later(wait)) => {
                job.see_to_event();
                self.later(stage, job, wait);
            }
            Err(failure) if self.in_flight.is_crowded() => {
                // orders that nothing hinders need the places: a sweep finds this one when it is due
                self.queues.count(stage, "postponed");
                debug!(order = %job.place.order, stage = stage.name(), %failure, "left to a sweep");
                job.see_to_event();
            }
            Err(failure) => {
                self.queues.count(stage, "postponed");
                job.failed = job.failed.saturating_add(1);
                let wait = backoff(&self.tools.load().settings.retry, job.failed);
                debug!(order = %job.place.order, stage = stage.name(), %failure, "postponed");
                self.later(stage, job, wait);
            }
        }
    }

    /// Does a job after a while.
    fn later(self: &Arc<Self>, stage: Stage, job: Job, wait: Duration) {
        let pipeline = self.clone();
        tokio::spawn(async move {
            if pipeline.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
                pipeline.queues.send(stage, job);
            }
        });
    }

    /// Does the order's next step, if it is one of this stage. Only failures that the order has no part in
    /// are errors.
    async fn step(&self, stage: Stage, order: &Key, seen: Option<Record>) -> Result<Next, Failure> {
        let snapshot = match seen {
            Some(seen) => Some(self.snapshot_of(seen)),
            None => self.snapshot(order).await?,
        };
        let Some(snapshot) = snapshot else { return Ok(Next::Done) };
        let Progress { stage: at, parked, attempts, .. } = &snapshot.progress;
        if *at == Stage::Done || parked.is_some() {
            return Ok(Next::Done);
        }
        if *at != stage {
            return Ok(Next::Elsewhere(*at));
        }
        if let Some(wait) = self.wait(&snapshot).filter(|_| *attempts > 0) {
            return Ok(Next::Later(wait));
        }
        let span = info_span!("order", order = %snapshot.key, stage = stage.name(), trace = snapshot.trace());
        async {
            let outcome = match stage {
                Stage::Orders => self.hold_stock(&snapshot).await,
                Stage::Payments => self.charge(&snapshot).await,
                Stage::Inventory => self.settle(&snapshot).await,
                Stage::Notifications => self.notify(&snapshot).await,
                Stage::Done => Ok(None),
            };
            match outcome {
                Ok(moved) => {
                    self.queues.count(stage, "done");
                    info!("step done");
                    let now = match moved {
                        Some(record) => Some(record),
                        // somebody else went on with it, or called it off
                        None => self.parts.orders.find_one(order).await.ok().flatten(),
                    };
                    let Some(now) = now else { return Ok(Next::Done) };
                    let at = Progress::of(self.parts.orders.schema(), &now.values).stage;
                    Ok(if at == stage { Next::Done } else { Next::Onward(at, Some(now)) })
                }
                Err(failure) if failure.class == Class::System => Err(failure),
                Err(failure) => self.failed(&snapshot, failure).await,
            }
        }
        .instrument(span)
        .await
    }

    /// The order as it is; none where it is gone or its items cannot be read.
    pub(super) async fn snapshot(&self, order: &Key) -> Result<Option<OrderSnapshot>, ServiceError> {
        Ok(self.parts.orders.find_one(order).await?.map(|record| self.snapshot_of(record)))
    }

    /// An order as it was read.
    pub(super) fn snapshot_of(&self, record: Record) -> OrderSnapshot {
        let schema = self.parts.orders.schema();
        let progress = Progress::of(schema, &record.values);
        let items = order::items(schema, &record.values).unwrap_or_default();
        OrderSnapshot { key: record.key.clone(), record, progress, items }
    }

    /// How long until the order's next attempt; none when it is time.
    fn wait(&self, snapshot: &OrderSnapshot) -> Option<Duration> {
        let due = match self.parts.orders.schema().get(&snapshot.record.values, "due_at") {
            model::value::Value::Time(due) => *due,
            _ => return None,
        };
        u64::try_from(due.0 - self.clock().now().0).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// Changes the order's progress, and its status where that changes too, if it is still where the snapshot
    /// was read. None where it is not: somebody else went on with it, or it is gone.
    pub(super) async fn move_on(
        &self,
        snapshot: &OrderSnapshot,
        change: impl Fn(&mut Progress) -> (Option<&'static str>, Option<Timestamp>),
    ) -> Result<Option<Record>, Failure> {
        let schema = self.parts.orders.schema();
        let moved = self.parts.orders.update_if_version(&snapshot.record, ACTOR, |current| {
            let mut progress = Progress::of(schema, &current.values);
            if !self.is_at(snapshot, current, &progress) {
                return Ok(None);
            }
            let (status, due) = change(&mut progress);
            Ok(Some(progress.write(schema, &current.values, due, status)))
        });
        match moved.await {
            Err(ServiceError::NotFound) => Ok(None),
            moved => Ok(moved?),
        }
    }

    /// Whether an order is still where its snapshot was read.
    pub(super) async fn is_unmoved(&self, snapshot: &OrderSnapshot) -> Result<bool, ServiceError> {
        let now = self.snapshot(&snapshot.key).await?;
        Ok(now.is_some_and(|now| self.is_at(snapshot, &now.record, &now.progress)))
    }

    fn is_at(&self, snapshot: &OrderSnapshot, now: &Record, progress: &Progress) -> bool {
        let schema = self.parts.orders.schema();
        let here = |one: &Progress| (one.stage, one.ending, one.attempts, one.parked.clone(), one.sold);
        // another order of the same key is another order
        let what = |record: &Record| (record.created_at, schema.get(&record.values, "items").clone());
        here(progress) == here(&snapshot.progress) && what(now) == what(&snapshot.record)
    }

    /// Notes a failed attempt: the order is tried again, or set aside as a dead letter.
    async fn failed(&self, snapshot: &OrderSnapshot, failure: Failure) -> Result<Next, Failure> {
        let stage = snapshot.progress.stage;
        let retry = self.tools.load().settings.retry.clone();
        let attempts = snapshot.progress.attempts + 1;
        if failure.class == Class::Retryable && attempts < retry.max_attempts {
            let wait = backoff(&retry, attempts);
            let noted = self.move_on(snapshot, |progress| {
                progress.attempts = attempts;
                progress.note("attempt_failed", Some(format!("attempt {attempts}: {failure}")));
                (None, Some(after(self.clock(), wait)))
            });
            if noted.await?.is_some() {
                self.queues.count(stage, "retried");
            }
            return Ok(Next::Later(wait));
        }
        warn!(%failure, attempts, "set aside as a dead letter");
        // the letter first: an order that is set aside has one
        let mut letter = self.parts.letters.put(self.letter(snapshot, &failure, attempts)).await?;
        let set_aside = self.move_on(snapshot, |progress| {
            progress.attempts = attempts;
            progress.parked = Some(letter.key.to_string());
            progress.note("dead_lettered", Some(failure.to_string()));
            let due = match stage {
                Stage::Orders | Stage::Payments => Some(after(self.clock(), PARKED_MAX)),
                Stage::Inventory => Some(after(self.clock(), OWING_MAX)),
                Stage::Notifications | Stage::Done => None,
            };
            (None, due)
        });
        if set_aside.await?.is_some() {
            self.queues.count(stage, "dead_lettered");
            // whoever replayed or dropped the letter before that found nothing to go on with
            if self.parts.letters.find(&letter.key).await?.is_none() {
                letter = self.parts.letters.put(self.letter(snapshot, &failure, attempts)).await?;
            }
        }
        let now = self.snapshot(&snapshot.key).await?;
        if now.is_none_or(|now| now.progress.parked.as_deref() != Some(letter.key.as_str())) {
            self.parts.letters.take_back(&letter).await?;
        }
        Ok(Next::Done)
    }

    fn letter(&self, snapshot: &OrderSnapshot, failure: &Failure, attempts: u32) -> Letter {
        let shown = snapshot.record.to_masked_json(self.parts.orders.schema());
        let order: Tree = serde_json::from_str(&shown).unwrap_or_else(|_| json!({}));
        Letter {
            stage: snapshot.progress.stage.name().to_owned(),
            subject: snapshot.key.to_string(),
            failure: failure.clone(),
            attempts,
            trace: snapshot.trace(),
            payload: json!({ "order": order, "ending": snapshot.progress.ending }),
        }
    }
}
