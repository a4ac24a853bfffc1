//! The custom resource definitions: documented, bounded, with the defaults that the types have, and
//! generated.
#![cfg(feature = "kube")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::fs;

use crds::{
    definitions::{Definition, definitions},
    pool::PoolSpec,
    service::ServiceSpec,
    tier::TierSpec,
};
use serde_json::{Value, json};

/// Fields that only name something; what refers to them has a change class.
const CLASSLESS: [&str; 3] = [".name", "backends[].name", "fields[].name"];

fn spec_of(definition: &Definition) -> &Value {
    &definition.object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

/// Calls back for each schema below a spec, with its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{mark}"), &schema[key], visit);
        }
    }
}

#[test]
fn every_field_says_what_it_is_and_how_a_change_acts() {
    let mut silent = Vec::new();
    for definition in definitions().unwrap() {
        walk("spec", spec_of(&definition), &mut |path, schema| {
            let is_field = path.contains('.') && !path.ends_with(['}', ']']);
            let text = schema["description"].as_str().unwrap_or_default();
            let last = text.trim_end_matches('.').rsplit(". ").next().unwrap_or_default();
            let classed = ["Hot", "Rolling", "Fixed"].iter().any(|class| last.starts_with(class));
            let named_only = CLASSLESS.iter().any(|end| path.ends_with(end)) && text.ends_with('.');
            if is_field && !classed && !named_only {
                silent.push(format!("{} {path}: {text:?}", definition.plural));
            }
        });
    }
    assert!(silent.is_empty(), "no change class: {silent:#?}");
}

#[test]
fn everything_in_a_spec_is_bounded() {
    let mut unbounded = Vec::new();
    for definition in definitions().unwrap() {
        walk("spec", spec_of(&definition), &mut |path, schema| {
            let has = |key: &str| !schema[key].is_null();
            let bounded = match schema["type"].as_str() {
                Some("string") => has("maxLength") || has("enum"),
                Some("array") => has("maxItems"),
                Some("integer") => has("minimum") && has("maximum"),
                Some("object") => has("properties") || has("maxProperties"),
                Some("boolean") => true,
                None => has("x-kubernetes-int-or-string") && has("maxLength"),
                Some(other) => panic!("{path}: no bound is known for {other}"),
            };
            if !bounded {
                unbounded.push(format!("{} {path}", definition.plural));
            }
        });
    }
    assert!(unbounded.is_empty(), "unbounded: {unbounded:#?}");
}

/// What the API server makes of a value: every default of the schema filled in.
fn defaulted(schema: &Value, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if !property["default"].is_null() {
                object.entry(name).or_insert_with(|| property["default"].clone());
            }
            object.entry(name).and_modify(|value| defaulted(property, value));
        }
        object.retain(|_, value| !value.is_null());
    }
}

#[test]
fn nothing_is_filled_into_what_lists_hold() {
    for definition in definitions().unwrap() {
        walk("spec", spec_of(&definition), &mut |path, schema| {
            let in_list = path.contains(['[', '{']);
            assert!(!in_list || schema["default"].is_null(), "{} {path} has a default", definition.plural);
        });
    }
}

/// Client-side apply keeps a copy of what was applied in an annotation, of at most 256 KiB in all.
#[test]
fn every_definition_can_be_applied_by_the_client() {
    for definition in definitions().unwrap() {
        let bytes = serde_json::to_string(&definition.object).unwrap().len();
        assert!(bytes < 250_000, "{} has {bytes} bytes", definition.plural);
    }
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_types() {
    let [tiers, pools, services] = definitions().unwrap();
    let tier = json!({ "memory": {}, "redis": { "backendRef": { "name": "r" } } });
    let pool = json!({ "entity": "Custom", "fields": [{ "name": "f" }] });
    let secret = json!({ "secretRef": { "name": "s" } });
    let service = json!({
        "image": "i",
        "poolRefs": [{ "name": "p" }],
        "backends": [{ "name": "b", "mysql": secret, "kafka": secret }],
        "gateway": {},
        "autoscaling": { "minReplicas": 1, "maxReplicas": 1 },
    });
    let bare = json!({ "image": "i", "poolRefs": [] });
    let by_types = [
        (
            &tiers,
            tier.clone(),
            serde_json::to_value(serde_json::from_value::<TierSpec>(tier).unwrap()).unwrap(),
        ),
        (
            &pools,
            pool.clone(),
            serde_json::to_value(serde_json::from_value::<PoolSpec>(pool).unwrap()).unwrap(),
        ),
        (&services, service.clone(), to_json(service)),
        (&services, bare.clone(), to_json(bare)),
    ];
    for (definition, mut by_schema, by_types) in by_types {
        defaulted(spec_of(definition), &mut by_schema);
        // Empty lists and maps are left out where the types write them, and what lists hold is theirs alone.
        let pruned =
            |value: Value| serde_json::to_string_pretty(&without_empty(outside_lists(value))).unwrap();
        assert_eq!(pruned(by_schema), pruned(by_types), "{}", definition.plural);
    }
}

fn to_json(service: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<ServiceSpec>(service).unwrap()).unwrap()
}

fn outside_lists(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, outside_lists(value))).collect(),
        Value::Array(items) => json!(items.len()),
        other => other,
    }
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            kept.filter(|(_, value)| *value != json!({}) && *value != json!([])).collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

#[test]
fn the_generated_files_are_as_generated() {
    for definition in definitions().unwrap() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for (folder, text) in [
            ("crds/generated", definition.yaml().unwrap()),
            ("charts/flyweight/files/crds", definition.chart_yaml().unwrap()),
        ] {
            let path = format!("{root}/{folder}/{}.yaml", definition.plural);
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "{path}: run `make generate`");
        }
    }
}

#[test]
fn a_service_scales_and_every_kind_has_a_status() {
    for definition in definitions().unwrap() {
        let version = &definition.object["spec"]["versions"][0];
        assert_eq!(version["subresources"]["status"], json!({}));
        let conditions =
            &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(version["subresources"]["scale"].is_object(), definition.plural == "flyweightservices");
    }
}
