//! What a payment's status may become, and what of a payment may change: nothing that was agreed on, and
//! nothing while its order is under way.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    error::ServiceError,
    pipeline::is_charge_of,
    precondition::Precondition,
    records::{Keeper, Records},
};
use model::{
    change::Origin,
    entities::payment::{PENDING, frozen, may_become},
    json::Echo,
    key::Key,
    progress::Progress,
    record::Record,
    schema::Schema,
    value::{Row, Value},
};

/// Judges changes of payments from outside.
pub struct PaymentKeeper {
    /// What payments look like.
    pub payments: Arc<Schema>,
    /// The orders that they may be of; none where the service has none.
    pub orders: Option<Arc<Records>>,
}

impl PaymentKeeper {
    /// Refuses what would touch the payment by which the pipeline charges, or gives back, at this time.
    async fn leave_alone(&self, payment: &Record) -> Result<(), ServiceError> {
        let order =
            self.payments.get(&payment.values, "order_id").as_text().and_then(|key| key.parse::<Key>().ok());
        let (Some(orders), Some(key)) = (&self.orders, order) else { return Ok(()) };
        let Some(order) = orders.find_one(&key).await? else { return Ok(()) };
        let progress = Progress::of(orders.schema(), &order.values);
        if progress.is_settled() || !is_charge_of(&self.payments, payment, &order, &progress) {
            return Ok(());
        }
        let why = format!(
            "the payment is that of order {key}, which is under way: wait for its end, or cancel the order"
        );
        Err(ServiceError::Conflict(why))
    }
}

#[async_trait]
impl Keeper for PaymentKeeper {
    async fn check(&self, current: &Record, next: &Row) -> Result<(), ServiceError> {
        let faults = frozen(&self.payments, &current.values, next);
        if !faults.is_empty() {
            return Err(ServiceError::Refused(faults));
        }
        self.leave_alone(current).await
    }

    async fn check_delete(&self, current: &Record) -> Result<(), ServiceError> {
        let status = self.payments.get(&current.values, "status").as_text().unwrap_or(PENDING);
        if status != PENDING {
            let why = format!("a payment that is {status} is not deleted: it says what was paid");
            return Err(ServiceError::Conflict(why));
        }
        self.leave_alone(current).await
    }
}

/// Moves a payment to another status. The status that it has already changes nothing.
///
/// # Errors
/// `Conflict` where the status cannot become that, and what a change may fail with.
pub async fn set_status(
    payments: &Records,
    key: &Key,
    precondition: &Precondition,
    status: &str,
    origin: &Origin,
) -> Result<Record, ServiceError> {
    let slot = payments.schema().index_of("status");
    let slot = slot.ok_or_else(|| ServiceError::Internal("payments have no status".to_owned()))?;
    let same = Mutex::new(None);
    let moved = |current: &Record| {
        let mut values = current.values.clone();
        let place = values.0.get_mut(slot).ok_or_else(|| ServiceError::Internal("a short row".to_owned()))?;
        let from = place.as_text().unwrap_or(PENDING);
        if from == status {
            *same.lock() = Some(current.clone());
        }
        if !may_become(from, status) {
            return Err(ServiceError::Conflict(format!("a payment that is {from} cannot become {status}")));
        }
        *place = Value::Text(status.to_owned());
        Ok(values)
    };
    let done = payments.update(key, precondition, &Echo::default(), origin, moved).await;
    match same.into_inner() {
        // a repeat: there is nothing to change
        Some(current) if done.is_err() => Ok(current),
        _ => done,
    }
}
