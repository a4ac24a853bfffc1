//! The encryption of single values, as stores and shared caches see it.

/// Encrypts and decrypts values. The context (collection, key, field) is authenticated, so that a value cannot be moved to another place.
pub trait Sealer: Send + Sync {
    /// The sealed form of a plain value, as text.
    fn seal(&self, plain: &[u8], context: &str) -> String;

    /// The plain value of a sealed form.
    ///
    /// # Errors
    /// The text is not a sealed value of this context under a known key.
    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, SealError>;
}

/// A sealed value cannot be opened: it was altered, moved, or sealed under another key.
#[derive(Debug, thiserror::Error)]
#[error("an encrypted value cannot be read: it was altered or sealed under another key")]
pub struct SealError;
