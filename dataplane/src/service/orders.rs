//! What the server adds to an order: the prices of its items from the catalogue where the client gave none, and its first progress.

use std::sync::Arc;

use super::{
    error::ServiceError,
    pipeline,
    records::{Completion, Records},
};
use crate::{
    domain::{
        order::{self, Item},
        progress::Progress,
        record::{Key, Lookup, Row},
        schema::{FieldFault, Schema},
        value::Value,
    },
    telemetry::trace,
};

/// Completes orders with the prices of `products`; without a catalogue every item must have its price.
pub fn pricing(orders: Arc<Schema>, products: Option<Arc<Records>>) -> Completion {
    Arc::new(move |row| Box::pin(price(Arc::clone(&orders), products.clone(), row)))
}

async fn price(orders: Arc<Schema>, products: Option<Arc<Records>>, mut row: Row) -> Result<Row, ServiceError> {
    begin(&orders, &mut row);
    let mut items = order::items(&orders, &row).map_err(ServiceError::Invalid)?;
    let unpriced: Vec<usize> = (0..items.len()).filter(|index| items[*index].price.is_none()).collect();
    if unpriced.is_empty() {
        return Ok(row);
    }
    let Some(products) = products else {
        let missing =
            |index| FieldFault::new(format!("items[{index}].price"), "is required: no catalogue is served here");
        return Err(ServiceError::Invalid(unpriced.into_iter().map(missing).collect()));
    };
    let faults = fill(&products, &mut items, &unpriced).await?;
    if !faults.is_empty() {
        return Err(ServiceError::Invalid(faults));
    }
    order::set_items(&orders, &mut row, &items);
    Ok(row)
}

/// A new order's progress: the trace of its request, and the time when the pipeline looks after it if no event reaches it before.
fn begin(orders: &Schema, row: &mut Row) {
    if orders.get(row, "progress").is_null() {
        let mut progress = Progress { trace: Some(trace::current()), ..Progress::default() };
        progress.note("placed", None);
        *row = progress.write(orders, row, Some(pipeline::due_later()), None);
    }
}

async fn fill(products: &Records, items: &mut [Item], unpriced: &[usize]) -> Result<Vec<FieldFault>, ServiceError> {
    let keys: Vec<Key> = unpriced.iter().filter_map(|index| items.get(*index)?.product_id.parse().ok()).collect();
    let price = products.schema().index_of("price");
    let mut faults = Vec::new();
    for (index, found) in unpriced.iter().zip(products.look_up_all(&keys).await?) {
        let Some(item) = items.get_mut(*index) else { continue };
        match found {
            Lookup::Found(record) => match price.and_then(|slot| record.values.0.get(slot)) {
                Some(Value::Decimal(price)) => item.price = Some(*price),
                _ => faults.push(FieldFault::new(format!("items[{index}].price"), "is required: the product has none")),
            },
            Lookup::Deleted(_) | Lookup::Missing => {
                faults.push(FieldFault::new(format!("items[{index}].product_id"), "there is no such product"));
            }
        }
    }
    Ok(faults)
}
