//! The fields of a kind, by its schema.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::root;

/// The schema of a kind's spec.
pub fn schema(plural: &str) -> Value {
    let path = root().join(format!("crds/generated/{plural}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let definition: Value =
        serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{plural}: {error}"));
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// Every field that has none of its own: `backends[].mysql.maxConnections`.
pub fn leaves(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect("", schema, &mut found);
    found
}

fn collect(at: &str, schema: &Value, found: &mut BTreeSet<String>) {
    let items = &schema["items"];
    match schema["properties"].as_object() {
        Some(properties) => {
            let dot = if at.is_empty() { "" } else { "." };
            properties.iter().for_each(|(name, schema)| collect(&format!("{at}{dot}{name}"), schema, found));
        }
        None if items["properties"].is_object() => collect(&format!("{at}[]"), items, found),
        None => drop(found.insert(at.to_owned())),
    }
}

/// The field at a place in a spec: `backends/mysql/mysql/maxConnections` is
/// `backends[].mysql.maxConnections`.
pub fn field(schema: &Value, place: &str) -> String {
    let (mut name, mut schema) = (String::new(), schema);
    for part in place.split('/') {
        if schema["items"].is_object() {
            (name, schema) = (format!("{name}[]"), &schema["items"]);
        } else {
            let dot = if name.is_empty() { "" } else { "." };
            (name, schema) = (format!("{name}{dot}{part}"), &schema["properties"][part]);
        }
    }
    name
}

/// The value at a place. An entry of a list is found by its name, or else by its number.
pub fn at<'a>(value: &'a Value, place: &str) -> Option<&'a Value> {
    place.split('/').filter(|part| !part.is_empty()).try_fold(value, |value, part| match value {
        Value::Array(list) => list.get(position(list, part)?),
        _ => value.get(part.replace("~1", "/")),
    })
}

/// The same spec with another value at a place that may be empty. What it is part of must be there.
///
/// # Panics
/// It is not.
pub fn with(spec: &Value, place: &str, new: &Value) -> Value {
    let mut spec = spec.clone();
    let found = place.split('/').try_fold(&mut spec, |value, part| match value {
        Value::Array(list) => position(list, part).and_then(|index| list.get_mut(index)),
        Value::Object(map) => Some(map.entry(part).or_insert(Value::Null)),
        _ => None,
    });
    *found.unwrap_or_else(|| panic!("the sample has nothing at {place}")) = new.clone();
    spec
}

fn position(list: &[Value], part: &str) -> Option<usize> {
    list.iter().position(|one| one["name"] == part).or_else(|| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_come_from_the_schema() {
        let item = json!({ "type": "object", "properties": { "name": {}, "limits": { "additionalProperties": {} } } });
        let list = json!({ "type": "array", "items": { "type": "string" } });
        let schema = json!({ "properties": { "a": { "properties": { "b": {} } }, "c": { "items": item }, "d": list } });
        let all: Vec<String> = leaves(&schema).into_iter().collect();
        assert_eq!(all, ["a.b", "c[].limits", "c[].name", "d"]);
        assert_eq!(field(&schema, "c/x/limits"), "c[].limits");
        assert_eq!(field(&schema, "a/b"), "a.b");
    }

    #[test]
    fn places_are_names_or_numbers() {
        let spec = json!({ "list": [{ "name": "x" }, { "name": "y", "n": 1 }], "a/b": 2 });
        assert_eq!(at(&spec, "list/y/n"), Some(&json!(1)));
        assert_eq!(at(&spec, "list/1/n"), Some(&json!(1)));
        assert_eq!(at(&spec, "a~1b"), Some(&json!(2)));
        assert_eq!(at(&spec, "list/z"), None);
        assert_eq!(with(&spec, "list/x/n", &json!(3))["list"][0], json!({ "name": "x", "n": 3 }));
    }
}
