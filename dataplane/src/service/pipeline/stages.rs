//! The four stages. Each can be done again, at any place where it was cut off, without a second effect.

use std::collections::BTreeMap;

use serde_json::{Value as Tree, json};

use super::{ACTOR, Pipeline, due_later, work::Case};
use crate::{
    domain::{
        payment::may_become,
        progress::{Ending, Stage},
        query::{Comparison, FieldRef, Filter, Query, Start},
        record::{Key, Record},
        stock::{self, Held, Settling},
        value::{Timestamp, Value},
    },
    service::{
        error::ServiceError,
        failure::Failure,
        notify::{Message, render},
        payment::{Charge, Charged, derived_key},
        records::Records,
    },
};

impl Pipeline {
    /// Holds the stock of every item, or gives the order up where there is not enough.
    pub(super) async fn hold_stock(&self, case: &Case) -> Result<(), Failure> {
        let mut refused = None;
        for (product, quantity) in wanted(case) {
            refused = self.hold(&product, &case.key, quantity).await?;
            if refused.is_some() {
                break;
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
        if moved.await?.is_none() {
            self.give_back_stray(case).await?;
        }
        Ok(())
    }

    /// Holds pieces of one product; says why where that cannot be.
    async fn hold(&self, product: &Key, order: &Key, quantity: i64) -> Result<Option<String>, Failure> {
        let Some(products) = &self.parts.products else { return Ok(None) };
        let schema = products.schema();
        let held = products.adjust(product, ACTOR, |current| {
            match stock::hold(schema, &current.values, order, quantity, Timestamp::now()) {
                Held::Now(row) => Ok(Some(row)),
                Held::Already => Ok(None),
                Held::Short(left) => Err(ServiceError::Conflict(format!(
                    "not enough stock of {product}: {quantity} are wanted, there are {left}"
                ))),
                Held::Crowded => Err(ServiceError::Contended),
            }
        });
        match held.await {
            Err(ServiceError::Conflict(reason)) => Ok(Some(reason)),
            Err(ServiceError::NotFound) => Ok(Some(format!("there is no product {product}"))),
            held => Ok(held.map(|_| None)?),
        }
    }

    /// After a worker stood still: the order went on without it, so what it held just now may be nobody's.
    async fn give_back_stray(&self, case: &Case) -> Result<(), Failure> {
        let now = self.case(&case.key).await?;
        let stray = match &now {
            None => true,
            Some(now) if now.progress.is_settled() || now.progress.ending.is_some() => true,
            // its items were changed before it was taken up
            Some(now) => now.progress.stage == Stage::Orders && wanted(now) != wanted(case),
        };
        if stray { self.end_holds(case, Settling::Release).await } else { Ok(()) }
    }

    /// Ends the order's holds, as far as there are any.
    async fn end_holds(&self, case: &Case, settling: Settling) -> Result<(), Failure> {
        for product in wanted(case).into_keys() {
            self.end_hold(&product, &case.key, settling).await?;
        }
        Ok(())
    }

    /// Ends an order's hold of a product, if there is one.
    pub(super) async fn end_hold(&self, product: &Key, order: &Key, settling: Settling) -> Result<(), Failure> {
        let Some(products) = &self.parts.products else { return Ok(()) };
        let schema = products.schema();
        let ended =
            products.adjust(product, ACTOR, |current| Ok(stock::settle(schema, &current.values, order, settling)));
        match ended.await {
            // a product that was deleted took its holds with it
            Err(ServiceError::NotFound) => Ok(()),
            ended => Ok(ended.map(drop)?),
        }
    }

    /// Charges the customer, once.
    pub(super) async fn charge(&self, case: &Case) -> Result<(), Failure> {
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
                // called off while the provider was asked
                self.bank.call(false, deadline, tools.provider.reverse(&charge)).await
            }
        }
    }

    async fn paid(&self, case: &Case, charge: &Charge, how: &str) -> Result<(), Failure> {
        let moved = self.move_on(case, |progress| {
            progress.note("charged", Some(how.to_owned()));
            progress.advance(Stage::Inventory);
            (Some("paid"), Some(due_later()))
        });
        if moved.await?.is_none() && self.case(&case.key).await?.is_none() {
            // deleted meanwhile
            self.reverse(charge).await?;
        }
        Ok(())
    }

    async fn unpaid(&self, case: &Case, reason: &str) -> Result<(), Failure> {
        let moved = self.move_on(case, |progress| {
            progress.end(Ending::Failed, reason);
            (None, Some(due_later()))
        });
        moved.await.map(drop)
    }

    /// Makes the holds sales, or gives back everything that was taken.
    pub(super) async fn settle(&self, case: &Case) -> Result<(), Failure> {
        if let Some(ending) = case.progress.ending {
            return self.give_back(case, ending).await;
        }
        let Some(sold) = self.sell(case).await? else { return Ok(()) };
        self.end_holds(&sold, Settling::Commit).await?;
        let moved = self.move_on(&sold, |progress| {
            progress.note("stock_committed", None);
            progress.advance(Stage::Notifications);
            (Some("completed"), Some(due_later()))
        });
        moved.await.map(drop)
    }

    /// Decides that the order is fulfilled, so that it cannot be called off while its holds are ended one by one.
    async fn sell(&self, case: &Case) -> Result<Option<Case>, Failure> {
        if case.progress.sold {
            return self.case(&case.key).await;
        }
        let moved = self.move_on(case, |progress| {
            progress.sold = true;
            (None, Some(due_later()))
        });
        match moved.await? {
            Some(_) => self.case(&case.key).await,
            None => Ok(None),
        }
    }

    async fn give_back(&self, case: &Case, ending: Ending) -> Result<(), Failure> {
        self.end_holds(case, Settling::Release).await?;
        let charge = self.charge_of(case);
        let reversed = self.reverse(&charge).await?;
        let moved = self.move_on(case, |progress| {
            progress.note("given_back", reversed.then(|| "stock and payment".to_owned()));
            progress.advance(Stage::Notifications);
            (Some(ending.status()), Some(due_later()))
        });
        moved.await.map(drop)
    }

    /// Takes back what was charged, or may have been; false where no payment was ever begun.
    async fn reverse(&self, charge: &Charge) -> Result<bool, Failure> {
        let Some(payments) = &self.parts.payments else { return Ok(false) };
        let Some(payment) = payments.find_one(&charge.key).await? else { return Ok(false) };
        let status = status_of(payments, &payment);
        if matches!(status.as_str(), "pending" | "completed") {
            let tools = self.tools.load_full();
            // the payment last: while it is open, whoever comes next reverses again
            self.bank.call(false, tools.settings.payments.timeout.0, tools.provider.reverse(charge)).await?;
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
    pub(super) async fn notify(&self, case: &Case) -> Result<(), Failure> {
        let message = self.message(case).await?;
        let (tools, deadline) = (self.tools.load_full(), self.tools.load().settings.payments.timeout.0);
        self.messenger.call(case.again(), deadline, tools.notifier.send(&message)).await?;
        let moved = self.move_on(case, |progress| {
            progress.note("notified", None);
            progress.advance(Stage::Done);
            (None, None)
        });
        moved.await.map(drop)
    }

    /// The message: by the template `order_completed`, `order_failed` or `order_cancelled`, or in our own words.
    async fn message(&self, case: &Case) -> Result<Message, Failure> {
        let schema = self.parts.orders.schema();
        let status = case.progress.ending.map_or("completed", Ending::status);
        let order: Tree = serde_json::from_str(&case.record.to_masked_json(schema)).unwrap_or(Tree::Null);
        let variables = json!({ "order": order, "status": status, "reason": case.progress.reason });
        let name = format!("order_{status}");
        let (subject, body) = match self.template(&name).await? {
            Some((subject, body)) => (render(&subject, &variables)?, render(&body, &variables)?),
            None => (format!("Your order {}", case.key), format!("Your order {} is {status}.", case.key)),
        };
        let to = schema.get(&case.record.values, "user_id").as_text().unwrap_or_default().to_owned();
        Ok(Message { key: format!("{}-{status}", case.key), to, subject, body, trace: case.trace() })
    }

    async fn template(&self, name: &str) -> Result<Option<(String, String)>, Failure> {
        let Some(templates) = &self.parts.templates else { return Ok(None) };
        let schema = templates.schema();
        let Some(index) = schema.index_of("template") else { return Ok(None) };
        let filter = Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(name.to_owned()));
        let query = Query { filter, order: Vec::new(), start: Start::Offset(0), limit: 1, count: false };
        let page = templates.find(&query).await?;
        let text = |record: &Record, field| schema.get(&record.values, field).as_text().unwrap_or_default().to_owned();
        Ok(page.records.first().map(|record| (text(record, "subject"), text(record, "body"))))
    }

    fn charge_of(&self, case: &Case) -> Charge {
        let schema = self.parts.orders.schema();
        let text = |field| schema.get(&case.record.values, field).as_text().unwrap_or_default().to_owned();
        let amount = match schema.get(&case.record.values, "total") {
            Value::Decimal(total) => *total,
            _ => 0.into(),
        };
        Charge {
            key: derived_key(&format!("payment of order {}", case.key)),
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
