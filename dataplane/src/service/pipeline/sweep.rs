//! The sweep: finds orders that stand still and holds that are nobody's, whatever was lost on the way.

use std::{sync::Arc, time::Duration};

use super::{ACTOR, Pipeline, STUCK_AFTER, after};
use crate::service::{error::ServiceError, failure::Failure, records::Records};
use model::{
    budget::Allowance,
    key::Key,
    progress::{Ending, Progress, Stage},
    query::{Comparison, Direction, Filter, Page, Query, Start},
    record::Record,
    schema::FieldRef,
    stock,
    value::{Timestamp, Value},
};

/// How often orders are looked for.
const ORDERS_EVERY: Duration = Duration::from_secs(2);
/// In how many of these sweeps holds are looked for too.
const HOLDS_EVERY: u32 = 10;
/// Holds that are older are looked at: by then an order is seldom still under way.
const HOLDS_AFTER: Duration = Duration::from_secs(60);
/// What one look finds at most.
const FOUND_MAX: u32 = 500;

impl Pipeline {
    /// Sweeps until the pipeline stops. The first sweep of a process that is `alone` finds all open orders.
    pub(super) async fn sweep_until_stopped(self: Arc<Self>, alone: bool) {
        let mut ahead = if alone { STUCK_AFTER } else { Duration::ZERO };
        let mut round = 0_u32;
        loop {
            match self.sweep_orders(ahead).await {
                Ok(()) => ahead = Duration::ZERO,
                Err(error) => tracing::debug!(%error, "orders could not be looked for"),
            }
            if round.is_multiple_of(HOLDS_EVERY) {
                if let Err(error) = self.sweep_holds(HOLDS_AFTER).await {
                    tracing::debug!(%error, "holds could not be looked for");
                }
                self.count_letters().await;
            }
            round = round.wrapping_add(1);
            let wait = ORDERS_EVERY.mul_f64(rand::random_range(0.5..1.5));
            if self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Takes up the orders that are due, or will be within a time.
    pub(super) async fn sweep_orders(&self, ahead: Duration) -> Result<(), Failure> {
        let orders = &self.parts.orders;
        // one clock says what is due, whichever process stamped it; where it cannot be asked, the page below
        // fails too
        orders.set_clock().await?;
        // each sweep goes on after the last: orders that are due and cannot go on must not hide those behind
        // them
        let start = self.swept.lock().take().map_or(Start::Offset(0), Start::After);
        let page = due(orders, "due_at", after(self.clock(), ahead), start).await?;
        for record in page.records {
            let progress = Progress::of(orders.schema(), &record.values);
            match progress.parked {
                // a message can wait for a later sweep, an order that has not ended goes first
                None if progress.stage == Stage::Notifications && self.in_flight.is_crowded() => (),
                None => self.hint(progress.stage, record.key),
                Some(letter) if is_before(orders, &record, "due_at", self.clock().now()) => {
                    match self.attend_to(&record.key, progress.stage, &letter).await {
                        Ok(()) | Err(ServiceError::NotFound | ServiceError::Conflict(_)) => (),
                        Err(error) => return Err(error.into()),
                    }
                }
                Some(_) => (),
            }
        }
        *self.swept.lock() = page.next;
        Ok(())
    }

    /// Sees to an order that was set aside for as long as it may be: one that owes something tries again, any
    /// other is given up.
    pub(super) async fn attend_to(
        &self,
        order: &Key,
        stage: Stage,
        letter: &str,
    ) -> Result<(), ServiceError> {
        let letter: Key = letter.parse().map_err(ServiceError::Internal)?;
        if stage != Stage::Inventory {
            let why = "it was set aside, and nobody attended to it";
            return self.end_order(order, Ending::Failed, why, Some(&letter), ACTOR).await.map(drop);
        }
        let held = self.parts.letters.find(&letter).await?;
        self.resume(order, &letter, ACTOR).await?;
        match held {
            Some(held) => self.parts.letters.take_back(&held).await,
            None => Ok(()),
        }
    }

    /// Gives back what is held for orders that have ended or are gone: a worker that stood still may hold for
    /// an order that ended without it.
    pub(super) async fn sweep_holds(&self, age: Duration) -> Result<(), Failure> {
        let Some(products) = &self.parts.products else { return Ok(()) };
        let before = Timestamp(products.now().0 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut start = Start::Offset(0);
        loop {
            let page = due(products, "held_since", before, start).await?;
            for product in page.records {
                for order in stock::held_before(products.schema(), &product.values, before) {
                    // nearly all are somebody's; a product that thousands of orders hold is large, and who
                    // works on them waits for their turn at it
                    let stray = self.is_stray(&product.key, &order).await?;
                    if stray && self.give_back_stray(&product.key, &order).await? {
                        tracing::warn!(product = %product.key, %order, "a hold that was left over is given back");
                    }
                }
            }
            // holds that are kept for good reason must not hide those behind them
            let Some(next) = page.next else { return Ok(()) };
            start = Start::After(next);
        }
    }

    /// Brings the metric of dead letters up to date; without an answer it stays as it was.
    async fn count_letters(&self) {
        for stage in Stage::ALL {
            if let Ok(count) = self.parts.letters.count(stage.name()).await {
                self.queues
                    .letters
                    .with_label_values(&[stage.name()])
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}

/// The records whose time is before another, the oldest first.
async fn due(records: &Records, field: &str, before: Timestamp, start: Start) -> Result<Page, Failure> {
    let Some(index) = records.schema().internal_index_of(field) else { return Ok(Page::default()) };
    let field = FieldRef::Field(index);
    let query = Query {
        filter: Filter::Compare(field, Comparison::Lt, Value::Time(before)),
        order: vec![(field, Direction::Ascending)],
        start,
        limit: FOUND_MAX,
        count: false,
        allowance: Allowance::default(),
    };
    Ok(records.find(&query).await?)
}

fn is_before(records: &Records, record: &Record, field: &str, time: Timestamp) -> bool {
    matches!(records.schema().get(&record.values, field), Value::Time(at) if *at < time)
}
