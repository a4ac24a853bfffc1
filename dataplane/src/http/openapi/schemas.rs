//! JSON Schemas of records and bodies, from the schemas that validate them.

use rust_decimal::Decimal;
use serde_json::{Map, Value as Json, json};

use model::{
    schema::{Field, Form, JsonForm, Kind, Schema, Shape},
    strict::DOUBLE_MAX,
    value::Value,
};

/// What every key looks like.
pub const KEY_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}$";

/// Which members a body may have and must have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Record,
    Create,
    Replace,
    Patch,
}

/// The schemas of one entity, under the names that operations refer to: `User`, `UserCreate`, `UserReplace`,
/// `UserPatch`, `UserPage`.
pub fn of_entity(schema: &Schema, name: &str) -> Vec<(String, Json)> {
    vec![
        (name.to_owned(), object(schema, Body::Record)),
        (format!("{name}Create"), object(schema, Body::Create)),
        (format!("{name}Replace"), object(schema, Body::Replace)),
        (format!("{name}Patch"), object(schema, Body::Patch)),
        (format!("{name}Page"), page(name)),
    ]
}

/// A record as answers and events show it.
pub fn record(schema: &Schema) -> Json {
    object(schema, Body::Record)
}

/// The body of a create.
pub fn draft(schema: &Schema) -> Json {
    object(schema, Body::Create)
}

/// A reference to a schema.
pub fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A key.
pub fn key() -> Json {
    json!({ "type": "string", "pattern": KEY_PATTERN, "maxLength": 128 })
}

/// A key of a record that another program may have made.
pub fn any_key() -> Json {
    json!({ "type": "string", "maxLength": 255 })
}

/// The same as a part of a path.
pub fn named_key() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 255 })
}

/// The words of a name as one: `notification_template` becomes `NotificationTemplate`.
pub fn pascal(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    name.split(|c: char| !c.is_ascii_alphanumeric()).map(word).collect()
}

fn page(name: &str) -> Json {
    json!({
        "type": "object",
        "required": ["items", "total", "limit", "offset", "next_cursor"],
        "additionalProperties": false,
        "properties": {
            "items": { "type": "array", "items": reference(name) },
            "total": { "type": "integer", "minimum": 0 },
            "limit": { "type": "integer", "minimum": 0, "maximum": 1000 },
            "offset": { "type": "integer", "minimum": 0 },
            "unreadable": {
                "type": "array",
                "description": "Records among them that cannot be read; left out where all can.",
                "items": {
                    "type": "object", "required": ["key", "field"], "additionalProperties": false,
                    "properties": { "key": { "type": ["string", "null"] }, "field": { "type": "string" } },
                },
            },
            "next_cursor": { "type": ["string", "null"], "description": "Where the next page begins; null on the last." },
        },
    })
}

fn object(schema: &Schema, body: Body) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    // who reads meets what other programs made
    let key = if schema.any_key || body == Body::Record { any_key() } else { key() };
    properties.insert(schema.key.clone(), key);
    if body != Body::Create {
        let time = json!({ "type": "string", "format": "date-time" });
        properties.insert("version".to_owned(), json!({ "type": "integer", "minimum": 1 }));
        properties.insert("created_at".to_owned(), time.clone());
        properties.insert("updated_at".to_owned(), time);
    }
    if body == Body::Record {
        required.extend([
            schema.key.clone(),
            "version".to_owned(),
            "created_at".to_owned(),
            "updated_at".to_owned(),
        ]);
    }
    for field in schema.fields.iter().filter(|field| !field.internal) {
        let always = match body {
            Body::Record => true,
            Body::Create if field.read_only => continue,
            Body::Create | Body::Replace => field.required,
            Body::Patch => false,
        };
        if always {
            required.push(field.name.clone());
        }
        properties.insert(field.name.clone(), member(field, body));
    }
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    object
}

fn member(field: &Field, body: Body) -> Json {
    let mut value = value_of(field, body != Body::Record);
    let nullable = match body {
        Body::Record => !field.required && field.default == Value::Null,
        Body::Create | Body::Replace | Body::Patch => !field.required,
    };
    if nullable {
        value = or_null(value);
    }
    if field.read_only {
        value["readOnly"] = (body == Body::Record).into();
    }
    // said, and no `default`: generators of TypeScript take what has one for what is always sent
    if body == Body::Create
        && let Value::Text(text) = &field.default
    {
        let about = value["description"].as_str().map(|about| format!("{about} ")).unwrap_or_default();
        value["description"] = format!("{about}{text} where it is left out.").into();
    }
    value
}

/// The schema, or null.
fn or_null(mut schema: Json) -> Json {
    if let Some(words) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        words.push(Json::Null);
    }
    match schema.get("type").cloned() {
        Some(Json::String(one)) => schema["type"] = json!([one, "null"]),
        Some(Json::Array(mut several)) => {
            several.push("null".into());
            schema["type"] = several.into();
        }
        _ => {
            if let Some(object) = schema.as_object_mut() {
                object.remove("not");
            }
        }
    }
    schema
}

/// The schema of a field's values. `asked`: in a request, where decimals may also be text.
fn value_of(field: &Field, asked: bool) -> Json {
    match &field.kind {
        Kind::Text { max, form } => text(*max, *form, field.required),
        Kind::Int { min, max } => integer(*min, *max, field.json, asked),
        Kind::Decimal { min, max, scale } => decimal((*min, *max, *scale), field.json, asked),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Json { max, shape } => {
            let mut schema = match shape {
                Shape::Any => json!({ "not": { "type": "null" } }),
                Shape::Object => json!({ "type": "object", "additionalProperties": true }),
                Shape::List => json!({ "type": "array", "items": {} }),
                Shape::Strings => json!({ "type": "array", "items": { "type": "string" } }),
            };
            schema["description"] = format!("At most {max} bytes as JSON.").into();
            schema
        }
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
    }
}

fn text(max: usize, form: Form, required: bool) -> Json {
    let mut schema = match form {
        Form::Any => json!({ "type": "string", "maxLength": max }),
        Form::Email => json!({ "type": "string", "format": "email", "maxLength": max }),
        Form::Currency => {
            json!({ "type": "string", "pattern": "^[A-Z]{3}$", "description": "A currency code of ISO 4217." })
        }
        Form::Key => key(),
    };
    if required && form == Form::Any {
        schema["minLength"] = 1.into();
    }
    schema
}

/// A request may give either form. Stored numbers may be greater than what a request may give as one.
fn integer(min: i64, max: i64, form: JsonForm, asked: bool) -> Json {
    let sign = if min < 0 { "-?" } else { "" };
    let mut schema = match (form, asked) {
        (JsonForm::Number, true) => json!({
            "type": ["integer", "string"], "minimum": min.max(-DOUBLE_MAX), "maximum": max.min(DOUBLE_MAX),
        }),
        (JsonForm::Number, false) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        (JsonForm::String, true) => json!({ "type": ["string", "integer"] }),
        (JsonForm::String, false) => json!({ "type": "string" }),
    };
    if form == JsonForm::String {
        schema["description"] = format!("A whole number from {min} to {max}, as text.").into();
    }
    if form == JsonForm::String || asked {
        schema["pattern"] = format!("^{sign}[0-9]{{1,20}}$").into();
    }
    schema
}

/// Bounds beyond what a double tells apart are left to the description.
fn decimal((min, max, scale): (Decimal, Decimal, u32), form: JsonForm, asked: bool) -> Json {
    let about =
        format!("An exact decimal number from {min} to {max}, at most {scale} digits after the point.");
    let mut schema = json!({ "type": "number", "description": about });
    if max < Decimal::MAX {
        schema["minimum"] = number(min);
        schema["maximum"] = number(max);
    }
    let is_text = form == JsonForm::String;
    if asked || is_text {
        schema["type"] = if asked { json!(["number", "string"]) } else { json!("string") };
        let sign = if min < Decimal::ZERO { "-?" } else { "" };
        // a declared one takes every exact number
        let (digits, scale) =
            if max < Decimal::MAX { (max.trunc().to_string().len(), scale) } else { (65, 65) };
        let above_zero = if min > Decimal::ZERO { "(?=.*[1-9])" } else { "" };
        schema["pattern"] = format!("^{above_zero}{sign}[0-9]{{1,{digits}}}(\\.[0-9]{{1,{scale}}})?$").into();
    }
    schema
}

fn number(value: Decimal) -> Json {
    serde_json::from_str(&value.normalize().to_string()).unwrap_or(Json::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::entities::{payment, product};

    #[test]
    fn bounds_come_from_the_schema() {
        let all: Map<String, Json> = of_entity(&product::schema(), "Product").into_iter().collect();
        let create = &all["ProductCreate"];
        assert_eq!(create["required"], json!(["name", "price"]));
        assert_eq!(
            create["properties"]["name"],
            json!({ "type": "string", "maxLength": 255, "minLength": 1 })
        );
        assert_eq!(create["properties"]["stock"]["type"], json!(["integer", "string", "null"]));
        assert_eq!(all["Product"]["properties"]["stock"]["type"], "integer", "it has a default");
        assert_eq!(all["Product"]["properties"]["brand"]["type"], json!(["string", "null"]));
        assert_eq!(all["ProductPatch"].get("required"), None);
        assert_eq!(create["properties"]["price"]["maximum"], json!(99_999_999_999.999_9));
    }

    #[test]
    fn an_amount_above_zero_is_so_as_text_too() {
        let all: Map<String, Json> = of_entity(&payment::schema(), "Payment").into_iter().collect();
        let amount = jsonschema::validator_for(&all["PaymentPatch"]["properties"]["amount"]).unwrap();
        for (value, taken) in [("0", false), ("0.00", false), ("0.01", true), ("10", true)] {
            assert_eq!(amount.is_valid(&json!(value)), taken, "{value}");
        }
    }

    #[test]
    fn a_declared_decimal_is_text_and_an_integer_as_it_is_declared() {
        let declared =
            |form| Field { json: form, ..Field::new("n", Kind::Int { min: i64::MIN, max: i64::MAX }) };
        let wide = Kind::Decimal { min: Decimal::MIN, max: Decimal::MAX, scale: 28 };
        let exact = Field { json: JsonForm::String, ..Field::new("n", wide) };
        for (field, shown, taken) in [
            (declared(JsonForm::Number), json!("integer"), json!(["integer", "string"])),
            (declared(JsonForm::String), json!("string"), json!(["string", "integer"])),
            (exact, json!("string"), json!(["number", "string"])),
        ] {
            assert_eq!((&value_of(&field, false)["type"], &value_of(&field, true)["type"]), (&shown, &taken));
            let mut text = String::new();
            field.write_json(&Value::Int(7), &mut text);
            assert_eq!(text, if shown == "string" { "\"7\"" } else { "7" });
        }
        assert_eq!(value_of(&declared(JsonForm::Number), true)["maximum"], 9_007_199_254_740_991i64);
    }

    #[test]
    fn only_the_server_sets_what_is_read_only() {
        let all: Map<String, Json> = of_entity(&payment::schema(), "Payment").into_iter().collect();
        assert!(all["PaymentCreate"]["properties"].get("status").is_none());
        assert_eq!(all["Payment"]["properties"]["status"]["readOnly"], true);
    }

    #[test]
    fn names_are_joined() {
        assert_eq!(pascal("notification_template"), "NotificationTemplate");
        assert_eq!(pascal("store-list"), "StoreList");
    }
}
