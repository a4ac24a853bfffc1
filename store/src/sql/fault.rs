//! What can go wrong with a statement, and which `StoreError` it means.
//!
//! `Unavailable` says that nothing was changed and the same call may succeed later. `Unknown` is said in one
//! place only: the server was asked to commit and no answer came.

use super::StoreError;
use crate::confined::{PoolFault, PoolReason};

/// Why text is refused that its column's character set does not have.
pub const UNHELD: &str = "holds characters that its column cannot hold";

/// Why a statement failed.
#[derive(Debug)]
pub enum Fault {
    /// Another transaction was in the way and this one was given up: it may be done again from its start.
    Conflict(String),
    /// A unique index has the value already: the server's name for it, `index` or `table.column`.
    Taken(String),
    /// The connection is gone, or could not be had in time.
    Lost(String),
    /// Another transaction came first: looked at again, the change may go well, and if not, this is why.
    Raced(StoreError),
    /// The database refuses the values of a write: why, and the column that it names, if any. Of anything but
    /// a write it is a fault of the store.
    Refused {
        /// In our own words.
        why: &'static str,
        /// The column's name.
        column: Option<String>,
    },
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    /// For what did not commit anything.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Conflict(why) | Fault::Lost(why) => Self::Unavailable(why),
            Fault::Taken(index) => Self::Duplicate { field: index },
            Fault::Refused { why, .. } => {
                Self::Setup(format!("the database refuses what it was sent: {why}"))
            }
            Fault::Raced(error) | Fault::Store(error) => error,
        }
    }
}

/// A table cannot be used as it is.
pub(super) fn unprepared(reason: PoolReason, message: String) -> Fault {
    Fault::Store(StoreError::Unprepared(PoolFault::new(reason, message)))
}
