//! Examples: what each operation can be sent as it stands. The records that they speak of are those that the
//! examples of creates make.

use crds::pool::Entity;
use serde_json::{Map, Value as Json, json};

use crate::http::pool::Pool;
use model::{
    routes,
    schema::{Field, JsonForm, Kind, Schema, Shape},
};

/// The example of one pool's record.
struct Sample<'a> {
    /// The path of the collection.
    path: &'a str,
    /// The name of the key.
    key: &'a str,
    /// The body that creates it.
    draft: Map<String, Json>,
}

/// Puts examples into the operations at these paths.
pub fn add(paths: &mut Map<String, Json>, pools: &[Pool]) {
    let samples: Vec<Sample<'_>> = pools.iter().map(sample).collect();
    let first = pools.first().map_or("products", |pool| pool.resource.pool());
    for (path, item) in paths {
        // the longest path is the collection's own
        let below = |sample: &&Sample<'_>| {
            path.strip_prefix(sample.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let own = samples.iter().filter(below).max_by_key(|sample| sample.path.len());
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            for parameter in
                operation.get_mut("parameters").and_then(Json::as_array_mut).into_iter().flatten()
            {
                if parameter["required"] == true {
                    parameter["example"] = named(parameter["name"].as_str().unwrap_or_default(), path, own);
                }
            }
            let bodies = operation.pointer_mut("/requestBody/content").and_then(Json::as_object_mut);
            for body in bodies.into_iter().flat_map(Map::values_mut) {
                let wanted = body["schema"]["$ref"].as_str().unwrap_or_default().to_owned();
                let example = own.and_then(|own| of_record(&wanted, own));
                body["example"] = example.unwrap_or_else(|| of_action(&id, own, first));
            }
        }
    }
}

/// A value of a parameter that must be there.
fn named(name: &str, path: &str, own: Option<&Sample<'_>>) -> Json {
    match name {
        "user_id" => "ann".into(),
        "category" => "Lighting".into(),
        "kind" => "product_created".into(),
        "version" => "1".into(),
        "type" => "mysql".into(),
        _ => own.and_then(|own| own.draft.get(own.key)).cloned().unwrap_or_else(|| elsewhere(path).into()),
    }
}

/// The key of a record whose collection another process may serve.
fn elsewhere(path: &str) -> &'static str {
    let of_users = path.strip_prefix(routes::home_of(Entity::User)).is_some_and(|rest| rest.starts_with('/'));
    if of_users { "ann" } else { "letter-1" }
}

/// The body of a create, replace or patch, by the schema that it refers to.
fn of_record(wanted: &str, own: &Sample<'_>) -> Option<Json> {
    let mut body = own.draft.clone();
    if wanted.ends_with("Create") {
        return Some(body.into());
    }
    body.remove(own.key);
    match wanted {
        _ if wanted.ends_with("Replace") => Some(body.into()),
        _ if wanted.ends_with("Patch") => Some(change(own)),
        _ => None,
    }
}

/// One field of the record, as a patch.
fn change(own: &Sample<'_>) -> Json {
    // the later fields are those that no rule is about
    let field = own.draft.iter().rev().find(|(name, _)| *name != own.key && *name != "currency");
    field.map_or_else(|| json!({}), |(name, value)| json!({ name: value }))
}

fn of_action(id: &str, own: Option<&Sample<'_>>, pool: &str) -> Json {
    match id {
        "setPaymentStatus" => json!({ "status": "completed" }),
        "sendEvents" => json!({ "product_id": "lamp", "price": "18.90", "stock": 12 }),
        "cleanUp" => json!({ "pool": pool }),
        "warmUp" => json!({ "pool": pool, "mode": "All" }),
        "warmCache" => json!({ "repository": pool }),
        "query" => json!({ "repository": pool, "limit": 10 }),
        _ if id.starts_with("render") => json!({ "variables": { "name": "Ann" } }),
        _ if id.starts_with("batch") => match own {
            Some(own) => {
                json!({ "operations": [{ "op": "patch", "id": own.draft.get(own.key), "data": change(own) }] })
            }
            None => json!({ "operations": [] }),
        },
        _ => json!({}),
    }
}

fn sample(pool: &Pool) -> Sample<'_> {
    let schema = pool.resource.records.schema();
    let example = pool.entity.definition().example;
    let draft = serde_json::from_str(example).unwrap_or_else(|_| declared(schema));
    let Json::Object(mut draft) = draft else {
        return Sample { path: &pool.resource.path, key: &schema.key, draft: Map::new() };
    };
    // the key of a built-in entity may have another name
    if let Some(key) = draft.remove("id") {
        draft.insert(schema.key.clone(), key);
    }
    Sample { path: &pool.resource.path, key: &schema.key, draft }
}

/// A record of a declared table: each field by its type.
fn declared(schema: &Schema) -> Json {
    let fields = schema.fields.iter().filter(|field| !field.internal && !field.read_only);
    let mut draft: Map<String, Json> = fields.map(|field| (field.name.clone(), value(field))).collect();
    draft.insert(schema.key.clone(), "1".into());
    draft.into()
}

fn value(field: &Field) -> Json {
    match &field.kind {
        Kind::Text { .. } => "text".into(),
        Kind::Int { .. } if field.json == JsonForm::String => "1".into(),
        Kind::Int { .. } => 1.into(),
        Kind::Decimal { .. } => "1".into(),
        Kind::Bool => true.into(),
        Kind::Json { shape: Shape::List | Shape::Strings, .. } => json!([]),
        Kind::Json { .. } => json!({}),
        Kind::Time => "2026-01-01T00:00:00Z".into(),
        Kind::Choice(words) => words.first().copied().unwrap_or_default().into(),
    }
}
