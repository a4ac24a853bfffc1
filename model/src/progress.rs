//! How far the pipeline is with an order: kept in the order itself, so that every step changes both at once.

use serde::{Deserialize, Serialize};

use super::{
    schema::Schema,
    value::{Json, Row, Timestamp, Value},
};

/// The most steps that are remembered; the oldest but the first go.
const STEPS_MAX: usize = 64;
/// The most characters of a step's detail.
const DETAIL_MAX: usize = 300;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stock is held.
    #[default]
    Orders,
    /// The customer is charged.
    Payments,
    /// Holds are committed, or everything is given back.
    Inventory,
    /// The customer is told.
    Notifications,
    /// There is nothing more to do.
    Done,
}

/// How an order ends other than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It could not be fulfilled.
    Failed,
    /// Somebody called it off.
    Cancelled,
}

/// How far the pipeline is with an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The stage that is next.
    pub stage: Stage,
    /// Set once the order will not be fulfilled: the next stage gives back what was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the holds are being turned into sales: from then on it cannot be called off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sold: bool,
    /// Failed attempts at this stage.
    pub attempts: u32,
    /// The dead letter that stands for it: the pipeline leaves it alone until that is replayed or dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
    /// The trace of the request that placed the order: 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The key of its payment, and of its charge at the provider: random, so that nobody outside can name
    /// either before it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge: Option<String>,
    /// The name of the charge at the provider where that is another: an older version may have begun one
    /// under it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charged_as: Option<String>,
    /// What happened, in order.
    pub timeline: Vec<Step>,
}

/// Something that happened to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When: RFC 3339 with milliseconds.
    pub at: String,
    /// In which stage.
    pub stage: Stage,
    /// What: `stock_held`, `charged`, `attempt_failed`.
    pub event: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Stage {
    /// Those that have workers, in order.
    pub const ALL: [Self; 4] = [Self::Orders, Self::Payments, Self::Inventory, Self::Notifications];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Inventory => "inventory",
            Self::Notifications => "notifications",
            Self::Done => "done",
        }
    }

    /// Where an order of this status most likely is, as far as its event tells. One that has ended is done:
    /// whoever ended it goes on to its message, and a sweep finds it where that process was lost.
    pub fn of_status(status: &str) -> Self {
        match status {
            "pending" => Self::Orders,
            "processing" => Self::Payments,
            "paid" => Self::Inventory,
            "completed" | "failed" | "cancelled" => Self::Done,
            _ => Self::Notifications,
        }
    }
}

impl Ending {
    /// The status of an order that ended so.
    pub fn status(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Progress {
    /// The progress of an order; of one that the pipeline has not seen, none at all.
    pub fn of(schema: &Schema, row: &Row) -> Self {
        match schema.get(row, "progress") {
            Value::Json(json) => serde_json::from_str(json.as_str()).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Notes that something happened in the present stage.
    pub fn note(&mut self, event: &str, detail: Option<String>) {
        let detail = detail.map(|text| text.chars().take(DETAIL_MAX).collect());
        let at = Timestamp::now().to_string();
        self.timeline.push(Step { at, stage: self.stage, event: event.to_owned(), detail });
        if self.timeline.len() > STEPS_MAX {
            self.timeline.remove(1);
        }
    }

    /// Goes on to a stage.
    pub fn advance(&mut self, stage: Stage) {
        (self.stage, self.attempts, self.parked) = (stage, 0, None);
    }

    /// Gives the order up: what was taken is given back next.
    pub fn end(&mut self, ending: Ending, reason: &str) {
        self.note(ending.status(), Some(reason.to_owned()));
        (self.ending, self.reason) = (Some(ending), Some(reason.to_owned()));
        self.advance(Stage::Inventory);
    }

    /// Whether nothing of the order is held or owed any more.
    pub fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Notifications | Stage::Done)
    }

    /// The order's row with this progress, looked at again at `due`, in this status.
    pub fn write(&self, schema: &Schema, row: &Row, due: Option<Timestamp>, status: Option<&str>) -> Row {
        let mut row = row.clone();
        if let Ok(json) = serde_json::to_value(self) {
            schema.set(&mut row, "progress", Value::Json(Json::from_value(&json)));
        }
        schema.set(&mut row, "due_at", due.map_or(Value::Null, Value::Time));
        if let Some(status) = status {
            schema.set(&mut row, "status", Value::Text(status.to_owned()));
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entities::order, json::parse_create};

    #[test]
    fn progress_is_kept_in_the_order() {
        let schema = order::schema();
        let body = br#"{"user_id":"u1","items":[{"product_id":"p1","quantity":1,"price":"2"}]}"#;
        let row = parse_create(&schema, body).unwrap().values;
        assert_eq!(Progress::of(&schema, &row), Progress::default());
        let mut progress = Progress { ending: Some(Ending::Failed), attempts: 2, ..Progress::default() };
        (0..2 * STEPS_MAX)
            .for_each(|n| progress.note("attempt_failed", Some(format!("{n} {}", "x".repeat(1_000)))));
        assert_eq!(progress.timeline.len(), STEPS_MAX);
        assert!(progress.timeline[0].detail.as_ref().unwrap().starts_with("0 "), "the first is kept");
        let row = progress.write(&schema, &row, Some(Timestamp(5)), Some("processing"));
        assert_eq!(Progress::of(&schema, &row), progress);
        assert_eq!(row.0[schema.internal_index_of("due_at").unwrap()], Value::Time(Timestamp(5)));
        assert_eq!(row.0[schema.index_of("status").unwrap()].as_text(), Some("processing"));
        progress.advance(Stage::Payments);
        assert_eq!((progress.attempts, progress.stage.name()), (0, "payments"));
    }

    #[test]
    fn an_event_tells_where_its_order_is() {
        let open = ["pending", "processing", "paid"].map(Stage::of_status);
        assert_eq!(open, [Stage::Orders, Stage::Payments, Stage::Inventory]);
        for ending in [Ending::Failed, Ending::Cancelled] {
            assert_eq!(Stage::of_status(ending.status()), Stage::Done, "nobody has to look at it");
        }
        assert_eq!(Stage::of_status("completed"), Stage::Done);
    }
}
