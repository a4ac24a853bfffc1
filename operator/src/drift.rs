//! Drift: how an object in the cluster differs from what was applied. Pure.

use serde_json::Value;

mod compare;
pub mod foreign;

/// Whether a write would change something.
pub fn differs(wanted: &Value, live: &Value) -> bool {
    !compare::is_covered(wanted, live) || foreign::additions(wanted, live).is_some()
}

/// A merge patch that takes away what is there too much.
pub fn excess(wanted: &Value, live: &Value) -> Option<Value> {
    let (more, added) = (compare::excess(wanted, live), foreign::additions(wanted, live));
    match (more, added) {
        (Some(mut more), Some(added)) => {
            foreign::join(&mut more, added);
            Some(more)
        }
        (more, added) => more.or(added),
    }
}
