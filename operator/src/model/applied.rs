//! What became of a plan.

use super::{child::Live, error::Error};

/// What was done.
pub struct Applied {
    /// The children as they are now.
    pub children: Vec<Live>,
    /// Whether all of it succeeded; the steps after a failure were not tried.
    pub outcome: Result<(), Error>,
    /// Whether to look again soon: something looks as if what was just done to it had not been.
    pub again: bool,
    /// Whether anything was done.
    pub changed: bool,
}
