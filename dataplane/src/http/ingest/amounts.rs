//! Prices of events against the currencies of their products.

use std::collections::HashMap;

use crate::service::records::Records;
use model::{currency, fault::FieldFault, key::Key, price_event::PriceEvent, record::Lookup};

/// Products that are looked for at once.
const KEYS_MAX: usize = 1_000;
/// The most faults that one answer lists.
const FAULTS_MAX: usize = 100;

/// The events whose price has more digits than the currency of their product. A store that does not answer
/// hinders nobody: such an event becomes a dead letter when it is applied.
pub async fn faults(products: &Records, events: &[PriceEvent], body: Option<&[u8]>) -> Vec<FieldFault> {
    // a whole number is an amount of every currency
    let mut keys: Vec<Key> =
        events.iter().filter(|event| !event.price.is_integer()).filter_map(|e| e.key().ok()).collect();
    keys.sort();
    keys.dedup();
    let mut codes: HashMap<String, String> = HashMap::new();
    for part in keys.chunks(KEYS_MAX) {
        let Ok(found) = products.look_up_all(part).await else { return Vec::new() };
        for (key, found) in part.iter().zip(found) {
            let code = match &found {
                Lookup::Found(product) => products.schema().get(&product.values, "currency").as_text(),
                Lookup::Deleted(_) | Lookup::Missing | Lookup::Unreadable(_) => None,
            };
            codes.insert(key.to_string(), code.unwrap_or(currency::DEFAULT).to_owned());
        }
    }
    let lines: Vec<usize> = body.map_or_else(Vec::new, numbers);
    let fault = |(index, event): (usize, &PriceEvent)| {
        let message = currency::amount_fault(codes.get(&event.product_id)?, event.price)?;
        let field = lines.get(index).map_or_else(|| "price".to_owned(), |line| format!("line {line}: price"));
        Some(FieldFault::new(field, message))
    };
    events.iter().enumerate().filter_map(fault).take(FAULTS_MAX).collect()
}

/// The numbers of the lines that are not empty, from 1.
pub fn numbers(body: &[u8]) -> Vec<usize> {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, _)| index + 1).collect()
}
