//! The operations on what the pools hold: what `factory::routes` routes, and the dashboard's figures.

use serde_json::{Value as Json, json};

use super::{
    operation::Operation,
    schemas::any_key,
    searches::{named_repository, specification},
};
use crate::http::{params::IDS_MAX, router::BASE};

const TAG: &str = "factory";

/// The operations.
pub fn operations() -> Vec<Operation> {
    let name = || json!({ "type": ["string", "null"], "maxLength": 63, "description": "All pools where it is left out." });
    let idle_after =
        json!({ "type": ["string", "null"], "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$", "examples": ["30s"] });
    let mode = json!({ "type": ["string", "null"], "enum": ["All", "Recent", "Peers", null] });
    let ids = json!({ "type": ["array", "null"], "maxItems": IDS_MAX, "items": any_key() });
    let post = |path: &str, id, summary| Operation::post(format!("{BASE}{path}"), id, summary).tag(TAG);
    let cleaned = json!({ "removed": count(), "remaining": count() });
    let warmed = || {
        let about = "Whether it came to its end within its time; what was loaded by then stays.";
        json!({ "loaded": count(), "entities": count(), "complete": { "type": "boolean", "description": about } })
    };
    vec![
        Operation::get(
            format!("{BASE}/factory/stats"),
            "factoryStats",
            "What the pools hold and what sharing saves",
        )
        .tag(TAG)
        .guarded()
        .gives(200, "In total and for each pool.", stats()),
        changes(post("/factory/cleanup", "cleanUp", "Drop what was idle"))
            .may_take(object(json!({ "pool": name(), "idle_after": idle_after }), &[]))
            .gives(200, "What was dropped.", whole(cleaned)),
        changes(post("/factory/warm", "warmUp", "Load ahead of the reads"))
            .may_take(object(json!({ "pool": name(), "mode": mode }), &[]))
            .gives(200, "What was loaded.", whole(warmed())),
        Operation::get(format!("{BASE}/repositories/cache/stats"), "cacheStats", "What the tiers did")
            .tag(TAG)
            .guarded()
            .gives(200, "In total and for each pool.", cache_stats()),
        changes(post(
            "/repositories/cache/warm",
            "warmCache",
            "Load records of one pool, or without a body of all, ahead of the reads",
        ))
        .may_take(object(
            json!({ "repository": named_repository(), "ids": ids, "where": specification() }),
            &["repository"],
        ))
        .fails(&[422])
        .gives(200, "What was loaded.", whole(warmed())),
        Operation::get(
            format!("{BASE}/figures"),
            "figures",
            "What the dashboard shows: counters of this process",
        )
        .tag(TAG)
        .guarded()
        .gives(200, "The counters.", json!({ "type": ["object", "null"] })),
    ]
}

fn changes(operation: Operation) -> Operation {
    operation.guarded().fails(&[408, 413, 415, 504, 507])
}

fn count() -> Json {
    json!({ "type": "integer", "minimum": 0 })
}

fn share() -> Json {
    json!({ "type": "number", "minimum": 0, "maximum": 1 })
}

fn object(properties: Json, required: &[&str]) -> Json {
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

/// An object that has all of these members.
fn whole(properties: Json) -> Json {
    let names: Vec<String> =
        properties.as_object().into_iter().flat_map(|members| members.keys().cloned()).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn totals() -> Json {
    json!({
        "flyweights": count(), "shared": count(), "unshared": count(), "entities": count(), "bytes": count(),
        "bytes_saved": { "type": "integer" }, "hit_rate": share(), "hits": count(), "misses": count(),
        "evictions": count(), "last_cleanup": { "type": ["string", "null"], "format": "date-time" },
    })
}

fn stats() -> Json {
    let mut pool = totals();
    let tier =
        json!({ "name": { "type": "string" }, "hit_rate": share(), "hits": count(), "misses": count() });
    pool["tiers"] = json!({ "type": "array", "items": whole(tier) });
    pool["roles"] = json!({ "type": ["object", "null"], "description": "Which fields are shared, as measured, and why." });
    whole(
        json!({ "total": whole(totals()), "pools": { "type": "object", "additionalProperties": whole(pool) } }),
    )
}

fn cache_stats() -> Json {
    let pool = whole(
        json!({ "tiers": { "type": "array", "items": { "type": "object", "additionalProperties": true } }, "loads": count() }),
    );
    let repositories = json!({ "type": "object", "additionalProperties": pool });
    whole(json!({ "hits": count(), "misses": count(), "hit_rate": share(), "repositories": repositories }))
}
