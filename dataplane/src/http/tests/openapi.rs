//! The document and the router say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What the app routes beside the router: a suite asks the whole process for them.
const BY_APP: [&str; 9] = [
    "/ws",
    "/events/stream",
    "/pipeline",
    "/timeline",
    "/cancel",
    "/dead-letters",
    "/dead-letters/{}",
    "/dead-letters/{}/replay",
    "/dead-letters/replay",
];

/// A path without the names of its parameters.
fn shape(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The paths of a router: what it shows of itself for debugging has them all.
fn routed(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let paths = shown.split('"').filter(|text| text.starts_with('/'));
    // the fallback is one too, under the root and a wildcard
    paths.filter(|path| *path != "/" && !path.contains("axum")).map(shape).collect()
}

/// The methods that a path of the document has, by the path's shape, and one path of that shape.
fn described(document: &Json) -> BTreeMap<String, (BTreeSet<String>, String)> {
    let mut all: BTreeMap<String, (BTreeSet<String>, String)> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let entry = all.entry(shape(path)).or_default();
        entry.0.extend(item.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()));
        entry.1 = shape(path).replace("{}", "a");
    }
    all
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_routed() {
    let server = Server::start().await;
    let document = server.get("//openapi.json").await.expect(200).json();
    let described = described(&document);
    let routed = routed(&server.router);
    let names: BTreeSet<String> = described.keys().cloned().collect();
    let missing: Vec<_> = routed.difference(&names).collect();
    assert!(missing.is_empty(), "routes that http/openapi does not describe: {missing:?}");
    for (path, (methods, example)) in &described {
        if BY_APP.iter().any(|end| path.ends_with(end)) {
            continue;
        }
        assert!(path == "/" || routed.contains(path), "described, but no route: {path}");
        let answer = server.send(Method::TRACE, &format!("/{example}"), &[], "").await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.text);
        let allowed: BTreeSet<String> =
            answer.header("allow").split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(&allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_operation_has_its_own_id() {
    let server = Server::start().await;
    let answer = server.get("/openapi.json").await.expect(200);
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for reference in answer.text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let tags: Vec<&Json> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "two operations have the id {id}");
            assert!(tags.contains(&&operation["tags"][0]), "{id}: its tag is not described");
            assert!(operation["responses"].as_object().is_some_and(|answers| !answers.is_empty()), "{id}");
        }
    }
    let tag = answer.header("etag").to_owned();
    let again = server.send(Method::GET, "//openapi.json", &[("if-none-match", &tag)], "").await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
}

#[tokio::test]
async fn records_are_as_their_schemas_say() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    let fits = |name: &str, instance: &Json| {
        let mut schema = document.clone();
        schema["$ref"] = format!("#/components/schemas/{name}").into();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let faults: Vec<String> = validator.iter_errors(instance).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}: {instance}");
    };
    let product = r#"{"id":"p","name":"Lamp","price":"19.90","attributes":{"a":[1,null]}}"#;
    fits("ProductCreate", &serde_json::from_str(product).unwrap());
    fits("Product", &server.post("/products", product).await.expect(201).json());
    let order = r#"{"user_id":"u","items":[{"product_id":"p","quantity":2}]}"#;
    fits("OrderCreate", &serde_json::from_str(order).unwrap());
    fits("Order", &server.post("/orders", order).await.expect(201).json());
    fits("ProductPage", &server.get("/products").await.json());
    fits("ProductPage", &server.get("/products?ids=p,q").await.json());
    fits("Problem", &server.get("/products/-").await.json());
    fits("Health", &server.get("/health").await.json());
    fits("Pools", &server.get("/pools").await.json());
}
