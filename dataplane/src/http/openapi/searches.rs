//! The operations over all pools: the audit, the repositories, searches by specification.

use serde_json::{Value as Json, json};

use super::{operation::Operation, schemas::any_key};
use crate::{
    http::router::BASE,
    service::list::{LIMIT_DEFAULT, LIMIT_MAX},
};

/// The operations.
pub fn operations() -> Vec<Operation> {
    let get = |path: &str, id, summary| Operation::get(format!("{BASE}{path}"), id, summary).guarded();
    let described = repository();
    vec![
        audit(),
        audit_export(),
        get("/repositories", "listRepositories", "The types of repositories").gives(
            200,
            "What each is and can do.",
            json!({
                "type": "object", "required": ["repositories"],
                "properties": { "repositories": { "type": "array", "items": described } },
            }),
        ),
        get("/repositories/{type}", "getRepository", "One type of repository")
            .in_path(
                "type",
                json!({ "type": "string", "enum": ["mysql", "mongodb", "cached", "specification"] }),
            )
            .fails(&[404])
            .gives(200, "What it is and can do.", described.clone()),
        Operation::post(format!("{BASE}/repositories/query"), "query", "Search by specification")
            .guarded()
            .fails(&[404, 408, 413, 415, 422])
            .takes(search())
            .gives(200, "A page of records, or their number.", found()),
    ]
}

fn limit() -> Json {
    json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT })
}

fn audit_entry() -> Json {
    let record = |about: &str| json!({ "type": ["object", "null"], "description": about });
    json!({
        "type": "object",
        "required": ["id", "at", "actor", "entity", "key", "action", "version", "before", "after"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "at": { "type": "string", "format": "date-time" },
            "actor": { "type": "string" },
            "entity": { "type": "string" },
            "key": any_key(),
            "action": { "type": "string", "enum": ["created", "updated", "deleted"] },
            "version": { "type": "integer", "minimum": 1 },
            "before": record("The record before, encrypted fields masked."),
            "after": record("The record after, encrypted fields masked."),
        },
    })
}

fn audit() -> Operation {
    let page = json!({
        "type": "object",
        "required": ["items", "limit", "next_cursor"],
        "properties": {
            "items": { "type": "array", "items": audit_entry() },
            "limit": { "type": "integer" },
            "next_cursor": { "type": ["string", "null"] },
        },
    });
    audited(Operation::get(format!("{BASE}/audit"), "listAudit", "Who changed what and when, oldest first"))
        .query("limit", "The most entries of a page.", limit())
        .query("cursor", "The `next_cursor` of the page before.", json!({ "type": "string", "minLength": 1 }))
        .gives(200, "A page.", page)
}

fn audit_export() -> Operation {
    let path = format!("{BASE}/audit/export");
    audited(Operation::get(
        path,
        "exportAudit",
        "The audit as lines of JSON, oldest first, streamed to its end",
    ))
    .gives_as(200, "One entry a line.", "application/x-ndjson", audit_entry())
}

/// What a question to the audit takes.
fn audited(operation: Operation) -> Operation {
    let text = || json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    operation
        .guarded()
        .fails(&[404])
        .query("entity", "Of one entity, or pool.", text())
        .query("id", "Of one record.", any_key())
        .query("actor", "By one caller.", text())
        .query("since", "Not before this time.", json!({ "type": "string", "format": "date-time" }))
}

fn repository() -> Json {
    let entity = json!({
        "type": "object",
        "required": ["name", "entity", "path", "backend"],
        "properties": {
            "name": { "type": "string" }, "entity": { "type": "string" }, "path": { "type": "string" },
            "backend": { "type": "string" },
        },
    });
    json!({
        "type": "object",
        "required": ["type", "description", "features", "health", "entities"],
        "properties": {
            "type": { "type": "string" },
            "description": { "type": "string" },
            "features": { "type": "array", "items": { "type": "string" } },
            "health": { "type": ["string", "null"], "enum": ["healthy", "degraded", "unhealthy", null] },
            "entities": { "type": "array", "items": entity },
        },
    })
}

/// The repository that a request is about.
pub fn named_repository() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 63, "description": "The name of a pool, or its entity." })
}

/// The specification of a field `where`.
pub fn specification() -> Json {
    let about = "{field, op, value}, with op one of eq, ne, lt, lte, gt, gte, in, like, between, is_null; joined by \
                 {and: [...]}, {or: [...]}, {not: {...}}. All records where it is left out.";
    json!({ "type": ["object", "null"], "description": about })
}

fn search() -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["repository"],
        "properties": {
            "repository": named_repository(),
            "where": specification(),
            "order_by": {
                "type": ["array", "null"], "maxItems": 8, "items": { "type": "string" },
                "description": "Names of fields; a leading - is descending.",
            },
            "limit": {
                "type": "integer", "minimum": 1, "maximum": LIMIT_MAX,
                "description": format!("{LIMIT_DEFAULT} where it is left out."),
            },
            "cursor": { "type": ["string", "null"] },
            "count_only": { "type": "boolean", "description": "Their number alone; false where it is left out." },
        },
    })
}

fn found() -> Json {
    json!({
        "type": "object",
        "required": ["total"],
        "properties": {
            "items": { "type": "array", "items": { "type": "object", "additionalProperties": true } },
            "total": { "type": "integer", "minimum": 0 },
            "limit": { "type": "integer", "minimum": 1 },
            "offset": { "type": "integer", "minimum": 0 },
            "next_cursor": { "type": ["string", "null"] },
        },
    })
}
