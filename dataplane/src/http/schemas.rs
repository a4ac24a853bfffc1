//! `/schemas/`: a JSON Schema for each type of event, from the schemas of the entities.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::Path,
    response::{IntoResponse, Response},
    routing::get,
};
use http::Uri;
use serde_json::{Value, json};

use super::{error::Problem, openapi, router::Pool};
use crate::domain::schema::Schema;

/// The dialect of the schemas.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The routes: the list, and one for each type.
pub fn routes(pools: &[Pool]) -> Router {
    let schemas = Arc::new(of_events(pools.iter().map(|pool| pool.resource.records.schema())));
    let list = Json(json!({ "schemas": schemas.keys().map(|kind| format!("/schemas/{kind}")).collect::<Vec<_>>() }));
    let one = async move |Path(kind): Path<String>, uri: Uri| -> Response {
        match schemas.get(kind.trim_end_matches(".json")) {
            Some(schema) => Json(schema.clone()).into_response(),
            None => Problem::not_found("there is no such type of event: /schemas/ has the list").respond(&uri),
        }
    };
    Router::new().route("/schemas", get(async move || list)).route("/schemas/{kind}", get(one))
}

/// The schemas of all types of events, by their names.
fn of_events<'a>(schemas: impl Iterator<Item = &'a Schema>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::from([("health_check".to_owned(), envelope("health_check", "", json!({})))]);
    for schema in schemas {
        let entity = &schema.entity;
        for (suffix, data) in
            [("created", record(schema)), ("updated", record(schema)), ("deleted", json!({ "type": "null" }))]
        {
            let kind = format!("{entity}_{suffix}");
            all.insert(kind.clone(), envelope(&kind, entity, data));
        }
    }
    all
}

fn envelope(kind: &str, entity: &str, data: Value) -> Value {
    let entity = if entity.is_empty() { json!({ "type": "string" }) } else { json!({ "const": entity }) };
    json!({
        "$schema": DIALECT,
        "$id": format!("/schemas/{kind}"),
        "title": kind,
        "type": "object",
        "properties": {
            "id": { "type": "string", "format": "uuid", "description": "Identifies the event; a repeated delivery has the same." },
            "type": { "const": kind },
            "entity": entity,
            "key": { "type": "string", "description": "The record's key." },
            "version": { "type": "integer", "minimum": 0, "description": "Orders the events of one key." },
            "cursor": { "type": "string", "description": "The place in the whole feed." },
            "at": { "type": "string", "format": "date-time" },
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
    use crate::domain::{
        event::{Envelope, Happening},
        json::parse_create,
        product,
        record::{Record, Version},
        value::Timestamp,
    };

    #[test]
    fn events_are_as_their_schemas_say() {
        let schema = product::schema();
        let schemas = of_events([&schema].into_iter());
        let values = parse_create(&schema, br#"{"name":"Lamp","price":"1.5","attributes":{"a":[1]}}"#).unwrap().values;
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
        assert!(schemas.contains_key("health_check"));
    }
}
