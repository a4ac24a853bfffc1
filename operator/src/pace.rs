//! How often things are looked at and said.

use std::time::Duration;

/// How often pods are asked what they run while everything is as it should be.
pub const SETTLED: Duration = Duration::from_secs(10);
/// The same where there is no pod to ask: whatever changes wakes the next reconcile.
pub const IDLE: Duration = Duration::from_secs(300);
/// The same while something is under way.
pub const UNDER_WAY: Duration = Duration::from_secs(2);
/// How often the status of a pool or tier is looked at without a change that wakes it.
pub const RECHECK: Duration = Duration::from_secs(30);
/// How soon to look again when a service has not been reconciled yet.
pub const SOON: Duration = Duration::from_secs(2);
/// How often a status may be written, or tried to be.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The same where only figures are new.
pub const FIGURES_EVERY: Duration = Duration::from_secs(30);
