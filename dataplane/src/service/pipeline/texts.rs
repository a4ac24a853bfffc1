//! The texts of messages: the templates of how orders end, kept for as long as no template changes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::service::{error::ServiceError, records::Records};
use model::{
    budget::Allowance,
    query::{Comparison, Filter, Query, Start},
    record::Record,
    schema::FieldRef,
    value::Value,
};

/// A subject and a body, as they are written in a template; none where there is no such template.
pub type Text = Option<(String, String)>;

/// How long a text is kept at most: an event of a change may be lost.
const KEPT: Duration = Duration::from_secs(5);

/// Texts that were read.
#[derive(Default)]
pub struct Texts(Mutex<Kept>);

/// What was read in a generation of the templates, by their names: as many as there are ways for an order to
/// end.
#[derive(Default)]
struct Kept {
    generation: u64,
    since: Option<Instant>,
    texts: HashMap<String, Text>,
}

impl Texts {
    /// The text of a template: as it was read before, if no template changed since. Another replica's change
    /// is known once its event arrives, as with lists; templates that are not cached are read each time.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, templates: &Records, name: &str) -> Result<Text, ServiceError> {
        let (generation, now) = (templates.generation(), Instant::now());
        let known = self.0.lock().get(generation, now, name).filter(|_| templates.is_cached());
        if let Some(text) = known {
            return Ok(text);
        }
        let text = read(templates, name).await?;
        self.0.lock().put(generation, now, name, text.clone());
        Ok(text)
    }
}

impl Kept {
    fn get(&self, generation: u64, now: Instant, name: &str) -> Option<Text> {
        let fresh = self.generation == generation && self.since.is_some_and(|since| now - since < KEPT);
        self.texts.get(name).filter(|_| fresh).cloned()
    }

    /// Keeps what was read since `now`, in this generation.
    fn put(&mut self, generation: u64, now: Instant, name: &str, text: Text) {
        if self.generation != generation || self.since.is_none_or(|since| now - since >= KEPT) {
            *self = Self { generation, since: Some(now), texts: HashMap::new() };
        }
        self.texts.insert(name.to_owned(), text);
    }
}

async fn read(templates: &Records, name: &str) -> Result<Text, ServiceError> {
    let schema = templates.schema();
    let Some(index) = schema.index_of("template") else { return Ok(None) };
    let filter = Filter::Compare(FieldRef::Field(index), Comparison::Eq, Value::Text(name.to_owned()));
    let query = Query {
        filter,
        order: Vec::new(),
        start: Start::Offset(0),
        limit: 1,
        count: false,
        allowance: Allowance::default(),
    };
    let page = templates.find(&query).await?;
    let text =
        |record: &Record, field| schema.get(&record.values, field).as_text().unwrap_or_default().to_owned();
    Ok(page.records.first().map(|record| (text(record, "subject"), text(record, "body"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_for_its_generation_and_a_short_time() {
        let (mut kept, begun) = (Kept::default(), Instant::now());
        let text = |body: &str| Some(("subject".to_owned(), body.to_owned()));
        assert_eq!(kept.get(0, begun, "order_failed"), None, "nothing was read yet");
        kept.put(1, begun, "order_failed", text("a"));
        kept.put(1, begun + KEPT / 2, "order_completed", None);
        assert_eq!(kept.get(1, begun + KEPT / 2, "order_failed"), Some(text("a")));
        assert_eq!(
            kept.get(1, begun + KEPT / 2, "order_completed"),
            Some(None),
            "that there is none is known too"
        );
        assert_eq!(kept.get(2, begun, "order_failed"), None, "a template changed");
        assert_eq!(kept.get(1, begun + KEPT, "order_completed"), None, "the time is that of the oldest");
        kept.put(2, begun, "order_failed", text("b"));
        assert_eq!(kept.get(2, begun, "order_completed"), None);
        assert_eq!(kept.get(2, begun, "order_failed"), Some(text("b")));
    }
}
