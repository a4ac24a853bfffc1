//! What people and tools put on a `FlyweightService` besides its spec, and what the operator does.

/// An annotation: when pods were last asked to be replaced. Any new value replaces them, one by one.
pub const RESTARTED_AT: &str = "flyweight.dev/restarted-at";
/// An annotation: `spec.replicas` as it was before `kubectl flyweight drain`; empty where there was none.
pub const REPLICAS_BEFORE_DRAIN: &str = "flyweight.dev/replicas-before-drain";
/// An annotation: `true` deletes the service without waiting for events that are not yet published.
pub const FORCE_DELETION: &str = "flyweight.dev/force-deletion";
/// An annotation: how the names are made that the spec leaves out. The operator puts [`NAMESPACED`] on each
/// service that is new to it; one without it ran before that, and keeps the names that it had.
pub const NAMES: &str = "flyweight.dev/names";
/// The value of [`NAMES`]: of namespace and service.
pub const NAMESPACED: &str = "namespaced";
/// An annotation: what becomes of passwords that others can read, on the way or in the spec, where the spec
/// allows none. The operator puts [`REFUSED`] on each service that is new to it; one without it ran before
/// that, and is warned.
pub const PLAINTEXT: &str = "flyweight.dev/plaintext";
/// The value of [`PLAINTEXT`]: they are refused.
pub const REFUSED: &str = "refused";
/// An annotation: `<namespace>/<name>` of the service whose keys and topics this one takes over, after a
/// rename or a move.
pub const TAKE_OVER_FROM: &str = "flyweight.dev/take-over-from";
/// The finalizer that keeps a deleted service until its events are published, for a minute at most. It guards
/// no data.
pub const DRAIN_FINALIZER: &str = "flyweight.dev/drain";
