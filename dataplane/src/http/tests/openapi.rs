//! The document and the router say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use model::routes::{self, Effect, Entry};

/// What the app routes beside the router, or the gateway has: the document has the app's, and a suite asks a
/// whole process for them.
fn is_by_app(entry: &Entry) -> bool {
    let by_app = [
        &routes::WEB_SOCKET,
        &routes::WEB_SOCKET_OF_API,
        &routes::EVENT_STREAM,
        &routes::PIPELINE,
        &routes::TIMELINE,
        &routes::CANCEL,
        &routes::LETTERS,
        &routes::LETTER,
        &routes::REPLAY_LETTER,
        &routes::REPLAY_LETTERS,
    ];
    by_app.iter().any(|route| route.path == entry.route.path)
}

/// A path without the names of its parameters.
fn shape(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// What the table has for these pools: the methods of each path, and whether the router has it.
fn tabled(pools: &[Pool]) -> BTreeMap<String, (BTreeSet<String>, bool)> {
    let mut all: BTreeMap<String, (BTreeSet<String>, bool)> = BTreeMap::new();
    for entry in routes::all().filter(|entry| entry.route.path != routes::GATEWAY_REGISTRY.path) {
        for (pool, path) in paths_of(&entry, pools) {
            let writes = matches!(entry.route.effect, Effect::Writes | Effect::WritesByKey);
            if !writes || pool.is_none_or(|pool| pool.resource.is_writable()) {
                let known = all.entry(shape(&path)).or_insert_with(|| (BTreeSet::new(), !is_by_app(&entry)));
                known.0.insert(entry.route.method.to_string());
            }
        }
    }
    all
}

/// The paths of an entry: one, or one for each declared pool.
fn paths_of<'a>(entry: &Entry, pools: &'a [Pool]) -> Vec<(Option<&'a Pool>, String)> {
    match entry.home {
        None => vec![(None, entry.path())],
        Some(home) => {
            let own = pools.iter().filter(|pool| pool.entity == home);
            own.map(|pool| (Some(pool), entry.path().replace("{pool}", pool.resource.pool()))).collect()
        }
    }
}

/// The methods that a path of the document has, by the path's shape.
fn described(document: &Json) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase());
        all.entry(shape(path)).or_default().extend(methods);
    }
    all
}

/// The paths of a router: what it shows of itself for debugging has them all.
fn routed(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let paths = shown.split('"').filter(|text| text.starts_with('/'));
    // the fallback is one too, under the root and a wildcard
    paths.filter(|path| *path != "/" && !path.contains("axum")).map(shape).collect()
}

#[tokio::test]
async fn the_table_has_every_route_and_each_is_described_and_routed() {
    let server = Server::start().await;
    let described = described(&server.get("//openapi.json").await.expect(200).json());
    let tabled = tabled(&server.pools);
    let wanted: BTreeMap<_, _> =
        tabled.iter().map(|(path, (methods, _))| (path.clone(), methods.clone())).collect();
    assert_eq!(described, wanted, "what http/openapi describes, and the table of routes");
    let extra: Vec<String> =
        routed(&server.router).into_iter().filter(|path| !tabled.contains_key(path)).collect();
    assert!(extra.is_empty(), "routes that the table does not have: {extra:?}");
    for (path, (methods, _)) in tabled.iter().filter(|(_, (_, by_router))| *by_router) {
        let answer = server.send(Method::TRACE, &format!("/{}", path.replace("{}", "a")), &[], "").await;
        assert_eq!(answer.status, 405, "{path}: {}", answer.text);
        let allowed = answer.header("allow").split(',').filter(|method| *method != "HEAD");
        assert_eq!(&allowed.map(str::to_owned).collect::<BTreeSet<_>>(), methods, "{path}");
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

#[tokio::test]
async fn a_key_that_is_the_word_of_another_route_is_refused_as_described() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        server.send(method.clone(), "/products/batch", &[], "{}").await.problem(405);
        let described =
            &document["paths"]["/api/v1/products/{id}"][method.as_str().to_lowercase()]["responses"];
        assert!(described.get("405").is_some(), "{method}");
    }
}

#[tokio::test]
async fn bodies_are_described_as_they_are_taken() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    for (path, body, taken) in [
        ("/products/batch", r#"{"operations":[{"op":"delete","id":"p"}]}"#, true),
        ("/products/batch", r#"{"operations":[{"op":"delete","id":"p","data":{}}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"delete"}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"update","data":{}}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"patch","id":"p"}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"create"}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"create","id":"p","version":1,"data":{}}]}"#, false),
        ("/products/batch", r#"{"operations":[{"op":"patch","id":"p","version":1,"data":{}}]}"#, true),
        ("/orders", r#"{"user_id":"u","items":[{"product_id":"p","quantity":1,"price":1e12}]}"#, false),
        ("/repositories/query", r#"{"repository":""}"#, false),
        ("/factory/cleanup", r#"{"idle_after":"30"}"#, false),
        ("/factory/cleanup", r#"{"idle_after":"30s"}"#, true),
        // another program may have made a record of any key
        ("/repositories/cache/warm", r#"{"repository":"products","ids":["a b"]}"#, true),
    ] {
        let schema = &document["paths"][format!("/api/v1{path}")]["post"]["requestBody"]["content"]["application/json"];
        let mut described = document.clone();
        described["allOf"] = serde_json::json!([schema["schema"]]);
        let described = jsonschema::draft202012::new(&described).unwrap();
        let fits = described.is_valid(&serde_json::from_str(body).unwrap());
        let answer = server.post(path, body).await;
        assert_eq!((fits, answer.status.is_success()), (taken, taken), "{path} {body}: {}", answer.text);
    }
}

/// Each part of a document with the way to it.
fn walk<'a>(part: &'a Json, way: &str, found: &mut Vec<(String, &'a Json)>) {
    found.push((way.to_owned(), part));
    match part {
        Json::Object(members) => {
            members.iter().for_each(|(name, part)| walk(part, &format!("{way}/{name}"), found))
        }
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(index, part)| walk(part, &format!("{way}/{index}"), found));
        }
        _ => (),
    }
}

#[tokio::test]
async fn generators_of_clients_find_what_they_need() {
    let server = Server::start().await;
    let document = server.get("//openapi.json").await.json();
    let mut parts = Vec::new();
    walk(&document, "", &mut parts);
    for (way, part) in parts {
        let is = |kind: &str| {
            part["type"] == kind || part["type"].as_array().is_some_and(|kinds| kinds.contains(&kind.into()))
        };
        assert!(!is("array") || part.get("items").is_some(), "{way}: a list of what?");
        let optional = part["properties"].as_object().into_iter().flatten();
        for (name, property) in optional {
            assert!(
                property.get("default").is_none(),
                "{way}/{name}: a default makes it required for TypeScript"
            );
        }
    }
}

/// Sends what an operation has for an example.
async fn send_example(server: &Server, path: &str, method: &str, operation: &Json) -> Answer {
    let mut path = path.to_owned();
    for parameter in
        operation["parameters"].as_array().into_iter().flatten().filter(|one| one["required"] == true)
    {
        let (name, value) = (parameter["name"].as_str().unwrap(), parameter["example"].as_str().unwrap());
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), value),
            "query" => path.push_str(&format!("?{name}={value}")),
            place => panic!("{path}: {name} is in {place}"),
        }
    }
    let content = operation["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
    let (media, body) = content.map_or((String::new(), String::new()), |(media, content)| {
        assert!(content.get("example").is_some(), "{method} {path}: a body without an example");
        (media.clone(), content["example"].to_string())
    });
    let headers = [("content-type", media.as_str())];
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &headers };
    server.send(method.to_uppercase().parse().unwrap(), &format!("/{path}"), headers, body).await
}

#[tokio::test]
async fn every_example_works_as_it_stands() {
    let server = Server::start().await;
    let document = server.get("//openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    // what others refer to first
    let collections = [
        "users",
        "products",
        "orders",
        "payments",
        "notifications/templates",
        "configurations",
        "pools/stores",
    ];
    let make_all = async || {
        for collection in collections {
            let path = format!("/api/v1/{collection}");
            let made = send_example(&server, &path, "post", &paths[&path]["post"]).await;
            assert!([201, 409].contains(&made.status.as_u16()), "{path}: {}", made.text);
        }
    };
    make_all().await;
    let by_app: BTreeSet<String> =
        routes::all().filter(is_by_app).map(|entry| shape(&entry.path())).collect();
    for (path, item) in paths.iter().filter(|(path, _)| !by_app.contains(&shape(path))) {
        for (method, operation) in item.as_object().unwrap() {
            let creates = method == "post"
                && collections.iter().any(|collection| *path == format!("/api/v1/{collection}"));
            // made above; and nobody writes to what has no version
            if creates || path.starts_with("/api/v1/pools/regions/") {
                continue;
            }
            let answer = send_example(&server, path, method, operation).await;
            assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text);
            if method == "delete" {
                make_all().await;
            }
        }
    }
}
