//! Which records of a pool are known to be unreadable: those that reads came by, until a read finds them well
//! or a change mends them.

use std::collections::HashMap;

use parking_lot::Mutex;

use model::{
    key::Key,
    query::Page,
    record::{Lookup, Named},
};

/// The records that are known to be unreadable. Bounded: of more than that it is only known that there are so
/// many at least.
#[derive(Debug, Default)]
pub struct Oddities {
    known: Mutex<HashMap<Option<String>, String>>,
}

/// The most records that are remembered.
const KNOWN_MAX: usize = 10_000;

impl Oddities {
    /// How many are known.
    pub fn count(&self) -> u64 {
        self.known.lock().len() as u64
    }

    /// One of them and the field that cannot be read, to name it where there is room for one.
    pub fn example(&self) -> Option<Named> {
        let known = self.known.lock();
        let (key, field) = known.iter().min()?;
        Some(Named { key: key.clone(), field: field.clone() })
    }

    /// Notes what a page showed.
    pub fn note_page(&self, page: &Page) {
        page.unreadable.iter().for_each(|named| self.note(named));
        self.forget(page.records.iter().map(|record| &record.key));
    }

    /// Notes what the store said of some keys.
    pub fn note_all(&self, keys: &[Key], found: &[Lookup]) {
        for (key, found) in keys.iter().zip(found) {
            match found {
                Lookup::Unreadable(unreadable) => self.note(&unreadable.named()),
                Lookup::Found(_) | Lookup::Deleted(_) | Lookup::Missing => self.forget([key]),
            }
        }
    }

    /// Notes that records are well, or gone.
    pub fn forget<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        let mut known = self.known.lock();
        if known.is_empty() {
            return;
        }
        for key in keys {
            known.remove(&Some(key.to_string()));
        }
    }

    fn note(&self, Named { key, field }: &Named) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(key) {
            return;
        }
        if known.insert(key.clone(), field.clone()).is_none() {
            tracing::warn!(key, field, "a stored record cannot be read");
        }
    }
}
