//! What people and tools put on a `FlyweightService` besides its spec, and what the operator does.

/// An annotation: when pods were last asked to be replaced. Any new value replaces them, one by one.
pub const RESTARTED_AT: &str = "flyweight.dev/restarted-at";
/// An annotation: `spec.replicas` as it was before `kubectl flyweight drain`; empty where there was none.
pub const REPLICAS_BEFORE_DRAIN: &str = "flyweight.dev/replicas-before-drain";
/// An annotation: `true` deletes the service without waiting for events that are not yet published.
pub const FORCE_DELETION: &str = "flyweight.dev/force-deletion";
/// The finalizer that keeps a deleted service until its events are published, for a minute at most. It guards no data.
pub const DRAIN_FINALIZER: &str = "flyweight.dev/drain";
