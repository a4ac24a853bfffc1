//! What a caller asks of a record's version before it is changed.

use super::error::ServiceError;
use model::{change::Guard, key::Version};

/// What a record's version must be before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is asked.
    None,
    /// The record is there (`If-Match: *`).
    Present,
    /// The record has one of these versions (`If-Match`).
    OneOf(Vec<Version>),
    /// The record is not there (`If-None-Match: *`).
    Absent,
    /// The record has none of these versions (`If-None-Match`).
    NoneOf {
        /// The versions.
        versions: Vec<Version>,
        /// It must be there, too (`If-Match: *`).
        present: bool,
    },
}

impl Precondition {
    /// Whether a record of this version may be changed.
    ///
    /// # Errors
    /// `Stale` where it may not.
    pub fn check(&self, current: Version) -> Result<(), ServiceError> {
        let holds = match self {
            Self::None | Self::Present => true,
            Self::OneOf(versions) => versions.contains(&current),
            Self::Absent => false,
            Self::NoneOf { versions, .. } => !versions.contains(&current),
        };
        if holds { Ok(()) } else { Err(ServiceError::Stale { current }) }
    }

    /// The guard that says the same to a store; none where only a look at the record can tell.
    pub fn guard(&self) -> Option<Guard> {
        match self {
            Self::None | Self::Present => Some(Guard::Any),
            Self::OneOf(versions) => match versions.as_slice() {
                [version] => Some(Guard::Exactly(*version)),
                _ => None,
            },
            Self::Absent | Self::NoneOf { .. } => None,
        }
    }
}
