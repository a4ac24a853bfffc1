//! What a payment's status may become.

use super::{error::ServiceError, precondition::Precondition, records::Records};
use crate::domain::{
    change::Origin,
    json::Echo,
    payment::may_become,
    record::{Key, Record},
    value::Value,
};

/// Moves a payment to another status.
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
    let moved = |current: &Record| {
        let mut values = current.values.clone();
        let place = values.0.get_mut(slot).ok_or_else(|| ServiceError::Internal("a short row".to_owned()))?;
        let from = place.as_text().unwrap_or("pending");
        if !may_become(from, status) {
            return Err(ServiceError::Conflict(format!("a payment that is {from} cannot become {status}")));
        }
        *place = Value::Text(status.to_owned());
        Ok(values)
    };
    payments.update(key, precondition, &Echo::default(), origin, moved).await
}
