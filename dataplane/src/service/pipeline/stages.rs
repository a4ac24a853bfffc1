//! The four stages. Each can be done again, at any place where it was cut off, without a second effect, and gives the order as it is after its
//! last change; none where somebody else went on with it.
//!
//! A product's holds are changed in three steps: the product is read, the order is looked at, the product is written if it is as it was read. A
//! worker that stood still between any two of them for however long does nothing: had another worker gone on with the order meanwhile, it
//! would have changed the product or the order. So an order that went on never gets a second hold, and what is held for one that ended
//! or is gone is given back by whoever comes across it.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde_json::{Value as Tree, json};

use super::{ACTOR, Pipeline, due_later, work::Case};
use crate::{
    domain::{
        payment::may_become,
        progress::{Ending, Progress, Stage},
        record::{Key, Record},
        stock::{self, Held, Settling},
        value::{Timestamp, Value},
    },
    service::{
        error::ServiceError,
        failure::Failure,
        notify::{Message, render},
        payment::{Charge, Charged, derived_key},
        records::{
            Records,
            writes::{Adjusted, Still},
        },
    },
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
    pub(super) async fn hold_stock(&self, case: &Case) -> Result<Option<Record>, Failure> {
        let mut refused = None;
        for (product, quantity) in wanted(case) {
            match self.hold(case, &product, quantity).await? {
                Hold::Held => (),
                Hold::Short(reason) => {
                    refused = Some(reason);
                    break;
                }
                Hold::Moved => return self.give_back_strays(case).await.map(|()| None),
            }
        }
        let moved = self.move_on(case, |progress| match &refused {
            Some(reason) => {
                progress.end(Ending::Failed, reason);
                (None, Some(due_later()))
            }
            None => {
                progress.note("stock_held", None);
                progress.advance(Stage::Payments);
                (Some("processing"), Some(due_later()))
            }
        });
        let moved = moved.await?;
        if moved.is_none() {
            self.give_back_strays(case).await?;
        }
        Ok(moved)
    }

    /// Holds pieces of one product for an order that is still where its case was read.
    async fn hold(&self, case: &Case, product: &Key, quantity: i64) -> Result<Hold, Failure> {
        let Some(products) = &self.parts.products else { return Ok(Hold::Held) };
        let schema = products.schema();
        let hold = |current: &Record| match stock::hold(schema, &current.values, &case.key, quantity, Timestamp::now())
        {
            Held::Now(row) => Ok(Some(row)),
            Held::Already => Ok(None),
            Held::Short(left) => Err(ServiceError::Conflict(format!(
                "not enough stock of {product}: {quantity} are wanted, there are {left}"
            ))),
            Held::Crowded => Err(ServiceError::Contended),
        };
        let _turn = self.turns.at(product).await;
        match products.adjust_while(product, ACTOR, hold, &|| Box::pin(self.is_unmoved(case))).await {
            Ok(Adjusted::Changed(_) | Adjusted::Unchanged) => Ok(Hold::Held),
            Ok(Adjusted::Refused) => Ok(Hold::Moved),
            Err(ServiceError::Conflict(reason)) => Ok(Hold::Short(reason)),
            Err(ServiceError::NotFound) => Ok(Hold::Short(format!("there is no product {product}"))),
            Err(error) => Err(error.into()),
        }
    }

    /// After a worker stood still: the order ended or went on without it, so what it held just now may be nobody's.
    async fn give_back_strays(&self, case: &Case) -> Result<(), Failure> {
        for product in wanted(case).into_keys() {
            self.give_back_stray(&product, &case.key).await?;
        }
        Ok(())
    }

    /// Gives back what an order holds of a product if that is nobody's. Says whether it was.
    pub(super) async fn give_back_stray(&self, product: &Key, order: &Key) -> Result<bool, Failure> {
        let stray = || Box::pin(self.is_stray(product, order)) as BoxFuture<'_, _>;
        Ok(matches!(self.end_hold(product, order, Settling::Release, &stray).await?, Adjusted::Changed(_)))
    }

    /// Whether what an order holds of a product is nobody's: the order has ended or is gone, or went on without this product. Once it is so it
    /// stays so.
    pub(super) async fn is_stray(&self, product: &Key, order: &Key) -> Result<bool, ServiceError> {
        Ok(self.case(order).await?.is_none_or(|case| {
            let progress = &case.progress;
            let dropped = progress.stage != Stage::Orders && !wanted(&case).contains_key(product);
            dropped || progress.is_settled() || progress.ending.is_some()
        }))
    }

    /// Ends the holds of an order that is still where its case was read, as far as there are any. False where it is elsewhere.
    async fn end_holds(&self, case: &Case, settling: Settling) -> Result<bool, Failure> {
        for product in wanted(case).into_keys() {
            let unmoved = || Box::pin(self.is_unmoved(case)) as BoxFuture<'_, _>;
            if self.end_hold(&product, &case.key, settling, &unmoved).await? == Adjusted::Refused {
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
        let settle = |current: &Record| Ok(stock::settle(schema, &current.values, order, settling));
        let _turn = self.turns.at(product).await;
        match products.adjust_while(product, ACTOR, settle, still).await {
            // a product that was deleted took its holds with it
            Err(ServiceError::NotFound) => Ok(Adjusted::Unchanged),
            ended => Ok(ended?),
        }
    }

    /// Charges the customer, once.
    pub(super) async fn charge(&self, case: &Case) -> Result<Option<Record>, Failure> {
        let charge = self.charge_of(case);
        if charge.amount.is_zero() {
            return self.paid(case, &charge, "nothing to pay").await;
        }
        let tools = self.tools.load_full();
        let state = self.open_payment(&charge, tools.provider.name()).await?;
        match state.as_str() {
            "completed" => return self.paid(case, &charge, "charged before").await,
            "pending" => (),
            ended => return self.unpaid(case, &format!("its payment is {ended}")).await,
        }
        // who ends the order from here on finds the payment; who ended it before found none
        if !self.is_unmoved(case).await? {
            self.end_payment(&charge.key, "cancelled", None).await?;
            return Ok(None);
        }
        let deadline = tools.settings.payments.timeout.0;
        match self.bank.call(case.again(), deadline, tools.provider.charge(&charge)).await? {
            Charged::Declined { reason } => {
                self.end_payment(&charge.key, "failed", None).await?;
                self.unpaid(case, &format!("the payment was declined: {reason}")).await
            }
            Charged::Approved { transaction } => {
                if self.end_payment(&charge.key, "completed", Some(&transaction)).await? == "completed" {
                    return self.paid(case, &charge, &transaction).await;
                }
                // called off while the provider was asked: it may have charged after it was told to give back
                self.give_back_again(case, &charge).await.map(|()| None)
            }
        }
    }

    async fn paid(&self, case: &Case, charge: &Charge, how: &str) -> Result<Option<Record>, Failure> {
        let moved = self.move_on(case, |progress| {
            progress.note("charged", Some(how.to_owned()));
            progress.advance(Stage::Inventory);
            (Some("paid"), Some(due_later()))
        });
        let moved = moved.await?;
        if moved.is_none() && self.case(&case.key).await?.is_none() {
            // deleted meanwhile
            self.reverse(charge, case.again()).await?;
        }
        Ok(moved)
    }

    async fn unpaid(&self, case: &Case, reason: &str) -> Result<Option<Record>, Failure> {
        let moved = self.move_on(case, |progress| {
            progress.end(Ending::Failed, reason);
            (None, Some(due_later()))
        });
        moved.await
    }

    /// Makes the holds sales, or gives back everything that was taken.
    pub(super) async fn settle(&self, case: &Case) -> Result<Option<Record>, Failure> {
        if let Some(ending) = case.progress.ending {
            return self.give_back(case, ending).await;
        }
        if case.progress.sold {
            return self.commit_holds(case).await;
        }
        // decided first, so that the order cannot be called off while its holds are ended one by one
        let decided = self.move_on(case, |progress| {
            progress.sold = true;
            (None, Some(due_later()))
        });
        match decided.await? {
            Some(record) => self.commit_holds(&self.case_of(record)).await,
            None => Ok(None),
        }
    }

    async fn commit_holds(&self, sold: &Case) -> Result<Option<Record>, Failure> {
        if !self.end_holds(sold, Settling::Commit).await? {
            return Ok(None);
        }
        let moved = self.move_on(sold, |progress| {
            progress.note("stock_committed", None);
            progress.advance(Stage::Notifications);
            (Some("completed"), Some(due_later()))
        });
        moved.await
    }

    async fn give_back(&self, case: &Case, ending: Ending) -> Result<Option<Record>, Failure> {
        if !self.end_holds(case, Settling::Release).await? {
            return Ok(None);
        }
        let charge = self.charge_of(case);
        let reversed = self.reverse(&charge, case.again()).await?;
        let moved = self.move_on(case, |progress| {
            progress.note("given_back", reversed.then(|| "stock and payment".to_owned()));
            progress.advance(Stage::Notifications);
            (Some(ending.status()), Some(due_later()))
        });
        moved.await
    }

    /// Sends an order that has ended back to the stage that gives back, which tries until it is done. One that is gone gets its money at once, or never.
    async fn give_back_again(&self, case: &Case, charge: &Charge) -> Result<(), Failure> {
        let schema = self.parts.orders.schema();
        let sent = self.parts.orders.adjust(&case.key, ACTOR, |current| {
            let mut progress = Progress::of(schema, &current.values);
            if progress.ending.is_none() || (progress.parked.is_some() && progress.stage == Stage::Inventory) {
                return Ok(None);
            }
            progress.note("charged_late", None);
            match progress.stage {
                // who is about to give back may have asked the provider already, and must not go on as if that were all
                Stage::Inventory => progress.attempts += 1,
                _ => progress.advance(Stage::Inventory),
            }
            Ok(Some(progress.write(schema, &current.values, Some(due_later()), None)))
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(ServiceError::NotFound) => self.reverse(charge, false).await.map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back what was charged, or may have been; false where no payment was ever begun. `again` says that it was tried before.
    async fn reverse(&self, charge: &Charge, again: bool) -> Result<bool, Failure> {
        let tools = self.tools.load_full();
        let reversal = || self.bank.call(again, tools.settings.payments.timeout.0, tools.provider.reverse(charge));
        let Some(payments) = &self.parts.payments else {
            // no record says whether anything was charged: the provider knows
            if !charge.amount.is_zero() {
                reversal().await?;
            }
            return Ok(!charge.amount.is_zero());
        };
        let Some(payment) = payments.find_one(&charge.key).await? else { return Ok(false) };
        let status = status_of(payments, &payment);
        // one that was cancelled may have been charged at the same moment
        if matches!(status.as_str(), "pending" | "completed" | "cancelled") {
            // the payment last: while it is open, whoever comes next reverses again
            reversal().await?;
            if status == "cancelled" {
                return Ok(true);
            }
            let to = if status == "pending" { "cancelled" } else { "refunded" };
            if self.end_payment(&charge.key, to, None).await? == "completed" {
                return Err(Failure::system("the payment was completed at the same moment"));
            }
        }
        Ok(true)
    }

    /// The payment's status; it is begun where it is not there.
    async fn open_payment(&self, charge: &Charge, gateway: &str) -> Result<String, Failure> {
        let Some(payments) = &self.parts.payments else { return Ok("pending".to_owned()) };
        let text = |text: &str| Value::Text(text.to_owned());
        let values = payments.schema().row_of([
            ("user_id", text(&charge.user)),
            ("order_id", text(charge.order.as_str())),
            ("amount", Value::Decimal(charge.amount)),
            ("currency", text(&charge.currency)),
            ("gateway", text(gateway)),
        ]);
        match payments.insert(&charge.key, values, ACTOR).await {
            Ok(_) => Ok("pending".to_owned()),
            Err(ServiceError::Exists) => {
                let payment = payments.find_one(&charge.key).await?;
                Ok(payment.map_or_else(|| "deleted".to_owned(), |payment| status_of(payments, &payment)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the payment to a status, where it may become that, and says what it is then.
    async fn end_payment(&self, payment: &Key, to: &str, transaction: Option<&str>) -> Result<String, Failure> {
        let Some(payments) = &self.parts.payments else { return Ok(to.to_owned()) };
        let schema = payments.schema();
        let moved = payments.adjust(payment, ACTOR, |current| {
            if !may_become(schema.get(&current.values, "status").as_text().unwrap_or_default(), to) {
                return Ok(None);
            }
            let mut row = current.values.clone();
            schema.set(&mut row, "status", Value::Text(to.to_owned()));
            if let Some(transaction) = transaction {
                schema.set(&mut row, "transaction_id", Value::Text(transaction.chars().take(128).collect()));
            }
            Ok(Some(row))
        });
        match moved.await {
            Ok(Some(record)) => Ok(status_of(payments, &record)),
            Ok(None) => {
                let found = payments.find_one(payment).await?;
                Ok(found.map_or_else(|| "deleted".to_owned(), |record| status_of(payments, &record)))
            }
            Err(ServiceError::NotFound) => Ok("deleted".to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells the customer what became of the order.
    pub(super) async fn notify(&self, case: &Case) -> Result<Option<Record>, Failure> {
        let message = self.message(case).await?;
        let (tools, deadline) = (self.tools.load_full(), self.tools.load().settings.payments.timeout.0);
        self.messenger.call(case.again(), deadline, tools.notifier.send(&message)).await?;
        let moved = self.move_on(case, |progress| {
            progress.note("notified", None);
            progress.advance(Stage::Done);
            (None, None)
        });
        moved.await
    }

    /// The message: by the template `order_completed`, `order_failed` or `order_cancelled`, or in our own words.
    async fn message(&self, case: &Case) -> Result<Message, Failure> {
        let schema = self.parts.orders.schema();
        let status = case.progress.ending.map_or("completed", Ending::status);
        let order: Tree = serde_json::from_str(&case.record.to_masked_json(schema)).unwrap_or(Tree::Null);
        let variables = json!({ "order": order, "status": status, "reason": case.progress.reason });
        let name = format!("order_{status}");
        let text = match &self.parts.templates {
            Some(templates) => self.texts.get(templates, &name).await?,
            None => None,
        };
        let (subject, body) = match text {
            Some((subject, body)) => (render(&subject, &variables)?, render(&body, &variables)?),
            None => (format!("Your order {}", case.key), format!("Your order {} is {status}.", case.key)),
        };
        let to = schema.get(&case.record.values, "user_id").as_text().unwrap_or_default().to_owned();
        // as with charges: an order that was deleted and placed anew under the same key is another one
        let key = format!("{}-{}-{status}", case.key, case.record.created_at);
        Ok(Message { key, to, subject, body, trace: case.trace() })
    }

    fn charge_of(&self, case: &Case) -> Charge {
        let schema = self.parts.orders.schema();
        let text = |field| schema.get(&case.record.values, field).as_text().unwrap_or_default().to_owned();
        let amount = match schema.get(&case.record.values, "total") {
            Value::Decimal(total) => *total,
            _ => 0.into(),
        };
        Charge {
            // an order that was deleted and placed anew under the same key pays anew
            key: derived_key(&format!("payment of order {} placed {}", case.key, case.record.created_at.0)),
            order: case.key.clone(),
            user: text("user_id"),
            amount,
            currency: text("currency"),
            trace: case.trace(),
        }
    }
}

fn status_of(payments: &Records, payment: &Record) -> String {
    payments.schema().get(&payment.values, "status").as_text().unwrap_or_default().to_owned()
}

/// What the order wants of each product, in one order everywhere.
pub(super) fn wanted(case: &Case) -> BTreeMap<Key, i64> {
    let mut wanted = BTreeMap::new();
    for item in &case.items {
        if let Ok(product) = item.product_id.parse::<Key>() {
            *wanted.entry(product).or_insert(0) += item.quantity;
        }
    }
    wanted
}
