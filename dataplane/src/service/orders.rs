//! What the server adds to an order: the prices and the currency of its products, and its first progress.
//!
//! Prices come from the catalogue. A line that the order has already keeps its price: it was the catalogue's
//! when it was ordered.

use std::sync::Arc;

use super::{
    error::ServiceError,
    pipeline,
    records::{Completion, Records, Wish},
};
use crate::{security::policy::PoolPolicy, telemetry::trace};
use model::{
    currency,
    entities::order::{self, Item},
    fault::FieldFault,
    key::Key,
    progress::Progress,
    record::{Lookup, Record},
    schema::Schema,
    value::{Row, Value},
};
use store::clock::ServerClock;

/// Where prices come from.
#[derive(Clone)]
pub struct Catalogue {
    /// The products.
    pub products: Arc<Records>,
    /// Who may set other prices: a right of the pool of products.
    pub policy: PoolPolicy,
}

/// Completes orders with the prices and the currency of a catalogue; without one every item must have its
/// price. They are due by the clock of their server.
pub fn pricing(orders: Arc<Schema>, catalogue: Option<Catalogue>, clock: Arc<ServerClock>) -> Completion {
    Arc::new(move |mut wish| {
        begin(&orders, &mut wish.values, &clock);
        Box::pin(price(Arc::clone(&orders), catalogue.clone(), wish))
    })
}

async fn price(orders: Arc<Schema>, catalogue: Option<Catalogue>, wish: Wish) -> Result<Row, ServiceError> {
    let Wish { mut values, current, origin } = wish;
    let mut items = order::items(&orders, &values).map_err(ServiceError::Invalid)?;
    let mut lines = Lines::default();
    let known = current.as_ref().map(|row| currency_of(&orders, row));
    if let (Some(current), Some(code)) = (&current, &known) {
        keep(&mut items, order::items(&orders, current).unwrap_or_default(), code, &mut lines);
    }
    let fresh: Vec<usize> = (0..items.len()).filter(|index| !lines.has(*index)).collect();
    match &catalogue {
        _ if fresh.is_empty() => (),
        Some(Catalogue { products, policy }) => {
            let may = policy.may_set_prices(&origin.roles);
            look_up(products, may, &mut items, &fresh, &mut lines).await?;
        }
        None => {
            let missing = |index: &usize| {
                FieldFault::new(format!("items[{index}].price"), "is required: no catalogue is served here")
            };
            lines.faults.extend(
                fresh
                    .iter()
                    .filter(|index| items.get(**index).is_some_and(|i| i.price.is_none()))
                    .map(missing),
            );
        }
    }
    let asked = orders.get(&values, "currency").as_text().map(str::to_owned);
    let code = lines.currency(asked, known)?;
    orders.set(&mut values, "currency", Value::Text(code));
    order::set_items(&orders, &mut values, &items);
    Ok(values)
}

fn currency_of(schema: &Schema, row: &Row) -> String {
    schema.get(row, "currency").as_text().unwrap_or(currency::DEFAULT).to_owned()
}

/// A new order's progress: the trace of its request, the key of its charge, and the time when the pipeline
/// looks after it if no event reaches it before.
fn begin(orders: &Schema, row: &mut Row, clock: &ServerClock) {
    if orders.get(row, "progress").is_null() {
        let mut progress = Progress {
            trace: Some(trace::current()),
            charge: Some(pipeline::new_charge_key()),
            ..Progress::default()
        };
        progress.note("placed", None);
        *row = progress.write(orders, row, Some(pipeline::due_later(clock)), None);
    }
}

/// What was found out of an order's lines.
#[derive(Default)]
struct Lines {
    /// The currency of each line that is known, by its index.
    currencies: Vec<(usize, String)>,
    /// What is wrong.
    faults: Vec<FieldFault>,
    /// What is not allowed.
    refused: Vec<FieldFault>,
}

impl Lines {
    fn has(&self, index: usize) -> bool {
        self.currencies.iter().any(|(known, _)| *known == index)
    }

    fn wrong(&mut self, index: usize, field: &str, message: impl Into<String>) {
        self.faults.push(FieldFault::new(format!("items[{index}].{field}"), message));
    }

    /// The one currency of the order: that of its products, else what is asked for, else what it had.
    fn currency(mut self, asked: Option<String>, known: Option<String>) -> Result<String, ServiceError> {
        self.currencies.sort();
        let first = self.currencies.first().cloned();
        if let Some((_, first)) = &first {
            let others: Vec<(usize, String)> =
                self.currencies.iter().filter(|(_, code)| code != first).cloned().collect();
            for (index, code) in &others {
                self.wrong(
                    *index,
                    "product_id",
                    format!("is sold in {code}, and what is before it in {first}"),
                );
            }
            if !others.is_empty() {
                self.faults.push(FieldFault::new(
                    "currency",
                    "is one for all items of an order: order the others apart",
                ));
            } else if asked.as_ref().is_some_and(|asked| asked != first) {
                let message = format!("must be {first}, in which the products are sold, or left out");
                self.faults.push(FieldFault::new("currency", message));
            }
        }
        match (self.faults.is_empty(), self.refused.is_empty()) {
            (false, _) => Err(ServiceError::Invalid(self.faults)),
            (true, false) => Err(ServiceError::Refused(self.refused)),
            (true, true) => {
                let own = first.map(|(_, code)| code).or(asked).or(known);
                Ok(own.unwrap_or_else(|| currency::DEFAULT.to_owned()))
            }
        }
    }
}

/// Lines that the order has already, of no more pieces, keep their price; one that names no price must be
/// just the same.
fn keep(items: &mut [Item], mut before: Vec<Item>, code: &str, lines: &mut Lines) {
    for (index, item) in items.iter_mut().enumerate() {
        let same = |old: &Item| {
            let as_dear = match item.price {
                Some(_) => old.price == item.price && item.quantity <= old.quantity,
                None => old.price.is_some() && item.quantity == old.quantity,
            };
            old.product_id == item.product_id && as_dear
        };
        if let Some(place) = before.iter().position(same) {
            item.price = before.swap_remove(place).price;
            lines.currencies.push((index, code.to_owned()));
        }
    }
}

/// Takes prices and currencies of some lines from the catalogue.
async fn look_up(
    products: &Records,
    may_price: bool,
    items: &mut [Item],
    fresh: &[usize],
    lines: &mut Lines,
) -> Result<(), ServiceError> {
    let keys: Vec<Key> =
        fresh.iter().filter_map(|index| items.get(*index)?.product_id.parse().ok()).collect();
    for (index, found) in fresh.iter().zip(products.look_up_all(&keys).await?) {
        let Some(item) = items.get_mut(*index) else { continue };
        match found {
            Lookup::Found(product) => {
                let code = currency_of(products.schema(), &product.values);
                of_catalogue(*index, item, &code, price_of(products.schema(), &product), may_price, lines);
                lines.currencies.push((*index, code));
            }
            Lookup::Unreadable(unreadable) => return Err(ServiceError::Unreadable(Arc::from(unreadable))),
            Lookup::Deleted(_) | Lookup::Missing => {
                lines.wrong(*index, "product_id", "there is no such product")
            }
        }
    }
    Ok(())
}

fn price_of(schema: &Schema, product: &Record) -> Option<rust_decimal::Decimal> {
    match schema.get(&product.values, "price") {
        Value::Decimal(price) => Some(*price),
        _ => None,
    }
}

/// Gives a line the catalogue's price, or finds that it has another.
fn of_catalogue(
    index: usize,
    item: &mut Item,
    code: &str,
    price: Option<rust_decimal::Decimal>,
    may_price: bool,
    lines: &mut Lines,
) {
    match (item.price, price) {
        (None, None) => lines.wrong(index, "price", "is required: the product has none"),
        (None, price) => item.price = price,
        (Some(own), Some(price)) if own == price => (),
        (Some(_), _) if may_price => (),
        (Some(own), price) => {
            let price = price.map_or_else(|| "none".to_owned(), |price| price.normalize().to_string());
            let message = format!(
                "is {}, and the catalogue's price is {price} {code}: leave it out, or call with the right `price` of the products",
                own.normalize()
            );
            lines.refused.push(FieldFault::new(format!("items[{index}].price"), message));
        }
    }
}
