//! The operations of the pools: what `router::collection` and `router::of_entity` route.

use crds::pool::Entity;
use serde_json::{Value as Json, json};

use super::{
    operation::Operation,
    schemas::{any_key, draft, key, named_key, pascal, reference},
};
use crate::{
    http::{params::IDS_MAX, resource::Resource, router::BASE},
    service::list::{LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX},
};
use model::{
    batch::OPERATIONS_MAX,
    entities::{order, payment},
    entity::{List, Match, Selection},
    price_event,
    schema::{Form, Kind, Schema},
};

/// A list of entity tags, or `*`.
fn tags() -> Json {
    const TAG: &str = "(W/)?\"[0-9]{1,18}(-gzip|-zstd)?\"";
    let pattern = format!("^(\\*|{TAG}( ?, ?{TAG})*)$");
    json!({ "type": "string", "pattern": pattern })
}

/// What a pool's operations are made from.
pub struct Described<'a> {
    /// The path of the collection.
    pub path: &'a str,
    /// The group.
    pub tag: &'a str,
    /// `Product`
    pub one: String,
    /// `Products`
    pub many: String,
    /// The name of the key.
    pub key: &'a str,
    /// What the records look like.
    pub schema: &'a Schema,
}

/// The operations of one pool.
pub fn operations(entity: Entity, resource: &Resource) -> Vec<Operation> {
    let schema = resource.records.schema();
    let described = Described {
        path: &resource.path,
        tag: resource.pool(),
        one: pascal(&schema.entity),
        many: pascal(&schema.collection),
        key: &schema.key,
        schema,
    };
    let mut operations = vec![described.list(), described.read()];
    if resource.is_writable() {
        operations.extend([described.replace(resource.upserts), described.delete()]);
        operations.extend(described.by_query(resource.upserts));
        operations.extend([described.create(), described.patch(), described.batch()]);
    }
    operations.extend(of_entity(entity, &described));
    operations
}

/// The schemas of a pool, amended where the entity's own rules are stricter than its fields.
pub fn amend(entity: Entity, _schema: &Schema, schemas: &mut [(String, Json)]) {
    if entity != Entity::Order {
        return;
    }
    for (name, schema) in schemas {
        let items = &mut schema["properties"]["items"];
        if items.is_object() && !name.ends_with("Page") {
            *items = order_items(name == "Order");
        }
    }
}

/// The items of an order; in an answer all have their price.
fn order_items(answered: bool) -> Json {
    let asked = json!({
        "type": ["number", "string", "null"], "minimum": 0, "maximum": 99_999_999_999.999_9, "pattern": "^[0-9]{1,11}(\\.[0-9]{1,4})?$",
        "description": "The catalogue's price where it is left out.",
    });
    let given = json!({ "type": "number", "minimum": 0 });
    json!({
        "type": "array", "minItems": 1, "maxItems": order::ITEMS_MAX,
        "items": {
            "type": "object",
            "additionalProperties": false,
            "required": if answered { vec!["product_id", "quantity", "price"] } else { vec!["product_id", "quantity"] },
            "properties": {
                "product_id": key(),
                "quantity": { "type": "integer", "minimum": 1, "maximum": order::QUANTITY_MAX },
                "price": if answered { given } else { asked },
            },
        },
    })
}

fn of_entity(entity: Entity, pool: &Described) -> Vec<Operation> {
    let lists = entity.definition().lists.iter().map(|list| pool.list_of(list));
    let own = match entity {
        Entity::Payment => vec![pool.set_status()],
        Entity::Product => vec![ingest(pool)],
        Entity::NotificationTemplate => vec![pool.render()],
        _ => Vec::new(),
    };
    lists.chain(own).collect()
}

/// `POST /events`
fn ingest(pool: &Described) -> Operation {
    let mut event = draft(&price_event::schema());
    if let Some(properties) = event["properties"].as_object_mut() {
        properties.remove("id");
    }
    let accepted = json!({
        "type": "object", "required": ["accepted"], "properties": { "accepted": { "type": "integer", "minimum": 1 } },
    });
    Operation::post(
        format!("{BASE}/events"),
        "sendEvents",
        "Give products new prices and stocks: an event, or lines of them",
    )
    .tag(pool.tag)
    .takes(event)
    .guarded()
    .gives(
        202,
        "The events are durable and will be applied: of all changes of a product the newest wins. `stock` counts the pieces at `at`, those that orders \
         hold included; what was sold after that is taken off. Without `at` the order of acceptance decides. A product that is not there is made, or \
         refused with 404, as `spec.ingest.unknownProducts` says.",
        accepted,
    )
    .fails(&[404, 408, 413, 415])
}

impl Described<'_> {
    fn at(&self) -> String {
        format!("{}/{{{}}}", self.path, self.key)
    }

    fn list(&self) -> Operation {
        let ids = format!(
            "Up to {IDS_MAX} keys, separated by commas; a comma within a key is sent as %2C. Nothing but a cursor beside them."
        );
        // `id` is no parameter here, for clients that are made from this document would have two kinds of
        // answers from each list
        let about = "A page of records, or many by their keys; with `id` alone, the record of any key as its own path gives it";
        let operation = Operation::get(self.path, format!("list{}", self.many), about);
        self.page(operation).query("ids", &ids, json!({ "type": "string", "pattern": "^[^,]+(,[^,]+)*$" }))
    }

    fn by_query(&self, upserts: bool) -> [Operation; 3] {
        [
            self.replace(upserts).by_query(self.path, "Replace a record of any key"),
            self.patch().by_query(self.path, "Change fields of a record of any key"),
            self.delete().by_query(self.path, "Delete a record of any key"),
        ]
    }

    /// The operation with the parameters and the answers of a page.
    pub fn page(&self, operation: Operation) -> Operation {
        let limit =
            json!({ "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT });
        let cursor = json!({ "type": "string", "minLength": 1 });
        operation
            .tag(self.tag)
            .query("limit", "The most records of a page.", limit)
            .query(
                "offset",
                "Records to pass over.",
                json!({ "type": "integer", "minimum": 0, "maximum": OFFSET_MAX }),
            )
            .query("cursor", "The `next_cursor` of the page before; not beside `offset`.", cursor)
            .guarded()
            .gives(200, "A page.", reference(&format!("{}Page", self.one)))
    }

    /// A list of some records.
    fn list_of(&self, list: &List) -> Operation {
        match &list.of {
            Selection::Field { field, parameter } => {
                let path = list.path.replace("{key}", &format!("{{{parameter}}}"));
                let kind = self.schema.index_of(field).map(|index| &self.schema.fields[index].kind);
                let value = match kind {
                    Some(Kind::Text { form: Form::Key, .. }) | None => key(),
                    Some(Kind::Text { max, .. }) => {
                        json!({ "type": "string", "minLength": 1, "maxLength": max })
                    }
                    Some(_) => json!({ "type": "string", "minLength": 1 }),
                };
                self.page(Operation::get(path, list.id, list.summary).in_path(parameter, value)).fails(&[404])
            }
            Selection::Search(params) => {
                let operation = self.page(Operation::get(list.path, list.id, list.summary));
                params.iter().fold(operation, |operation, param| {
                    let mut text = json!({ "type": "string", "minLength": 1, "maxLength": param.max });
                    if param.how == Match::Same {
                        text = json!({ "type": "string", "format": "email", "maxLength": param.max });
                    }
                    operation.query(param.name, param.about, text)
                })
            }
        }
    }

    fn render(&self) -> Operation {
        let text = || json!({ "type": ["string", "null"] });
        let path = format!("{}/render", self.at());
        let operation =
            Operation::post(path, format!("render{}", self.one), "Fill in the variables of a template")
                .in_path(self.key, named_key())
                .takes(json!({
                    "type": "object", "additionalProperties": false,
                    "properties": { "variables": { "type": "object", "additionalProperties": true } },
                }));
        self.written(operation).fails(&[404]).gives(
            200,
            "The finished texts.",
            json!({
                "type": "object",
                "required": ["id", "version", "template", "channels", "subject", "body"],
                "properties": {
                    "id": key(), "version": { "type": "integer", "minimum": 1 }, "template": text(), "subject": text(),
                    "body": text(), "channels": { "type": ["array", "null"], "items": { "type": "string" } },
                },
            }),
        )
    }

    fn batch(&self) -> Operation {
        let is = |op: &str| json!({ "properties": { "op": { "const": op } } });
        let operation = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["op"],
            "properties": {
                "op": { "type": "string", "enum": ["create", "update", "patch", "delete"] },
                "id": any_key(),
                "version": { "type": "integer", "minimum": 1, "description": "The version that the record must have." },
                "data": { "type": "object", "additionalProperties": true, "description": "The body of a create, update or patch." },
            },
            // no `allOf`: generators of clients would compose types of it
            "if": is("delete"),
            "then": { "required": ["id"], "properties": { "data": false } },
            "else": {
                "if": is("create"),
                "then": { "required": ["data"], "properties": { "version": false } },
                "else": { "required": ["id", "data"] },
            },
        });
        let body = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["operations"],
            "properties": {
                "atomic": { "type": "boolean", "description": "All or none; false where it is left out." },
                "operations": { "type": "array", "minItems": 1, "maxItems": OPERATIONS_MAX, "items": operation },
            },
        });
        let result = json!({
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": { "type": "integer" }, "id": any_key(), "version": { "type": "integer", "minimum": 1 },
                "error": reference("Problem"),
            },
        });
        let results = json!({
            "type": "object", "required": ["results"],
            "properties": { "results": { "type": "array", "items": result } },
        });
        let operation =
            Operation::post(format!("{}/batch", self.path), format!("batch{}", self.many), "Many changes");
        self.repeatable(self.written(operation.takes(body))).fails(&[404, 409, 412]).gives(
            207,
            "What became of each operation, in order.",
            results,
        )
    }

    fn repeatable(&self, operation: Operation) -> Operation {
        let about =
            "Tells a repeat of this request: it gets the first answer, for 24 hours. 422 with another body.";
        let schema = json!({ "type": "string", "pattern": "^[!-~]{1,255}$" });
        operation.header("Idempotency-Key", about, schema)
    }

    /// Reads one record.
    pub fn read(&self) -> Operation {
        let always = [("ETag", true)];
        Operation::get(self.at(), format!("get{}", self.one), "One record")
            .tag(self.tag)
            .in_path(self.key, named_key())
            .header("If-Match", "Entity tags, or *.", tags())
            .header("If-None-Match", "Entity tags, or *.", tags())
            .header(
                "If-Min-Version",
                "The least version to serve.",
                json!({ "type": "integer", "minimum": 0 }),
            )
            .header(
                "Flyweight-Explain",
                "1: say which tier served it.",
                json!({ "type": "string", "enum": ["0", "1"] }),
            )
            .guarded()
            .fails(&[404, 405, 412])
            .gives(200, "The record.", reference(&self.one))
            .with_headers(
                200,
                &[("ETag", true), ("Age", false), ("Warning", false), ("Flyweight-Explain", false)],
            )
            .gives_nothing(304, "The client has this version.")
            .with_headers(304, &always)
    }

    fn create(&self) -> Operation {
        self.repeatable(self.written(Operation::post(
            self.path,
            format!("create{}", self.one),
            "Create a record",
        )))
        .takes(reference(&format!("{}Create", self.one)))
        .fails(&[409])
        .gives(201, "The new record.", reference(&self.one))
        .with_headers(201, &[("ETag", true), ("Location", true)])
    }

    fn replace(&self, upserts: bool) -> Operation {
        let operation = Operation::put(self.at(), format!("replace{}", self.one), "Replace a record")
            .in_path(self.key, named_key())
            .takes(reference(&format!("{}Replace", self.one)));
        let operation = self
            .written(self.conditional(operation))
            .fails(&[404, 405, 409])
            .gives(200, "The record as it is now.", reference(&self.one))
            .with_headers(200, &[("ETag", true)]);
        if !upserts {
            return operation;
        }
        operation
            .gives(201, "The new record.", reference(&self.one))
            .with_headers(201, &[("ETag", true), ("Location", true)])
    }

    fn patch(&self) -> Operation {
        let operation = Operation::patch(
            self.at(),
            format!("patch{}", self.one),
            "Change fields of a record (JSON merge patch)",
        )
        .in_path(self.key, named_key())
        .takes_as(
            &["application/merge-patch+json", "application/json"],
            reference(&format!("{}Patch", self.one)),
        );
        self.written(self.conditional(operation))
            .fails(&[404, 405, 409])
            .gives(200, "The record as it is now.", reference(&self.one))
            .with_headers(200, &[("ETag", true)])
    }

    fn delete(&self) -> Operation {
        let operation = Operation::delete(self.at(), format!("delete{}", self.one), "Delete a record");
        self.conditional(operation.tag(self.tag).in_path(self.key, named_key()))
            .guarded()
            .fails(&[404, 405, 409, 422, 504, 507])
            .gives_nothing(204, "It is gone; the entity tag is the version of the delete.")
            .with_headers(204, &[("ETag", true)])
    }

    fn set_status(&self) -> Operation {
        let body = json!({
            "type": "object",
            "required": ["status"],
            "additionalProperties": false,
            "properties": { "status": { "type": "string", "enum": payment::STATUSES }, "id": key() },
        });
        let path = format!("{}/{{id}}/status", self.path);
        let operation = Operation::put(path, "setPaymentStatus", "Move a payment's status")
            .in_path("id", key())
            .takes(body);
        self.written(self.conditional(operation))
            .fails(&[404, 409])
            .gives(200, "The payment as it is now.", reference(&self.one))
            .with_headers(200, &[("ETag", true)])
    }

    fn conditional(&self, operation: Operation) -> Operation {
        operation
            .header("If-Match", "Entity tags, or *.", tags())
            .header(
                "If-None-Match",
                "Entity tags that the record must not have; *: only where there is none.",
                tags(),
            )
            .fails(&[412])
    }

    /// What every write with a body can answer.
    fn written(&self, operation: Operation) -> Operation {
        operation.tag(self.tag).guarded().fails(&[408, 413, 415, 422, 504, 507])
    }
}
