//! The shape of a resource against the schema that the API server has, and what is left of it without its
//! faults.

use std::{collections::BTreeSet, sync::LazyLock};

use jsonschema::{Validator, error::ValidationErrorKind as Wrong, paths::Location};
use serde_json::{Map, Value, json};

use super::path::Path;
use crate::{GROUP, VERSION};

/// The three kinds with the definitions that the cluster has, too.
const GENERATED: [(&str, &str); 3] = [
    ("CacheTier", include_str!("../../generated/cachetiers.yaml")),
    ("FlyweightPool", include_str!("../../generated/flyweightpools.yaml")),
    ("FlyweightService", include_str!("../../generated/flyweightservices.yaml")),
];
/// What the patterns in the schemas mean, by their ends.
const HINTS: [(&str, &str); 5] = [
    ("(ms|s|m|h|d)$", "write a whole number and ms, s, m, h or d, as in 60s"),
    ("|100)%)$", "write a share as in 85%, or a size as in 512Mi or 1GB"),
    ("([KMGT]i|[kKMGT]B?))$", "write a whole number of bytes, or one with a unit as in 256Mi or 1GB"),
    ("|1([.]0{1,6})?)$", "write a share as in 0.8: more than 0, and 1 at most"),
    ("[a-z0-9])?$", "write a-z, 0-9 and -, beginning and ending with a letter or digit"),
];

/// The schema of one kind, as strict as `kubectl apply`: unknown fields are faults.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) kind: &'static str,
    schema: Value,
    validator: Validator,
}

/// What is wrong with the shape of one resource.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Each fault with its path.
    pub(super) faults: Vec<(Path, String)>,
    /// Where values were left out or stood in for, so that nothing more is to be said of them.
    pub(super) replaced: BTreeSet<Path>,
}

/// The shapes of the three kinds.
///
/// # Errors
/// When a generated definition is not a schema, which the tests rule out.
pub(super) fn shapes() -> Result<&'static [Shape], &'static str> {
    static SHAPES: LazyLock<Result<Vec<Shape>, String>> =
        LazyLock::new(|| GENERATED.iter().map(|(kind, text)| Shape::of(kind, text)).collect());
    SHAPES.as_deref().map_err(String::as_str)
}

impl Shape {
    fn of(kind: &'static str, definition: &str) -> Result<Self, String> {
        let mut definition: Value = serde_yaml_ng::from_str(definition).map_err(|error| error.to_string())?;
        let mut spec =
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].take();
        strict(&mut spec);
        let schema = resource(kind, spec);
        let validator = jsonschema::draft202012::new(&schema).map_err(|error| error.to_string())?;
        Ok(Self { kind, schema, validator })
    }

    /// Checks a resource, and leaves in it what has the right shape, with stand-ins where something is
    /// required.
    pub(super) fn check(&self, value: &mut Value) -> Findings {
        drop_nulls(value);
        let mut findings = Findings::default();
        for error in self.validator.iter_errors(value) {
            let at = path(error.instance_path());
            let schema = self.schema_at(&at);
            match error.kind() {
                Wrong::AdditionalProperties { unexpected } => findings.faults.extend(
                    unexpected
                        .iter()
                        .map(|name| (at.key(name), format!("unknown field; there are: {}", names(schema)))),
                ),
                Wrong::Required { property } => {
                    let missing = at.key(property.as_str().unwrap_or_default());
                    findings.replaced.insert(missing.clone());
                    findings.faults.push((missing, "is required".to_owned()));
                }
                // That it is none of the options says more.
                Wrong::Type { .. } if !schema["enum"].is_null() => {}
                kind => {
                    findings.replaced.insert(at.clone());
                    findings.faults.push((
                        at,
                        message(kind, error.instance(), schema).unwrap_or_else(|| error.to_string()),
                    ));
                }
            }
        }
        if !findings.faults.is_empty() {
            *value = mended(value, &self.schema, &Path::default(), &findings.replaced)
                .unwrap_or_else(|| stand_in(&self.schema));
        }
        findings
    }

    fn schema_at(&self, path: &Path) -> &Value {
        use super::path::Step;
        path.0.iter().fold(&self.schema, |schema, step| match step {
            Step::Index(_) => &schema["items"],
            Step::Key(key) if schema["properties"][key].is_object() => &schema["properties"][key],
            Step::Key(_) => &schema["additionalProperties"],
        })
    }
}

/// The schema of a whole resource, with the metadata that the API server knows.
fn resource(kind: &str, spec: Value) -> Value {
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": { "type": "string", "enum": [format!("{GROUP}/{VERSION}")] },
            "kind": { "type": "string", "enum": [kind] },
            "metadata": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": false,
                "properties": {
                    "name": { "type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" },
                    "namespace": { "type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" },
                    "labels": texts,
                    "annotations": texts,
                    "finalizers": { "type": "array", "items": { "type": "string" } },
                    // What the API server writes, as `kubectl get -o yaml` shows it, is taken as it is.
                    "ownerReferences": {}, "managedFields": {}, "creationTimestamp": {}, "deletionTimestamp": {}, "deletionGracePeriodSeconds": {},
                    "generation": {}, "resourceVersion": {}, "selfLink": {}, "uid": {},
                },
            },
            "spec": spec,
            "status": {},
        },
    })
}

/// Makes unknown fields faults, and says in the standard's words what only Kubernetes knows.
fn strict(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if object.contains_key("properties") && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
    if object.contains_key("x-kubernetes-int-or-string") {
        object.insert("type".to_owned(), json!(["integer", "string"]));
    }
    object
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
        .for_each(|(_, child)| strict(child));
    object.get_mut("items").into_iter().for_each(strict);
    object.get_mut("additionalProperties").into_iter().for_each(strict);
}

/// The API server takes a field with the value null for one that is left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The value without what is wrong in it; none where the value itself is wrong, unless it is a list or
/// mapping that still can be read.
fn mended(value: &Value, schema: &Value, at: &Path, wrong: &BTreeSet<Path>) -> Option<Value> {
    match (value, schema["type"].as_str()) {
        (Value::Object(map), Some("object")) => {
            let declared = schema["properties"].as_object();
            let mut kept = Map::new();
            for (key, value) in map {
                let child = declared
                    .and_then(|declared| declared.get(key))
                    .or(schema["additionalProperties"].as_object().map(|_| &schema["additionalProperties"]));
                let mended = child
                    .and_then(|child| mended(value, child, &at.key(key), wrong).or_else(|| container(child)));
                kept.extend(mended.map(|value| (key.clone(), value)));
            }
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                kept.entry(key).or_insert_with(|| stand_in(&schema["properties"][key]));
            }
            Some(Value::Object(kept))
        }
        (Value::Array(items), Some("array")) => {
            let schema = &schema["items"];
            let mend = |(index, item)| {
                mended(item, schema, &at.index(index), wrong).unwrap_or_else(|| stand_in(schema))
            };
            Some(items.iter().enumerate().map(mend).collect())
        }
        _ => (!wrong.contains(at) || is_readable(value, schema)).then(|| value.clone()),
    }
}

/// Whether a value can be read although it is not allowed: text in which only the form is wrong, such as a
/// name that others refer to.
fn is_readable(value: &Value, schema: &Value) -> bool {
    let is_span = schema["pattern"].as_str().is_some_and(|pattern| pattern.ends_with(HINTS[0].0));
    value.is_string() && schema["type"] == "string" && schema["enum"].is_null() && !is_span
}

/// An empty mapping for one of the wrong type, so that the field still counts as there.
fn container(schema: &Value) -> Option<Value> {
    (schema["type"] == "object").then(|| stand_in(schema))
}

/// A value that can be read, where a required one is missing or wrong. The last of several is the least
/// special: an entity is then Custom.
fn stand_in(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    if let Some(last) = schema["enum"].as_array().and_then(|options| options.last()) {
        return last.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required
                .map(|key| (key.to_owned(), stand_in(&schema["properties"][key])))
                .collect::<Map<_, _>>()
                .into()
        }
        Some("array") => json!([]),
        Some("integer") => schema["minimum"].clone(),
        Some("boolean") => json!(false),
        _ => json!(""),
    }
}

fn path(location: &Location) -> Path {
    use super::path::Step;
    use jsonschema::paths::LocationSegment;
    Path(
        location
            .into_iter()
            .map(|segment| match segment {
                LocationSegment::Property(key) => Step::Key(key.into_owned()),
                LocationSegment::Index(index) => Step::Index(index),
            })
            .collect(),
    )
}

/// The fields that an author may write.
fn names(schema: &Value) -> String {
    let all = schema["properties"].as_object().into_iter().flatten();
    let names: Vec<&str> =
        all.filter(|(_, schema)| **schema != json!({})).map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

/// What is wrong, in the words of somebody who writes the resource.
fn message(kind: &Wrong, value: &Value, schema: &Value) -> Option<String> {
    Some(match kind {
        Wrong::Type { .. } => format!("must be {}, not {}{}", wanted(schema), found(value), hint(schema)),
        Wrong::Enum { options } => {
            let options: Vec<&str> = options.as_array()?.iter().filter_map(Value::as_str).collect();
            format!("{value} is not one of {}", options.join(", "))
        }
        Wrong::Pattern { pattern } => match hint(schema) {
            hint if hint.is_empty() => format!("{value} does not match {pattern}"),
            hint => format!("{value} is not allowed{hint}"),
        },
        Wrong::Minimum { limit } => format!("must be at least {limit}"),
        Wrong::Maximum { limit } => format!("must be at most {limit}"),
        Wrong::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Wrong::MaxLength { limit } => format!("must be at most {limit} characters long"),
        Wrong::MinItems { limit: 1 } => "must have at least one item".to_owned(),
        Wrong::MaxItems { limit } => format!("must have at most {limit} items"),
        Wrong::MaxProperties { limit } => format!("must have at most {limit} entries"),
        _ => return None,
    })
}

fn hint(schema: &Value) -> String {
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    HINTS
        .iter()
        .find(|(end, _)| pattern.ends_with(end))
        .map(|(_, hint)| format!(": {hint}"))
        .unwrap_or_default()
}

fn wanted(schema: &Value) -> &'static str {
    match schema["type"].as_str() {
        Some("object") => "a mapping",
        Some("array") => "a list",
        Some("integer") => "a whole number",
        Some("boolean") => "true or false",
        Some(_) => "a string",
        None => "a string or a whole number",
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Object(_) => "a mapping".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("the string {text:?}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
