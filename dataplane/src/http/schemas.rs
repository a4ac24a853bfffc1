//! `/schemas/`: a JSON Schema for each type of event, from the schemas of the entities.
//!
//! A schema has a version, which is the end of its `$id`, where it is served too. It is a new one only where
//! a reader that follows the former one would break: a field that comes, or that a pool declares, is none.
//! Records in Kafka name the schema of their event in the header `schema`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::get,
};
use http::Uri;
use serde_json::{Value, json};

use super::{live::catalogue::HEALTH_CHECK, openapi};
use crate::http::pool::Pool;
use crate::problem::Problem;
use model::{dead_letter, event, routes, schema::Schema};

/// The dialect of the schemas.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The routes: the list, and for each type its newest schema, which is found by its version too.
pub fn routes(pools: &[Pool]) -> Router {
    let schemas = Arc::new(of_events(pools.iter().map(|pool| pool.resource.records.schema())));
    let list =
        Json(json!({ "schemas": schemas.keys().map(|kind| format!("/schemas/{kind}")).collect::<Vec<_>>() }));
    let answer = move |kind: &str, uri: &Uri| match schemas.get(kind.trim_end_matches(".json")) {
        Some(schema) => Json(schema.clone()).into_response(),
        None => Problem::not_found("there is no such type of event: /schemas/ has the list").respond(uri),
    };
    let newest = answer.clone();
    let newest = async move |Path(kind): Path<String>, uri: Uri| newest(&kind, &uri);
    let by_version = async move |Path((kind, version)): Path<(String, String)>, uri: Uri| -> Response {
        match version == event::SCHEMA_VERSION.to_string() {
            true => answer(&kind, &uri),
            false => Problem::not_found("there is no such version of this schema").respond(&uri),
        }
    };
    Router::new()
        .route(routes::SCHEMAS.path, get(async move || list))
        .route(routes::SCHEMA.path, get(newest))
        .route(routes::SCHEMA_VERSION.path, get(by_version))
}

/// The schemas of all types of events, by their names: of the pools' records, of dead letters, and of the
/// service itself.
fn of_events<'a>(pools: impl Iterator<Item = &'a Schema>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::from([(HEALTH_CHECK.to_owned(), health_check())]);
    pools.for_each(|schema| all.extend(of_entity(schema)));
    all.extend(of_entity(&dead_letter::schema()));
    all
}

fn of_entity(schema: &Schema) -> [(String, Value); 3] {
    let changes =
        [("created", record(schema)), ("updated", record(schema)), ("deleted", json!({ "type": "null" }))];
    changes.map(|(change, data)| {
        let kind = format!("{}_{change}", schema.entity);
        let schema = envelope(&kind, &schema.entity, data);
        (kind, schema)
    })
}

/// How one replica does: told when that changes, and every 30 seconds.
fn health_check() -> Value {
    let condition = json!({ "enum": ["healthy", "degraded", "unhealthy"] });
    let data = json!({
        "type": "object",
        "required": ["status", "checks"],
        "properties": {
            "status": condition,
            "checks": { "type": "object", "additionalProperties": condition, "description": "Each part outside the replica." },
        },
    });
    let mut schema = envelope(HEALTH_CHECK, HEALTH_CHECK, data);
    schema["properties"]["key"]["description"] =
        json!("The replica that says so: the name of its pod. Empty outside a cluster.");
    schema["properties"]["version"] =
        json!({ "const": 0, "description": "None: these events are of no record." });
    schema
}

fn envelope(kind: &str, entity: &str, data: Value) -> Value {
    json!({
        "$schema": DIALECT,
        "$id": event::schema_id(kind),
        "title": kind,
        "type": "object",
        "properties": {
            "id": { "type": "string", "format": "uuid", "description": "Identifies the event; a repeated delivery has the same." },
            "type": { "const": kind },
            "entity": { "const": entity },
            "key": { "type": "string", "description": "The record's key." },
            "version": { "type": "integer", "minimum": 0, "description": "Orders the events of one key." },
            "cursor": { "type": "string", "description": "The place in the whole feed." },
            "at": { "type": "string", "format": "date-time" },
            "owner": { "type": "string", "description": "The key of the user whose the record is, or was before it was deleted." },
            "data": data,
        },
        "required": ["id", "type", "entity", "key", "version", "at", "data"],
    })
}

/// A record as events show it. One that is too large comes without its data: it is to be read.
fn record(schema: &Schema) -> Value {
    let mut record = openapi::schemas::record(schema);
    record["type"] = json!(["object", "null"]);
    for field in schema.fields.iter().filter(|field| field.encrypted) {
        // masked
        record["properties"][&field.name] = json!({ "type": ["string", "null"] });
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::live::frame::{self, State};
    use model::{
        entities::product,
        event::{Envelope, Happening},
        json::parse_create,
        key::Version,
        record::Record,
        value::{
            Timestamp,
            Value::{Int, Text},
        },
    };

    #[test]
    fn events_are_as_their_schemas_say() {
        let schema = product::schema();
        let schemas = of_events([&schema].into_iter());
        for (kind, schema) in &schemas {
            assert_eq!(
                schema["$id"],
                format!("/schemas/{kind}/1"),
                "another version says that readers break"
            );
        }
        let values =
            parse_create(&schema, br#"{"name":"Lamp","price":"1.5","attributes":{"a":[1]}}"#).unwrap().values;
        let (key, at) = ("lamp".parse().unwrap(), Timestamp(1_700_000_000_000));
        let record = Record { key, version: Version(3), created_at: at, updated_at: at, values };
        let data = record.to_masked_json(&schema);
        for (happening, data) in [(Happening::Updated, Some(data)), (Happening::Deleted, None)] {
            let event = Envelope::of_change("product", happening, &record.key, record.version, at, data);
            let mut shown = serde_json::to_value(&event).unwrap();
            let validator = jsonschema::validator_for(&schemas[&event.kind]).unwrap();
            assert!(validator.is_valid(&shown), "{shown}");
            shown["version"] = json!("3");
            assert!(!validator.is_valid(&shown));
        }
    }

    #[test]
    fn what_the_service_says_of_itself_and_of_dead_letters_has_a_schema() {
        let schemas = of_events(std::iter::empty());
        let alive = frame::health_check("shop-0", &State::of(&BTreeMap::new()));
        let letter = dead_letter::schema();
        let values = letter.row_of([("stage", Text("events".to_owned())), ("attempts", Int(1))]);
        let (key, at) = ("a".parse().unwrap(), Timestamp(1_700_000_000_000));
        let record = Record { key, version: Version(1), created_at: at, updated_at: at, values };
        let data = Some(record.to_masked_json(&letter));
        let letter =
            Envelope::of_change("dead_letter", Happening::Created, &record.key, record.version, at, data);
        for event in [alive, letter] {
            let mut shown = serde_json::to_value(&event).unwrap();
            let validator = jsonschema::validator_for(&schemas[&event.kind]).unwrap();
            assert!(validator.is_valid(&shown), "{shown}");
            shown["entity"] = json!("other");
            assert!(!validator.is_valid(&shown));
        }
    }
}
