//! How the answers of several groups become one.

/// How values of one place in several JSON documents are joined.
#[derive(Debug)]
pub enum Rule {
    /// The first that is not null.
    First,
    /// The last that is not null.
    Last,
    /// The sum of the numbers.
    Sum,
    /// The greatest number, or the last text by its order: times of one form.
    Greatest,
    /// The least text by its order; null where one is null.
    Least,
    /// Whether all are true.
    All,
    /// Whether any is true.
    Some,
    /// The worst of `healthy`, `degraded` and `unhealthy`; null says nothing.
    Worst,
    /// The texts, one after another with a plus between them.
    Chain,
    /// The part of `hits` in the object's joined `hits` and `misses`.
    HitRate,
    /// One list of all elements. Those that have the same value of a member (or, without a name, are the
    /// same) are joined by the rule.
    List(&'static str, &'static Rule),
    /// One map of all members; those of one name are joined by the rule.
    Map(&'static Rule),
    /// An object whose named members have rules of their own; the others are joined as [`Self::First`].
    Object(&'static [(&'static str, Rule)]),
    /// As [`Self::Object`], and it says how things are (`status`, `checks`): it says so of a group that is
    /// away too. The number is the answer's status then.
    Report(&'static [(&'static str, Rule)], u16),
    /// A page of entries with `at` and `id`, in that order, cut where the first of the pages ends.
    Page,
    /// Lines of JSON with `at` and `id`, in that order.
    Lines,
}

/// What memory holds and the tiers did.
const TOTALS: Rule = Rule::Object(&[
    ("flyweights", Rule::Sum),
    ("shared", Rule::Sum),
    ("unshared", Rule::Sum),
    ("entities", Rule::Sum),
    ("bytes", Rule::Sum),
    ("bytes_saved", Rule::Sum),
    ("hits", Rule::Sum),
    ("misses", Rule::Sum),
    ("evictions", Rule::Sum),
    ("hit_rate", Rule::HitRate),
    ("last_cleanup", Rule::Greatest),
]);

const BY_NAME: Rule = Rule::List("name", &Rule::First);
const CHECKS: Rule = Rule::Map(&Rule::Object(&[("status", Rule::Worst)]));

/// `GET /pools`
pub const POOLS: Rule = Rule::Object(&[("pools", BY_NAME)]);
/// `GET /schemas`
pub const SCHEMAS: Rule = Rule::Object(&[("schemas", Rule::List("", &Rule::First))]);
/// `GET /factory/stats`
pub const FACTORY: Rule = Rule::Object(&[("total", TOTALS), ("pools", Rule::Map(&Rule::First))]);
/// `GET /repositories/cache/stats`
pub const CACHES: Rule = Rule::Object(&[
    ("hits", Rule::Sum),
    ("misses", Rule::Sum),
    ("hit_rate", Rule::HitRate),
    ("repositories", Rule::Map(&Rule::First)),
]);
/// `POST /factory/cleanup`
pub const CLEANED: Rule = Rule::Object(&[("removed", Rule::Sum), ("remaining", Rule::Sum)]);
/// `POST /factory/warm` and `POST /repositories/cache/warm`
pub const WARMED: Rule =
    Rule::Object(&[("loaded", Rule::Sum), ("entities", Rule::Sum), ("complete", Rule::All)]);
/// `GET /repositories/{type}`
pub const REPOSITORY: Rule = Rule::Object(&[("entities", BY_NAME), ("health", Rule::Worst)]);
/// `GET /repositories`
pub const REPOSITORIES: Rule = Rule::Object(&[("repositories", Rule::List("type", &REPOSITORY))]);
/// `GET /health`
pub const HEALTH: Rule = Rule::Report(
    &[
        ("status", Rule::Worst),
        ("checks", CHECKS),
        ("unavailable", Rule::Map(&Rule::First)),
        ("factory", TOTALS),
        ("queues", Rule::Object(&[("outbox", Rule::Map(&OUTBOX))])),
    ],
    503,
);
/// `GET /figures`
pub const FIGURES: Rule = Rule::Report(
    &[
        // counters begin anew where one of the processes does
        ("process", Rule::Chain),
        ("status", Rule::Worst),
        ("checks", CHECKS),
        ("pools", BY_NAME),
        ("outboxes", Rule::List("backend", &OUTBOX)),
        (
            "live",
            Rule::Object(&[
                ("connections", Rule::Sum),
                ("sent", Rule::Sum),
                ("refused", Rule::Sum),
                ("resyncs", Rule::Sum),
            ]),
        ),
    ],
    200,
);
/// All groups see the same outbox of a store, and each publishes a part of it.
const OUTBOX: Rule = Rule::Object(&[
    ("backlog", Rule::Greatest),
    ("events", Rule::Greatest),
    ("oldest_ms", Rule::Greatest),
    ("published", Rule::Sum),
]);
/// `GET /openapi.json`
pub const OPENAPI: Rule = Rule::Object(&[
    ("paths", Rule::Map(&Rule::Map(&Rule::First))),
    ("components", Rule::Map(&Rule::Map(&Rule::First))),
    ("tags", BY_NAME),
]);
/// `POST /dead-letters/replay`: what one group has replayed is gone for the next, so the last one knows what
/// could not be.
pub const REPLAYED: Rule = Rule::Object(&[
    ("replayed", Rule::Sum),
    ("failed", Rule::Last),
    ("more", Rule::Some),
    ("next_cursor", Rule::Least),
]);
