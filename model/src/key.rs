//! What a record is called, and which state of it.

use std::{fmt, str::FromStr};

/// Identifies a record in its collection: any text of at most 255 bytes, the empty one too, without NUL.
///
/// What other programs stored has such keys. The service itself makes, and lets clients choose for its own
/// entities, only plain ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Counts the changes of one key from 1, and only grows, also across a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Key {
    /// The longest key, in bytes.
    pub const MAX: usize = 255;
    /// The longest plain key, in bytes.
    pub const PLAIN_MAX: usize = 128;

    /// A new key that sorts by its time of making: a UUIDv7.
    pub fn generate() -> Self {
        Self(super::ids::next().to_string())
    }

    /// What keeps a text from being a plain key, which is safe in every path, topic and log as it is.
    pub fn plain_fault(text: &str) -> Option<String> {
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~:@-".contains(byte);
        let bytes = text.as_bytes();
        let plain = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= Self::PLAIN_MAX
            && bytes.iter().all(inner);
        let why = "must be 1 to 128 letters, digits and . _ ~ : @ -, the first a letter or digit";
        (!plain).then(|| why.to_owned())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > Self::MAX {
            return Err("must have at most 255 bytes".to_owned());
        }
        match text.contains('\0') {
            true => Err("holds a NUL character".to_owned()),
            false => Ok(Self(text)),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Version {
    /// The version after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
