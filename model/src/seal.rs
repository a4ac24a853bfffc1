//! The encryption of single values, as stores and shared caches see it.

/// Encrypts and decrypts values. The context (collection, key, field) is authenticated, so that a value
/// cannot be moved to another place.
pub trait Sealer: Send + Sync {
    /// The sealed form of a plain value, as text.
    fn seal(&self, plain: &[u8], context: &str) -> String;

    /// The plain value of a sealed form.
    ///
    /// # Errors
    /// The text is not a sealed value of this context under a known key.
    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, SealError>;

    /// The ids of its keys, which tell nothing of them: first that of the key that seals. None where keys are
    /// of no account.
    fn key_ids(&self) -> Vec<String> {
        Vec::new()
    }

    /// The id of the key of a sealed value.
    fn key_of(&self, _sealed: &str) -> Option<String> {
        None
    }

    /// What every sealed value starts with.
    fn form(&self) -> &'static str {
        ""
    }

    /// What values start with that are sealed under each of its keys; few others do.
    fn own_forms(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A sealed value cannot be opened: it was altered, moved, or sealed under another key.
#[derive(Debug, thiserror::Error)]
#[error("an encrypted value cannot be read: it was altered or sealed under another key")]
pub struct SealError;
