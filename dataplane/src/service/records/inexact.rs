//! Stored numbers that many readers of JSON round: found in what is read, told once each, and counted by
//! their columns.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use model::{
    change::Collection,
    record::Record,
    schema::{Field, JsonForm, Kind},
};

/// The declared columns of a pool whose whole numbers go out as JSON numbers.
pub struct Inexact {
    pool: String,
    columns: Vec<Column>,
}

struct Column {
    index: usize,
    name: String,
    seen: AtomicBool,
}

impl Inexact {
    /// Nothing was read yet. Columns of built-in entities have bounds of their own.
    pub fn of(collection: &Collection) -> Self {
        let fields = collection.schema.fields.iter().enumerate();
        let columns = fields
            .filter(|(_, field)| collection.declared && field.json == JsonForm::Number)
            .filter(|(_, field)| matches!(field.kind, Kind::Int { .. }))
            .map(|(index, field)| Column { index, name: field.name.clone(), seen: AtomicBool::new(false) });
        Self { pool: collection.pool.clone(), columns: columns.collect() }
    }

    /// Looks at a record that was read. Its values are not told.
    pub fn look(&self, collection: &Collection, record: &Record) {
        for Column { index, name, seen } in &self.columns {
            let beyond = |field: &Field| {
                record.values.0.get(*index).is_some_and(|value| field.is_beyond_doubles(value))
            };
            if seen.load(Ordering::Relaxed) || !collection.schema.fields.get(*index).is_some_and(beyond) {
                continue;
            }
            if !seen.swap(true, Ordering::Relaxed) {
                warn!(
                    pool = self.pool,
                    field = name,
                    "numbers beyond 2^53 are served as JSON numbers, which many readers round: say `json: String` at the field"
                );
            }
        }
    }

    /// The columns in which such numbers were read since the start.
    pub fn columns(&self) -> Vec<&str> {
        let seen = self.columns.iter().filter(|column| column.seen.load(Ordering::Relaxed));
        seen.map(|column| column.name.as_str()).collect()
    }
}
