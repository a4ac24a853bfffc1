//! The operations of the order pipeline and of dead letters: what `pipeline::of_orders` and
//! `pipeline::of_letters` route.

use crds::pool::Entity;
use serde_json::{Value as Json, json};

use super::{
    operation::Operation,
    pools::Described,
    schemas::{self, key, reference},
};
use crate::http::{pool::Pool, router::BASE};
use model::{dead_letter, entity::SearchParam};

/// The operations; those of orders where orders can be written here.
pub fn operations(pools: &[Pool]) -> Vec<Operation> {
    let mut operations = of_letters();
    if pools.iter().any(|pool| pool.entity == Entity::Order && pool.resource.is_writable()) {
        operations.extend(of_orders());
    }
    operations
}

/// The schemas that these refer to.
pub fn schemas() -> impl Iterator<Item = (String, Json)> {
    let all = schemas::of_entity(&dead_letter::schema(), "DeadLetter");
    all.into_iter().filter(|(name, _)| ["DeadLetter", "DeadLetterPage"].contains(&name.as_str()))
}

fn of_letters() -> Vec<Operation> {
    let path = format!("{BASE}/dead-letters");
    let schema = dead_letter::schema();
    let letters = Described {
        path: &path,
        tag: "pipeline",
        one: "DeadLetter".to_owned(),
        many: "DeadLetters".to_owned(),
        key: "id",
        schema: &schema,
    };
    let text = |max: usize| json!({ "type": "string", "minLength": 1, "maxLength": max });
    let class = json!({ "type": "string", "enum": dead_letter::CLASSES });
    let list = Operation::get(&path, "listDeadLetters", "What could not be done");
    let list = dead_letter::SEARCH.iter().fold(list, |list, SearchParam { name, about, max, .. }| {
        list.query(name, about, if *name == "class" { class.clone() } else { text(*max) })
    });
    let filter = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "stage": { "type": ["string", "null"], "maxLength": 64 }, "subject": { "type": ["string", "null"], "maxLength": 128 },
            "cursor": { "type": ["string", "null"], "maxLength": 128 },
        },
    });
    let replayed = json!({
        "type": "object",
        "required": ["replayed", "failed", "more"],
        "properties": { "replayed": count(), "failed": count(), "more": { "type": "boolean" }, "next_cursor": text(256) },
    });
    let one = |operation: Operation| changes(operation.in_path("id", key())).fails(&[404, 409]);
    vec![
        letters.page(list),
        letters.read(),
        one(Operation::delete(format!("{path}/{{id}}"), "dropDeadLetter", "Give up"))
            .gives_nothing(204, "It is gone."),
        one(Operation::post(format!("{path}/{{id}}/replay"), "replayDeadLetter", "Try again"))
            .gives_nothing(202, "It is on its way again."),
        changes(Operation::post(format!("{path}/replay"), "replayDeadLetters", "Try many again"))
            .may_take(filter)
            .fails(&[408, 409, 413, 415])
            .gives(200, "How many are on their way again.", replayed),
    ]
}

fn of_orders() -> Vec<Operation> {
    let stage = json!({
        "type": "object",
        "required": ["stage", "workers", "queued", "in_flight", "done", "retried", "postponed", "dead_lettered", "dead_letters"],
        "properties": {
            "stage": { "type": "string" }, "workers": { "type": ["integer", "null"] }, "queued": { "type": "integer" },
            "in_flight": { "type": "integer" }, "done": count(), "retried": count(), "postponed": count(),
            "dead_lettered": count(), "dead_letters": count(),
        },
    });
    let figures = json!({
        "type": "object",
        "required": ["stages", "under_way", "places", "holding", "dependencies"],
        "properties": {
            "stages": { "type": "array", "items": stage }, "under_way": count(), "places": count(), "holding": count(),
            "dependencies": { "type": "object", "additionalProperties": { "type": "object", "additionalProperties": true } },
        },
    });
    let orders = format!("{BASE}/orders/{{id}}");
    vec![
        Operation::get(format!("{BASE}/pipeline"), "pipeline", "What the stages did and do")
            .tag("pipeline")
            .guarded()
            .fails(&[422, 504, 507])
            .gives(200, "The figures.", figures),
        Operation::get(format!("{orders}/timeline"), "orderTimeline", "What happened to an order")
            .tag("pipeline")
            .in_path("id", key())
            .guarded()
            .fails(&[404])
            .gives(200, "Its stage and its steps.", timeline()),
        changes(
            Operation::post(format!("{orders}/cancel"), "cancelOrder", "Call an order off")
                .in_path("id", key()),
        )
        .fails(&[404, 409, 412])
        .gives(202, "The order; what was done for it is being undone.", reference("Order"))
        .with_headers(202, &[("ETag", true)]),
    ]
}

fn changes(operation: Operation) -> Operation {
    operation.tag("pipeline").guarded().fails(&[422, 504, 507])
}

fn count() -> Json {
    json!({ "type": "integer", "minimum": 0 })
}

fn timeline() -> Json {
    let text = || json!({ "type": ["string", "null"] });
    let step = json!({
        "type": "object", "required": ["at", "stage", "event"],
        "properties": { "stage": { "type": "string" }, "event": { "type": "string" }, "detail": text() },
    });
    json!({
        "type": "object",
        "required": ["order_id", "version", "status", "stage", "attempts", "steps"],
        "properties": {
            "order_id": key(), "version": { "type": "integer", "minimum": 1 }, "status": text(), "stage": text(),
            "reason": text(), "attempts": count(), "trace_id": text(), "steps": { "type": "array", "items": step },
        },
    })
}
