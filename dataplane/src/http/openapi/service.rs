//! The operations that are there whichever pools are served: health, the feed, the pages.

use serde_json::{Value as Json, json};

use super::{
    operation::Operation,
    schemas::{any_key, pascal, reference},
};
use crate::http::{
    pages::{PAGES, Page},
    router::BASE,
};

/// The operations.
pub fn operations() -> Vec<Operation> {
    let mut operations = vec![pools(), events(), tickets()];
    operations.extend(PAGES.iter().map(page));
    operations.extend(event_schemas());
    for base in ["", BASE] {
        let below = if base.is_empty() { "" } else { "Below" };
        operations.extend(probes(base, below));
        operations.push(feed(base, below));
        let document =
            Operation::get(format!("{base}/openapi.json"), format!("openapi{below}"), "This document")
                .gives_nothing(304, "The client has it.");
        operations.push(document.gives(
            200,
            "An OpenAPI document.",
            json!({ "type": "object", "required": ["openapi", "paths"] }),
        ));
    }
    operations
}

/// The schemas that these refer to.
pub fn schemas() -> Vec<(String, Json)> {
    [
        ("Problem", problem()),
        ("Health", health()),
        ("Event", event()),
        ("Pools", pool_list()),
        ("Ticket", ticket()),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
    .into()
}

fn probes(base: &str, below: &str) -> [Operation; 3] {
    let text = || json!({ "type": "string", "const": "ok" });
    const PLAIN: &str = "text/plain";
    [
        Operation::get(format!("{base}/health"), format!("health{below}"), "The state of every part")
            .gives(200, "Requests are served.", reference("Health"))
            .gives(503, "A part without which requests fail does not answer.", reference("Health")),
        Operation::get(format!("{base}/livez"), format!("livez{below}"), "Whether the process runs")
            .gives_as(200, "It does.", PLAIN, text()),
        Operation::get(
            format!("{base}/readyz"),
            format!("readyz{below}"),
            "Whether requests may be sent here",
        )
        .gives_as(200, "They may.", PLAIN, text())
        .fails(&[503]),
    ]
}

fn page(page: &Page) -> Operation {
    let name: String = page.path.split(['/', '.', '-']).map(pascal).collect();
    let media = page.media.split(';').next().unwrap_or_default();
    Operation::get(page.path, format!("page{name}"), "A page, or a part of one")
        .tag("pages")
        .gives_as(200, "The file.", media, json!({ "type": "string" }))
        .gives_nothing(304, "The client has it.")
}

fn event_schemas() -> [Operation; 3] {
    let list = json!({
        "type": "object", "required": ["schemas"],
        "properties": { "schemas": { "type": "array", "items": { "type": "string" } } },
    });
    let schema = |path: &'static str, name: &'static str, what: &'static str| {
        Operation::get(path, name, what)
            .in_path("kind", json!({ "type": "string", "pattern": "^[a-z_]+$" }))
            .gives(
                200,
                "It; its version is the end of its `$id`.",
                json!({ "type": "object", "additionalProperties": true }),
            )
            .fails(&[404])
    };
    [
        Operation::get("/schemas", "listEventSchemas", "The paths of the schemas of events")
            .gives(200, "They.", list),
        schema("/schemas/{kind}", "eventSchema", "The newest JSON Schema of a type of event"),
        schema(
            "/schemas/{kind}/{version}",
            "eventSchemaVersion",
            "One version of the JSON Schema of a type of event",
        )
        .in_path("version", json!({ "type": "string", "pattern": "^[0-9]+$" })),
    ]
}

fn pools() -> Operation {
    Operation::get(format!("{BASE}/pools"), "listPools", "The pools that are served").guarded().gives(
        200,
        "Their names, entities and paths.",
        reference("Pools"),
    )
}

fn feed(base: &str, below: &str) -> Operation {
    subscribes(Operation::get(format!("{base}/ws"), format!("feed{below}"), "The live feed, as a WebSocket"))
        .gives_nothing(101, "The WebSocket; each text frame is an `Event`. It is closed with 4401 when the token ends, 4403 when the right to read does.")
        .fails(&[426])
}

fn events() -> Operation {
    let operation = Operation::get(
        format!("{BASE}/events/stream"),
        "streamEvents",
        "The live feed, as Server-Sent Events",
    );
    subscribes(operation)
        .header("Last-Event-ID", "The cursor of the last event that the client has.", json!({ "type": "string" }))
        .gives_as(200, "Events, each with its cursor as id; `{\"type\":\"closed\"}` is the last where the token or the right to read ends.", "text/event-stream", json!({ "type": "string" }))
}

fn tickets() -> Operation {
    let about = "A ticket for the feed, for browsers, which send no token there; it stands for the caller's";
    Operation::post(format!("{BASE}/ws/tickets"), "createTicket", about)
        .tag("events")
        .gives(201, "The ticket.", reference("Ticket"))
        .guarded()
}

fn subscribes(operation: Operation) -> Operation {
    let topics = "Entities, collections or event types, separated by commas.";
    operation
        .tag("events")
        .query("topics", topics, json!({ "type": "string" }))
        .query("user_id", "Only what concerns this user.", any_key())
        .query(
            "client_id",
            "A label for the log.",
            json!({ "type": "string", "minLength": 1, "maxLength": 128 }),
        )
        .query("since", "The cursor of the last event that the client has.", json!({ "type": "string" }))
        .query(
            "ticket",
            "A ticket of `POST /ws/tickets`, where no header has the token.",
            json!({ "type": "string" }),
        )
        .query(
            "access_token",
            "The token, where neither a header nor a ticket has it.",
            json!({ "type": "string" }),
        )
        .guarded()
        .fails(&[410])
}

fn problem() -> Json {
    json!({
        "type": "object",
        "description": "What was wrong, where, and what to do (RFC 9457).",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": { "type": "string", "pattern": "^urn:flyweight:problem:[a-z-]+$" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "instance": { "type": "string" },
            "trace_id": { "type": "string", "description": "The trace of the request, as in traceparent." },
            "request_id": { "type": "string", "description": "What the request is called in logs: the answer's Request-Id." },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": { "field": { "type": "string" }, "message": { "type": "string" } },
                },
            },
            "key": { "type": "string", "description": "The record that cannot be read; so also what follows." },
            "field": { "type": "string" },
            "stored_type": { "type": "string" },
            "length": { "type": "integer", "minimum": 0 },
            "version": { "type": "integer", "minimum": 0, "description": "Left out where it cannot be read." },
            "operation": {
                "type": "object",
                "description": "The operation of a batch that it is of.",
                "required": ["index", "op"],
                "properties": {
                    "index": { "type": "integer", "minimum": 0 },
                    "op": { "type": "string", "enum": ["create", "update", "patch", "delete"] },
                    "id": { "type": "string" },
                },
            },
        },
    })
}

fn health() -> Json {
    let condition = json!({ "type": "string", "enum": ["healthy", "degraded", "unhealthy"] });
    json!({
        "type": "object",
        "required": ["status", "version", "checks", "unavailable", "factory", "queues", "rate_limits"],
        "properties": {
            "status": condition,
            "version": { "type": "string" },
            "checks": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["status", "latency_ms"],
                    "properties": {
                        "status": condition, "latency_ms": { "type": "number", "minimum": 0 }, "message": { "type": "string" },
                        "settings": {
                            "type": "object", "additionalProperties": { "type": "string" },
                            "description": "The settings by which it commits, read from time to time.",
                        },
                        "warnings": {
                            "type": "array", "items": { "type": "string" },
                            "description": "Where an acknowledged write can be lost by them.",
                        },
                    },
                },
            },
            "unavailable": {
                "type": "object",
                "description": "The pools that are answered with 503 because their collections cannot be used, by their names. Others are served.",
                "additionalProperties": {
                    "type": "object",
                    "required": ["reason", "message"],
                    "properties": {
                        "reason": {
                            "type": "string",
                            "enum": ["TableMissing", "ColumnMissing", "ColumnUnfit", "RightMissing", "PoolUnavailable"],
                        },
                        "message": { "type": "string" },
                    },
                },
            },
            "factory": { "type": ["object", "null"], "description": "The figures of the flyweight pools, by their names." },
            "queues": { "type": ["object", "null"], "description": "What waits: events to be published, events to be applied." },
            "rate_limits": {
                "enum": ["shared", "local", null],
                "description": "Whether callers' rates are counted for all replicas together, or by each while Redis is away.",
            },
        },
    })
}

fn event() -> Json {
    json!({
        "type": "object",
        "description": "One event of the feed, in WebSocket frames, event streams and Kafka alike. Each type has its schema at `/schemas/{type}`.",
        "required": ["id", "type", "entity", "key", "version", "at", "data"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "type": { "type": "string", "description": "product_created, product_updated, product_deleted, …, health_check; in Kafka also dead_letter_created and the like" },
            "entity": { "type": "string" },
            "key": { "type": "string" },
            "version": { "type": "integer", "minimum": 0 },
            "cursor": { "type": "string", "description": "The place in the whole feed." },
            "at": { "type": "string", "format": "date-time" },
            "owner": { "type": "string", "description": "The key of the user whose the record is, or was before it was deleted." },
            "data": { "description": "The record, encrypted fields masked; null for a delete." },
        },
    })
}

fn ticket() -> Json {
    json!({
        "type": "object",
        "description": "Good once, at every replica, as `ticket` in the address of a WebSocket or an event stream. Without a tier in Redis, at the replica that gave it.",
        "required": ["ticket", "expires_in"],
        "properties": {
            "ticket": { "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" },
            "expires_in": { "type": "integer", "description": "For how many seconds it is good." },
        },
    })
}

fn pool_list() -> Json {
    let pool = json!({
        "type": "object",
        "required": ["name", "entity", "path", "writable"],
        "properties": {
            "name": { "type": "string" }, "entity": { "type": "string" },
            "path": { "type": "string" }, "writable": { "type": "boolean" },
        },
    });
    json!({
        "type": "object", "required": ["pools"], "properties": { "pools": { "type": "array", "items": pool } },
    })
}
