//! What a product remembers of who set its price and its stock, and of what was sold since then.
//!
//! A count says how many pieces are there at its time, those that orders hold included. What can be had is
//! that count, less what orders hold now, less what was sold after that time: a count that comes late sells
//! nothing a second time. Of all that changes a price or a stock, events and people alike, the newest wins.
//!
//! Sales are remembered back to a little before the last count: most counts that may still win reach no
//! further back. One that does (two senders whose clocks are ahead, a log whose order is not that of the
//! clocks) adds nothing to what can be had. The number of sales is bounded: few pieces next to all that were
//! sold after them become part of the sale that follows, so a late count sells fewer rather than more.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    holds,
    schema::{Schema, Wrote},
    value::{Json, Row, Timestamp, Value},
};

/// The field of a product that holds the memory.
pub const FIELD: &str = "counted";
/// The field of a product that says which event gave it its price, for releases that know nothing of
/// `counted`.
pub const PRICED_BY: &str = "priced_by";
/// The most sales that are remembered one by one.
const SOLD_MAX: usize = 128;
/// How far the clocks of two processes may be apart. Events of one log whose times are further apart than
/// that belong to a log that was made anew.
const CLOCKS_MS: i64 = 5_000;

/// Where an event stands in its log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The log, or the part of it that has an order.
    pub log: String,
    /// The number in it.
    pub seq: i64,
}

/// Which change a price or a stock comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Since when it is so, in milliseconds since 1970: never later than when it was accepted.
    pub moment: i64,
    /// The time that the sender gave, as given; none where the log alone has the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
    /// Where the event stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The event; none for a person's change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Uuid>,
}

/// The memory of a product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// Where its price comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Mark>,
    /// Where its stock comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    stock: Option<Mark>,
    /// What was sold up to this time is not all known: it was forgotten, or somebody else changed the
    /// product, who remembers nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_until: Option<i64>,
    /// Pieces that are held or sold beyond what was counted: those that come back make up for them first.
    #[serde(skip_serializing_if = "is_zero")]
    short: i64,
    /// What was sold since then: the time and the pieces, in the order of time.
    sold: Vec<(i64, i64)>,
    /// What the product was left with. If it has anything else, somebody else changed it.
    left: Left,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    stock: i64,
    held: i64,
    price: String,
}

/// The mark that an earlier release left in a product.
pub fn parse_mark(text: &str) -> Option<Mark> {
    let (time, event) = text.split_once('-')?;
    let at = (u64::from_str_radix(time, 16).ok()? ^ (1 << 63)) as i64;
    Some(Mark { moment: at, at: Some(at), place: None, event: Some(event.parse().ok()?) })
}

impl Mark {
    /// The mark of a person's change.
    pub fn of_person(moment: i64) -> Self {
        Self { moment, at: None, place: None, event: None }
    }

    /// Whether it wins over another: by the times that senders gave, else by the order of the log, else by
    /// when each was so.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        if self.event.is_some() && self.event == other.event {
            return false;
        }
        let in_log = match (&self.place, &other.place) {
            (Some(this), Some(other)) if this.log == other.log => Some(this.seq.cmp(&other.seq)),
            _ => None,
        };
        match (self.at, other.at, in_log) {
            (Some(this), Some(other), _) if this != other => return this > other,
            (Some(_), Some(_), Some(order)) => return order.is_gt(),
            (None, None, Some(order)) => {
                return order.is_gt() || self.moment > other.moment.saturating_add(CLOCKS_MS);
            }
            _ if self.moment != other.moment => return self.moment > other.moment,
            (_, _, Some(order)) => return order.is_gt(),
            (_, _, None) => (),
        }
        // at one moment a person is right, and of two events of different logs always the same
        match (self.event, other.event) {
            (Some(this), Some(other)) => this > other,
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

impl Counted {
    /// The memory of a product. What somebody else changed, who keeps none, is taken as changed at `changed`.
    pub fn of(schema: &Schema, row: &Row, changed: Timestamp) -> Self {
        let left = Left::of(schema, row);
        let kept = match schema.get(row, FIELD) {
            Value::Json(json) => serde_json::from_str::<Self>(json.as_str()).ok(),
            _ => None,
        };
        let Some(mut kept) = kept else {
            // a product of before this memory, or of another program
            let mark = schema.get(row, PRICED_BY).as_text().and_then(parse_mark);
            return Self {
                price: mark.clone(),
                stock: mark,
                unknown_until: Some(changed.0),
                left,
                ..Self::default()
            };
        };
        if (kept.left.stock, kept.left.held) != (left.stock, left.held) {
            kept.unknown_until = kept.unknown_until.max(Some(changed.0));
            if kept.left.held == left.held {
                // it was counted; where holds were given back, the same pieces are missing still
                kept.short = 0;
            }
        }
        if kept.left.price != left.price {
            kept.price = Some(Mark::of_person(changed.0));
        }
        Self { left, ..kept }
    }

    /// Writes the memory into a product, as it is left.
    pub fn write(mut self, schema: &Schema, row: &mut Row) {
        self.left = Left::of(schema, row);
        if let Ok(json) = serde_json::to_value(&self) {
            schema.set(row, FIELD, Value::Json(Json::from_value(&json)));
        }
    }

    /// The price is that of a change now, where that is the newest. Says whether it is.
    pub fn price(&mut self, mark: &Mark) -> bool {
        let newest = self.price.as_ref().is_none_or(|last| mark.is_newer_than(last));
        if newest {
            self.price = Some(no_earlier(mark, self.price.as_ref()));
        }
        newest
    }

    /// So many pieces were counted; none where something newer is known, else what can be had.
    pub fn count(&mut self, mark: &Mark, pieces: i64) -> Option<i64> {
        if self.stock.as_ref().is_some_and(|last| !mark.is_newer_than(last)) {
            return None;
        }
        // a sale of the same millisecond may have been after the count
        let since = self.sold.iter().filter(|(at, _)| *at >= mark.moment);
        let sold = since.fold(0_i64, |sum, (_, pieces)| sum.saturating_add(*pieces));
        let mut free = pieces.saturating_sub(self.left.held).saturating_sub(sold);
        if self.unknown_until.is_some_and(|until| mark.moment <= until) {
            // not all that was sold after the count is known: it adds nothing
            free = free.min(self.left.stock.saturating_sub(self.short));
        }
        self.counted(mark);
        Some(self.leave(free))
    }

    /// What can be had once pieces were given back, or taken: those that are missing come first.
    pub fn give(&mut self, stock: i64, pieces: i64) -> i64 {
        let free = stock.saturating_add(pieces).saturating_sub(self.short);
        self.leave(free)
    }

    /// So many pieces were sold now.
    pub fn sell(&mut self, pieces: i64, now: Timestamp) {
        let last = self.sold.last().map_or(i64::MIN, |(at, _)| *at);
        let at = self.stock.as_ref().map_or(last, |mark| last.max(mark.moment)).max(now.0);
        match self.sold.last_mut() {
            Some((same, sum)) if *same == at => *sum = sum.saturating_add(pieces),
            _ => self.sold.push((at, pieces)),
        }
        if self.sold.len() > SOLD_MAX {
            self.merge();
        }
    }

    /// The stock is that of a change now. What was sold before it is forgotten, as far as no count that may
    /// still win was before.
    fn counted(&mut self, mark: &Mark) {
        let mark = no_earlier(mark, self.stock.as_ref());
        // the moment of the next may be earlier: by the log, or by the time of a sender whose clock is ahead
        let from = mark.moment.saturating_sub(CLOCKS_MS);
        let known = self.sold.len();
        self.sold.retain(|(at, _)| *at >= from);
        if self.sold.len() < known {
            self.unknown_until = self.unknown_until.max(Some(from.saturating_sub(1)));
        }
        self.stock = Some(mark);
    }

    fn leave(&mut self, free: i64) -> i64 {
        self.short = free.min(0).saturating_neg();
        free.max(0)
    }

    /// Makes one of two sales that follow each other: those whose pieces are fewest, next to all that were
    /// sold after them. Their time is the later, so a count between them sells that many fewer at most.
    fn merge(&mut self) {
        let (mut later, mut fewest) = (1.0, (f64::INFINITY, None));
        for (index, pair) in self.sold.windows(2).enumerate().rev() {
            if let [(_, one), (_, next)] = pair {
                let part = (*one as f64 + *next as f64) / later;
                if part < fewest.0 {
                    fewest = (part, Some(index));
                }
                later += *next as f64;
            }
        }
        if let Some(index) = fewest.1 {
            let (_, pieces) = self.sold.remove(index);
            if let Some((_, sum)) = self.sold.get_mut(index) {
                *sum = sum.saturating_add(pieces);
            }
        }
    }
}

/// What a person's change makes of a product: who says the stock counts the pieces at this moment, those that
/// orders hold included. A whole record that is sent back with the stock that it has leaves it.
pub fn on_write(schema: &Schema, before: Option<&Row>, after: &mut Row, wrote: Wrote<'_>, now: Timestamp) {
    let says = |field: &str| match wrote {
        Wrote::Created | Wrote::Replaced => true,
        Wrote::Patched(fields) => schema.index_of(field).is_some_and(|index| fields.contains(&index)),
    };
    let mut memory = before.map_or_else(Counted::default, |before| Counted::of(schema, before, now));
    let (mark, said) = (Mark::of_person(now.0), holds::stock(schema, after));
    if before.is_none() {
        // a record without a stock is one that waits for its events
        let counted = (said != 0).then_some(mark);
        (memory.price, memory.stock) = (counted.clone(), counted);
        return memory.write(schema, after);
    }
    if says("price") {
        memory.price = Some(no_earlier(&mark, memory.price.as_ref()));
    }
    if says("stock") {
        let sent_back = matches!(wrote, Wrote::Replaced) && said == memory.left.stock;
        memory.counted(&mark);
        if !sent_back {
            let free = memory.leave(said.saturating_sub(memory.left.held));
            schema.set(after, "stock", Value::Int(free));
        }
    }
    memory.write(schema, after);
}

/// The mark, no earlier than the one before it.
fn no_earlier(mark: &Mark, before: Option<&Mark>) -> Mark {
    Mark { moment: before.map_or(mark.moment, |before| before.moment.max(mark.moment)), ..mark.clone() }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Left {
    fn of(schema: &Schema, row: &Row) -> Self {
        let price = match schema.get(row, "price") {
            Value::Decimal(price) => price.normalize(),
            _ => Decimal::ZERO,
        };
        Self { stock: holds::stock(schema, row), held: holds::held(schema, row), price: price.to_string() }
    }
}

#[cfg(test)]
mod tests;
