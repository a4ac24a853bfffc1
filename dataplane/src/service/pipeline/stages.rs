//! The four stages. Each can be done again, at any place where it was cut off, without a second effect, and
//! gives the order as it is after its last change; none where somebody else went on with it.
//!
//! A product's holds are changed in three steps: the product is read, the order is looked at, the product is
//! written if it is as it was read. A worker that stood still between any two of them for however long does
//! nothing: had another worker gone on with the order meanwhile, it would have changed the product or the
//! order. So an order that went on never gets a second hold, and what is held for one that ended or is gone
//! is given back by whoever comes across it.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde_json::{Value as Tree, json};

use super::{ACTOR, Pipeline, charges::new_charge_key, work::OrderSnapshot};
use crate::service::{
    error::ServiceError,
    failure::Failure,
    notify::{Message, render},
    records::own::{Adjusted, Still},
};
use model::{
    key::Key,
    progress::{Ending, Stage},
    record::Record,
    stock::{self, Held, Settling},
};

/// What came of the wish to hold a product.
enum Hold {
    Held,
    /// There is not enough, and why.
    Short(String),
    /// Somebody else went on with the order.
    Moved,
}

impl Pipeline {
    /// Holds the stock of every item, or gives the order up where there is not enough.
    pub(super) async fn hold_stock(&self, snapshot: &OrderSnapshot) -> Result<Option<Record>, Failure> {
        let mut refused = None;
        for (product, quantity) in wanted(snapshot) {
            match self.hold(snapshot, &product, quantity).await? {
                Hold::Held => (),
                Hold::Short(reason) => {
                    refused = Some(reason);
                    break;
                }
                Hold::Moved => return self.give_back_strays(snapshot).await.map(|()| None),
            }
        }
        let moved = self.move_on(snapshot, |progress| match &refused {
            Some(reason) => {
                progress.end(Ending::Failed, reason);
                (None, Some(self.due_later()))
            }
            None => {
                progress.charge.get_or_insert_with(new_charge_key);
                progress.note("stock_held", None);
                progress.advance(Stage::Payments);
                (Some("processing"), Some(self.due_later()))
            }
        });
        let moved = moved.await?;
        if moved.is_none() {
            self.give_back_strays(snapshot).await?;
        }
        Ok(moved)
    }

    /// Holds pieces of one product for an order that is still where its snapshot was read.
    async fn hold(&self, snapshot: &OrderSnapshot, product: &Key, quantity: i64) -> Result<Hold, Failure> {
        let Some(products) = &self.parts.products else { return Ok(Hold::Held) };
        let schema = products.schema();
        let hold = |current: &Record| match stock::hold(
            schema,
            &current.values,
            &snapshot.key,
            quantity,
            products.now(),
        ) {
            Held::Now(row) => Ok(Some(row)),
            Held::Already => Ok(None),
            Held::Short(left) => Err(ServiceError::Conflict(format!(
                "not enough stock of {product}: {quantity} are wanted, there are {left}"
            ))),
            Held::Crowded => Err(ServiceError::Contended),
        };
        let _turn = self.locks.at(product).await;
        match products.update_if(product, ACTOR, hold, &|| Box::pin(self.is_unmoved(snapshot))).await {
            Ok(Adjusted::Changed(_) | Adjusted::Unchanged) => Ok(Hold::Held),
            Ok(Adjusted::Refused) => Ok(Hold::Moved),
            Err(ServiceError::Conflict(reason)) => Ok(Hold::Short(reason)),
            Err(ServiceError::NotFound) => Ok(Hold::Short(format!("there is no product {product}"))),
            Err(error) => Err(error.into()),
        }
    }

    /// After a worker stood still: the order ended or went on without it, so what it held just now may be
    /// nobody's.
    async fn give_back_strays(&self, snapshot: &OrderSnapshot) -> Result<(), Failure> {
        for product in wanted(snapshot).into_keys() {
            self.give_back_stray(&product, &snapshot.key).await?;
        }
        Ok(())
    }

    /// Gives back what an order holds of a product if that is nobody's. Says whether it was.
    pub(super) async fn give_back_stray(&self, product: &Key, order: &Key) -> Result<bool, Failure> {
        let stray = || Box::pin(self.is_stray(product, order)) as BoxFuture<'_, _>;
        Ok(matches!(self.end_hold(product, order, Settling::Release, &stray).await?, Adjusted::Changed(_)))
    }

    /// Whether what an order holds of a product is nobody's: the order has ended or is gone, or went on
    /// without this product. Once it is so it stays so.
    pub(super) async fn is_stray(&self, product: &Key, order: &Key) -> Result<bool, ServiceError> {
        Ok(self.snapshot(order).await?.is_none_or(|snapshot| {
            let progress = &snapshot.progress;
            let dropped = progress.stage != Stage::Orders && !wanted(&snapshot).contains_key(product);
            dropped || progress.is_settled() || progress.ending.is_some()
        }))
    }

    /// Ends the holds of an order that is still where its snapshot was read, as far as there are any. False
    /// where it is elsewhere.
    async fn end_holds(&self, snapshot: &OrderSnapshot, settling: Settling) -> Result<bool, Failure> {
        for product in wanted(snapshot).into_keys() {
            let unmoved = || Box::pin(self.is_unmoved(snapshot)) as BoxFuture<'_, _>;
            if self.end_hold(&product, &snapshot.key, settling, &unmoved).await? == Adjusted::Refused {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends an order's hold of a product, if there is one and `still` says so.
    async fn end_hold(
        &self,
        product: &Key,
        order: &Key,
        settling: Settling,
        still: &Still<'_>,
    ) -> Result<Adjusted, Failure> {
        let Some(products) = &self.parts.products else { return Ok(Adjusted::Unchanged) };
        let schema = products.schema();
        let settle =
            |current: &Record| Ok(stock::settle(schema, &current.values, order, settling, products.now()));
        let _turn = self.locks.at(product).await;
        match products.update_if(product, ACTOR, settle, still).await {
            // a product that was deleted took its holds with it
            Err(ServiceError::NotFound) => Ok(Adjusted::Unchanged),
            ended => Ok(ended?),
        }
    }

    /// Makes the holds sales, or gives back everything that was taken.
    pub(super) async fn settle(&self, snapshot: &OrderSnapshot) -> Result<Option<Record>, Failure> {
        if let Some(ending) = snapshot.progress.ending {
            return self.give_back(snapshot, ending).await;
        }
        if snapshot.progress.sold {
            return self.commit_holds(snapshot).await;
        }
        // decided first, so that the order cannot be called off while its holds are ended one by one
        let decided = self.move_on(snapshot, |progress| {
            progress.sold = true;
            (None, Some(self.due_later()))
        });
        match decided.await? {
            Some(record) => self.commit_holds(&self.snapshot_of(record)).await,
            None => Ok(None),
        }
    }

    async fn commit_holds(&self, sold: &OrderSnapshot) -> Result<Option<Record>, Failure> {
        if !self.end_holds(sold, Settling::Commit).await? {
            return Ok(None);
        }
        let moved = self.move_on(sold, |progress| {
            progress.note("stock_committed", None);
            progress.advance(Stage::Notifications);
            (Some("completed"), Some(self.due_later()))
        });
        moved.await
    }

    async fn give_back(&self, snapshot: &OrderSnapshot, ending: Ending) -> Result<Option<Record>, Failure> {
        if !self.end_holds(snapshot, Settling::Release).await? {
            return Ok(None);
        }
        let reversed = self.reverse_all(snapshot).await?;
        let moved = self.move_on(snapshot, |progress| {
            progress.note("given_back", reversed.then(|| "stock and payment".to_owned()));
            progress.advance(Stage::Notifications);
            (Some(ending.status()), Some(self.due_later()))
        });
        moved.await
    }

    /// Tells the customer what became of the order.
    pub(super) async fn notify(&self, snapshot: &OrderSnapshot) -> Result<Option<Record>, Failure> {
        let message = self.message(snapshot).await?;
        let (tools, deadline) = (self.tools.load_full(), self.tools.load().settings.payments.timeout.0);
        self.messenger.call(snapshot.again(), deadline, tools.notifier.send(&message)).await?;
        let moved = self.move_on(snapshot, |progress| {
            progress.note("notified", None);
            progress.advance(Stage::Done);
            (None, None)
        });
        moved.await
    }

    /// The message: by the template `order_completed`, `order_failed` or `order_cancelled`, or in our own
    /// words.
    async fn message(&self, snapshot: &OrderSnapshot) -> Result<Message, Failure> {
        let schema = self.parts.orders.schema();
        let status = snapshot.progress.ending.map_or("completed", Ending::status);
        let order: Tree = serde_json::from_str(&snapshot.record.to_masked_json(schema)).unwrap_or(Tree::Null);
        let variables = json!({ "order": order, "status": status, "reason": snapshot.progress.reason });
        let name = format!("order_{status}");
        let text = match &self.parts.templates {
            Some(templates) => self.texts.get(templates, &name).await?,
            None => None,
        };
        let (subject, body) = match text {
            Some((subject, body)) => render(subject, body, variables).await?,
            None => {
                (format!("Your order {}", snapshot.key), format!("Your order {} is {status}.", snapshot.key))
            }
        };
        let to = schema.get(&snapshot.record.values, "user_id").as_text().unwrap_or_default().to_owned();
        // as with charges: an order that was deleted and placed anew under the same key is another one
        let key = format!("{}-{}-{status}", snapshot.key, snapshot.record.created_at);
        Ok(Message { key, to, subject, body, trace: snapshot.trace() })
    }
}

/// What the order wants of each product, in one order everywhere.
pub(super) fn wanted(snapshot: &OrderSnapshot) -> BTreeMap<Key, i64> {
    let mut wanted = BTreeMap::new();
    for item in &snapshot.items {
        if let Ok(product) = item.product_id.parse::<Key>() {
            *wanted.entry(product).or_insert(0) += item.quantity;
        }
    }
    wanted
}
