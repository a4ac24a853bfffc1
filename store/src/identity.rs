//! What a database says of itself: what identifies it, and under which keys its tables are encrypted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::StoreError;
use model::seal::Sealer;

/// What identifies a database. It is made at the first call and goes with the data: a copy has the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A text of its own.
    pub id: String,
    /// Whether the database was in use before it had an identity: then names outside were made of nothing,
    /// and stay so.
    #[serde(default)]
    pub bare: bool,
}

impl Identity {
    /// A new one.
    pub fn new(bare: bool) -> Self {
        Self { id: format!("{:012x}", rand::random::<u64>() >> 16), bare }
    }

    /// As it is kept.
    pub fn to_text(&self) -> String {
        // two plain fields are always JSON
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what is kept.
    ///
    /// # Errors
    /// Somebody changed it.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text)
            .map_err(|_| StoreError::Corrupt("the identity in flyweight_meta is none".to_owned()))
    }
}

/// What is noted of the keys of a table, and what its values have to say about it.
pub struct Keys<'a> {
    table: &'a str,
    known: BTreeSet<String>,
    own: Vec<String>,
    noted: bool,
}

impl<'a> Keys<'a> {
    /// The keys that are noted beside a table, before those of this process.
    pub fn new(table: &'a str, noted: Option<&str>, sealer: &dyn Sealer) -> Self {
        let known = noted.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Self { table, known, own: sealer.key_ids(), noted: noted.is_some() }
    }

    /// What values start with that have to be looked for. Where nothing is noted, any sealed one; where no
    /// own key is, those of own keys, since a key can be replaced while processes run; else nothing.
    pub fn wanted(&self, sealer: &dyn Sealer) -> Vec<String> {
        match (self.noted, self.own.iter().any(|id| self.known.contains(id))) {
            _ if self.own.is_empty() => Vec::new(),
            (false, _) => vec![sealer.form().to_owned()],
            (true, false) => sealer.own_forms(),
            (true, true) => Vec::new(),
        }
    }

    /// What is to be noted, given the keys of the values that were found; none where all of it is.
    ///
    /// # Errors
    /// `Unsupported` where the table is encrypted under other keys: its values could not be read with these.
    pub fn settle(self, found: BTreeSet<String>) -> Result<Option<String>, StoreError> {
        let Self { table, mut known, own, noted: _ } = self;
        let before = known.clone();
        known.extend(found);
        if own.is_empty() {
            return Ok(None);
        }
        if !known.is_empty() && !own.iter().any(|id| known.contains(id)) {
            return Err(mismatch(table, &known, &own));
        }
        known.extend(own);
        Ok((known != before).then(|| known.into_iter().collect::<Vec<_>>().join(" ")))
    }
}

fn mismatch(table: &str, known: &BTreeSet<String>, own: &[String]) -> StoreError {
    let known = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    StoreError::Unsupported(format!(
        "EncryptionKeyMismatch: table {table} is encrypted under the key {known}, and this service has {}: add the former key, on a \
         line below, to the Secret of the encryption key, or outside a cluster to its file",
        own.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::seal::SealError;

    /// Knows its keys, and nothing else.
    struct Ring(&'static [&'static str]);

    impl Sealer for Ring {
        fn seal(&self, _plain: &[u8], _context: &str) -> String {
            String::new()
        }

        fn open(&self, _sealed: &str, _context: &str) -> Result<Vec<u8>, SealError> {
            Err(SealError)
        }

        fn key_ids(&self) -> Vec<String> {
            self.0.iter().map(ToString::to_string).collect()
        }

        fn form(&self) -> &'static str {
            "sealed:"
        }

        fn own_forms(&self) -> Vec<String> {
            self.0.iter().map(|id| format!("sealed:{id}")).collect()
        }
    }

    fn settle(own: &Ring, noted: Option<&str>, found: &[&str]) -> Result<Option<String>, StoreError> {
        Keys::new("users", noted, own).settle(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_table_has_one_ring_of_keys() {
        let (one, two, both) = (Ring(&["k1"]), Ring(&["k2"]), Ring(&["k2", "k1"]));
        assert_eq!(settle(&one, None, &[]).unwrap().as_deref(), Some("k1"));
        assert_eq!(settle(&one, Some("k1"), &[]).unwrap(), None);
        assert_eq!(settle(&both, Some("k1"), &[]).unwrap().as_deref(), Some("k1 k2"));
        let refused = settle(&two, Some("k1"), &[]).unwrap_err().to_string();
        assert!(
            refused.contains("EncryptionKeyMismatch") && refused.contains("k1") && refused.contains("k2"),
            "{refused}"
        );
        assert!(settle(&two, None, &["k1"]).is_err(), "its values tell, where nothing is noted");
        assert_eq!(settle(&Ring(&[]), Some("k1"), &[]).unwrap(), None, "a service without encrypted fields");
    }

    #[test]
    fn a_key_that_was_replaced_while_all_ran_is_found_in_the_values() {
        let two = Ring(&["k2"]);
        assert_eq!(Keys::new("users", Some("k1"), &two).wanted(&two), ["sealed:k2"]);
        assert_eq!(settle(&two, Some("k1"), &["k2"]).unwrap().as_deref(), Some("k1 k2"));
        assert_eq!(Keys::new("users", None, &two).wanted(&two), ["sealed:"]);
        assert!(
            Keys::new("users", Some("k2"), &two).wanted(&two).is_empty(),
            "values are not looked at at each start"
        );
    }
}
