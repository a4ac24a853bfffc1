//! The charge of an order: made once, proven by the payment that the pipeline itself wrote, and given back
//! where the order ends otherwise.
//!
//! A payment is no proof by its key alone: the order, the amount, the currency and the user must be those of
//! the order, and the writer the pipeline. The key is random and kept in the order, so that nobody can write
//! the payment first. Versions before made the key of the order; what they began goes on under that key where
//! the audit says that the pipeline, and nobody else, wrote the payment.

use rust_decimal::Decimal;

use super::{ACTOR, Pipeline, work::OrderSnapshot};
use crate::service::{
    error::ServiceError,
    failure::{Class, Failure},
    payment::{Charge, Charged, derived_key, random_key},
    records::Records,
};
use model::{
    actor,
    audit::AuditQuery,
    budget::Allowance,
    entities::payment::{CHARGE_OF, PENDING, may_become},
    key::Key,
    progress::{Ending, Progress, Stage},
    query::{Comparison, Filter, Query, Start},
    record::{Lookup, Record},
    schema::{FieldRef, Schema},
    value::Value,
};

/// The most payments, and entries of the audit, that one order is looked up with.
const FOUND_MAX: u32 = 100;

/// The key of a new order's charge.
pub fn new_charge_key() -> String {
    random_key().to_string()
}

/// Whether a payment is that by which the pipeline charges an order.
pub fn is_charge_of(payments: &Schema, payment: &Record, order: &Record, progress: &Progress) -> bool {
    payments.get(&payment.values, CHARGE_OF).as_text() == Some(&mark_of(order))
        || progress.charge.as_deref() == Some(payment.key.as_str())
        || payment.key == former_key(order)
}

/// What the payment of an order says. An order that was deleted and placed anew under the same key pays anew.
fn mark_of(order: &Record) -> String {
    format!("{} placed {}", order.key, order.created_at.0)
}

/// The key of charge and payment that versions before made of an order.
fn former_key(order: &Record) -> Key {
    derived_key(&format!("payment of order {} placed {}", order.key, order.created_at.0))
}

impl Pipeline {
    /// Charges the customer, once.
    pub(super) async fn charge(&self, snapshot: &OrderSnapshot) -> Result<Option<Record>, Failure> {
        if self.charge_of(snapshot).amount.is_zero() {
            return self.paid(snapshot, "nothing to pay").await;
        }
        let Some(snapshot) = &self.named(snapshot).await? else { return Ok(None) };
        let charge = self.charge_of(snapshot);
        let tools = self.tools.load_full();
        let state = self.open_payment(&charge, tools.provider.name()).await?;
        match state.as_str() {
            "completed" => return self.paid(snapshot, "charged before").await,
            PENDING => (),
            ended => return self.unpaid(snapshot, &format!("its payment is {ended}")).await,
        }
        // who ends the order from here on finds the payment; who ended it before found none
        if !self.is_unmoved(snapshot).await? {
            self.end_payment(&charge, "cancelled", None).await?;
            return Ok(None);
        }
        let deadline = tools.settings.payments.timeout.0;
        match self.bank.call(snapshot.again(), deadline, tools.provider.charge(&charge)).await? {
            Charged::Declined { reason } => {
                self.end_payment(&charge, "failed", None).await?;
                self.unpaid(snapshot, &format!("the payment was declined: {reason}")).await
            }
            Charged::Approved { transaction } => {
                if self.end_payment(&charge, "completed", Some(&transaction)).await? == "completed" {
                    return self.paid(snapshot, &transaction).await;
                }
                // called off while the provider was asked: it may have charged after it was told to give back
                self.give_back_again(snapshot, &charge).await.map(|()| None)
            }
        }
    }

    async fn paid(&self, snapshot: &OrderSnapshot, how: &str) -> Result<Option<Record>, Failure> {
        let moved = self.move_on(snapshot, |progress| {
            progress.note("charged", Some(how.to_owned()));
            progress.advance(Stage::Inventory);
            (Some("paid"), Some(self.due_later()))
        });
        let moved = moved.await?;
        if moved.is_none() && self.snapshot(&snapshot.key).await?.is_none() {
            // deleted meanwhile
            self.reverse_all(snapshot).await?;
        }
        Ok(moved)
    }

    async fn unpaid(&self, snapshot: &OrderSnapshot, reason: &str) -> Result<Option<Record>, Failure> {
        let moved = self.move_on(snapshot, |progress| {
            progress.end(Ending::Failed, reason);
            (None, Some(self.due_later()))
        });
        moved.await
    }

    /// The order with the key of its charge. None where somebody else went on with the order.
    async fn named(&self, snapshot: &OrderSnapshot) -> Result<Option<OrderSnapshot>, Failure> {
        let Some((charge, charged_as)) = self.other_name(snapshot).await? else {
            return Ok(Some(snapshot.clone()));
        };
        let moved = self.move_on(snapshot, |progress| {
            progress.charge = Some(charge.to_string());
            progress.charged_as = charged_as.as_ref().map(ToString::to_string);
            (None, Some(self.due_later()))
        });
        Ok(moved.await?.map(|record| self.snapshot_of(record)))
    }

    /// The keys of payment and charge that an order must get; none where it has its own. During an upgrade
    /// another process may run a version before.
    async fn other_name(&self, snapshot: &OrderSnapshot) -> Result<Option<(Key, Option<Key>)>, Failure> {
        let former = former_key(&snapshot.record);
        let known = snapshot.progress.charge.as_ref().and_then(|key| key.parse::<Key>().ok());
        let Some(payments) = &self.parts.payments else {
            // a version before may have charged under its name
            return Ok(known.is_none().then_some((former, None)));
        };
        let keys: Vec<Key> = known.iter().chain([&former]).cloned().collect();
        let found = payments.look_up_all(&keys).await?;
        let begun = |key: &Key| {
            let of_key = keys.iter().zip(&found).find(|(one, _)| *one == key);
            of_key.and_then(|(_, found)| if let Lookup::Found(record) = found { Some(record) } else { None })
        };
        if known.as_ref().is_some_and(|known| begun(known).is_some()) {
            return Ok(None);
        }
        let under_former =
            Charge { payment: former.clone(), key: former.clone(), ..self.charge_of(snapshot) };
        if let Some(payment) = begun(&former)
            && self.is_ours(payments, payment, &under_former).await?
        {
            return Ok(Some((former, None)));
        }
        if known.is_some() {
            return Ok(None);
        }
        let marked = self.marked(payments, &under_former.mark).await?;
        Ok(Some(match marked.into_iter().next() {
            Some(payment) => (payment.key, None),
            // the provider may have been asked under the former name, and charges once under it
            None => (random_key(), Some(former)),
        }))
    }

    /// The payments that the pipeline wrote for a placed order.
    async fn marked(&self, payments: &Records, mark: &str) -> Result<Vec<Record>, ServiceError> {
        let Some(index) = payments.schema().internal_index_of(CHARGE_OF) else { return Ok(Vec::new()) };
        let filter = Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(mark.to_owned()));
        let query = Query {
            filter,
            order: Vec::new(),
            start: Start::Offset(0),
            limit: FOUND_MAX,
            count: false,
            allowance: Allowance::default(),
        };
        Ok(payments.find(&query).await?.records)
    }

    /// Whether a payment is what the pipeline wrote for a charge.
    async fn is_ours(
        &self,
        payments: &Records,
        payment: &Record,
        charge: &Charge,
    ) -> Result<bool, ServiceError> {
        let schema = payments.schema();
        if !agrees(schema, payment, charge) {
            return Ok(false);
        }
        match schema.get(&payment.values, CHARGE_OF).as_text() {
            Some(mark) => Ok(mark == charge.mark),
            None => self.was_written_here(payments, &payment.key).await,
        }
    }

    /// Whether the audit says that a payment without a mark was made, and changed since, by the pipeline
    /// alone.
    async fn was_written_here(&self, payments: &Records, payment: &Key) -> Result<bool, ServiceError> {
        let query = AuditQuery {
            entities: vec![payments.schema().entity.clone()],
            key: Some(payment.to_string()),
            limit: FOUND_MAX,
            ..AuditQuery::default()
        };
        let entries = payments.audit(&query).await?.entries;
        let made = entries.iter().rposition(|entry| entry.action == "created");
        let since = made.map_or(&[][..], |made| entries.get(made..).unwrap_or_default());
        Ok(!since.is_empty() && since.iter().all(|entry| entry.actor == actor::PIPELINE))
    }

    /// Sends an order that has ended back to the stage that gives back, which tries until it is done. One
    /// that is gone gets its money at once, or never.
    async fn give_back_again(&self, snapshot: &OrderSnapshot, charge: &Charge) -> Result<(), Failure> {
        let schema = self.parts.orders.schema();
        let sent = self.parts.orders.adjust(&snapshot.key, ACTOR, |current| {
            let mut progress = Progress::of(schema, &current.values);
            if progress.ending.is_none() || (progress.parked.is_some() && progress.stage == Stage::Inventory)
            {
                return Ok(None);
            }
            progress.note("charged_late", None);
            match progress.stage {
                // who is about to give back may have asked the provider already, and must not go on as if
                // that were all
                Stage::Inventory => progress.attempts += 1,
                _ => progress.advance(Stage::Inventory),
            }
            Ok(Some(progress.write(schema, &current.values, Some(self.due_later()), None)))
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(ServiceError::NotFound) => self.reverse(charge, true, false).await.map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back all that was charged for an order, or may have been, under whatever name; false where no
    /// payment was ever begun.
    pub(super) async fn reverse_all(&self, snapshot: &OrderSnapshot) -> Result<bool, Failure> {
        let own = self.charge_of(snapshot);
        let status =
            self.parts.orders.schema().get(&snapshot.record.values, "status").as_text().unwrap_or_default();
        let mut reversed = self.reverse(&own, status != PENDING, snapshot.again()).await?;
        let Some(payments) = &self.parts.payments else { return Ok(reversed) };
        let mut others: Vec<Key> =
            self.marked(payments, &own.mark).await?.into_iter().map(|other| other.key).collect();
        others.push(former_key(&snapshot.record));
        for key in others.into_iter().filter(|key| *key != own.payment) {
            let other = Charge { payment: key.clone(), key, ..own.clone() };
            reversed |= self.reverse(&other, false, snapshot.again()).await?;
        }
        Ok(reversed)
    }

    /// Takes back what was charged, or may have been; false where no payment was ever begun. `begun` says
    /// that the order had come so far that it may have been charged, whatever became of the payment's record,
    /// and `again` that it was tried before.
    async fn reverse(&self, charge: &Charge, begun: bool, again: bool) -> Result<bool, Failure> {
        if charge.amount.is_zero() {
            return Ok(false);
        }
        let tools = self.tools.load_full();
        let reversal =
            || self.bank.call(again, tools.settings.payments.timeout.0, tools.provider.reverse(charge));
        let Some(payments) = &self.parts.payments else {
            // no record says whether anything was charged: the provider knows
            reversal().await?;
            return Ok(true);
        };
        let payment = match payments.find_one(&charge.payment).await? {
            Some(payment) if self.is_ours(payments, &payment, charge).await? => payment,
            // it was taken away, or another stands in its place
            Some(_) | None if begun => {
                reversal().await?;
                return Ok(true);
            }
            Some(_) | None => return Ok(false),
        };
        let status = status_of(payments, &payment);
        // one that was cancelled may have been charged at the same moment
        if matches!(status.as_str(), PENDING | "completed" | "cancelled") {
            // the payment last: while it is open, whoever comes next reverses again
            reversal().await?;
            if status == "cancelled" {
                return Ok(true);
            }
            let to = if status == PENDING { "cancelled" } else { "refunded" };
            if self.end_payment(charge, to, None).await? == "completed" {
                return Err(Failure::system("the payment was completed at the same moment"));
            }
        }
        Ok(true)
    }

    /// The payment's status; it is begun where it is not there.
    async fn open_payment(&self, charge: &Charge, gateway: &str) -> Result<String, Failure> {
        let Some(payments) = &self.parts.payments else { return Ok(PENDING.to_owned()) };
        let text = |text: &str| Value::Text(text.to_owned());
        let values = payments.schema().row_of([
            ("user_id", text(&charge.user)),
            ("order_id", text(charge.order.as_str())),
            ("amount", Value::Decimal(charge.amount)),
            ("currency", text(&charge.currency)),
            ("gateway", text(gateway)),
            (CHARGE_OF, text(&charge.mark)),
        ]);
        match payments.insert(&charge.payment, values, ACTOR).await {
            Ok(_) => Ok(PENDING.to_owned()),
            Err(ServiceError::Exists) => match payments.find_one(&charge.payment).await? {
                None => Ok("deleted".to_owned()),
                Some(payment) if self.is_ours(payments, &payment, charge).await? => {
                    Ok(status_of(payments, &payment))
                }
                Some(_) => {
                    let why = format!("payment {} is not what was written for this order", charge.payment);
                    Err(Failure::new(Class::NotRetryable, why))
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the payment to a status, where it is ours and may become that, and says what it is then.
    async fn end_payment(
        &self,
        charge: &Charge,
        to: &str,
        transaction: Option<&str>,
    ) -> Result<String, Failure> {
        let Some(payments) = &self.parts.payments else { return Ok(to.to_owned()) };
        let schema = payments.schema();
        let ours = |payment: &Record| {
            let mark = schema.get(&payment.values, CHARGE_OF).as_text();
            agrees(schema, payment, charge) && mark.is_none_or(|mark| mark == charge.mark)
        };
        let moved = payments.adjust(&charge.payment, ACTOR, |current| {
            let from = schema.get(&current.values, "status").as_text().unwrap_or_default();
            if !may_become(from, to) || !ours(current) {
                return Ok(None);
            }
            let mut row = current.values.clone();
            schema.set(&mut row, "status", Value::Text(to.to_owned()));
            schema.set(&mut row, CHARGE_OF, Value::Text(charge.mark.clone()));
            if let Some(transaction) = transaction {
                schema.set(&mut row, "transaction_id", Value::Text(transaction.chars().take(128).collect()));
            }
            Ok(Some(row))
        });
        match moved.await {
            Ok(Some(record)) => Ok(status_of(payments, &record)),
            Ok(None) => Ok(match payments.find_one(&charge.payment).await? {
                None => "deleted".to_owned(),
                Some(record) if ours(&record) => status_of(payments, &record),
                Some(_) => "another's".to_owned(),
            }),
            Err(ServiceError::NotFound) => Ok("deleted".to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    /// The charge of an order, under the key that the order has for it.
    pub(super) fn charge_of(&self, snapshot: &OrderSnapshot) -> Charge {
        let schema = self.parts.orders.schema();
        let text =
            |field| schema.get(&snapshot.record.values, field).as_text().unwrap_or_default().to_owned();
        let key = |key: &Option<String>| key.as_ref().and_then(|key| key.parse::<Key>().ok());
        let payment = key(&snapshot.progress.charge).unwrap_or_else(|| former_key(&snapshot.record));
        Charge {
            key: key(&snapshot.progress.charged_as).unwrap_or_else(|| payment.clone()),
            payment,
            mark: mark_of(&snapshot.record),
            order: snapshot.key.clone(),
            user: text("user_id"),
            amount: decimal(schema, &snapshot.record, "total").unwrap_or_default(),
            currency: text("currency"),
            trace: snapshot.trace(),
        }
    }
}

/// Whether a payment is of the order, the user, the amount and the currency of a charge.
fn agrees(schema: &Schema, payment: &Record, charge: &Charge) -> bool {
    let text = |field| schema.get(&payment.values, field).as_text().unwrap_or_default();
    (text("order_id"), text("user_id"), text("currency"))
        == (charge.order.as_str(), &charge.user, &charge.currency)
        && decimal(schema, payment, "amount") == Some(charge.amount)
}

fn decimal(schema: &Schema, record: &Record, field: &str) -> Option<Decimal> {
    match schema.get(&record.values, field) {
        Value::Decimal(value) => Some(*value),
        _ => None,
    }
}

fn status_of(payments: &Records, payment: &Record) -> String {
    payments.schema().get(&payment.values, "status").as_text().unwrap_or_default().to_owned()
}
