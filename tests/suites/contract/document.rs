//! The contract against the service's own OpenAPI document: nothing in it was left out here, and no answer
//! was outside it.

use std::collections::BTreeSet;

use harness::client::Api;
use reqwest::Method;
use serde_json::{Value, json};

use crate::described::{FEED, Operation, operations};

/// Each operation of the document was called with success, and each status that was answered is one that it
/// has.
pub async fn every_operation_was_called_and_is_exact(api: &Api) {
    let operations = operations(api).await;
    for Operation { path, .. } in
        operations.iter().filter(|one| one.method == Method::GET && !one.path.contains('{'))
    {
        if !FEED.contains(&path.as_str()) {
            assert!(api.get(path).await.status < 300, "{path}");
        }
    }
    let mut left: BTreeSet<String> =
        operations.iter().filter(|one| !FEED.contains(&one.path.as_str())).map(Operation::name).collect();
    for call in api.calls() {
        let fitting = operations.iter().filter_map(|one| Some((one.fits(&call.method, &call.path)?, one)));
        let Some((_, operation)) = fitting.min_by_key(|(parameters, _)| *parameters) else { continue };
        if call.status < 300 {
            left.remove(&operation.name());
        }
        assert!(
            operation.can_answer(call.status),
            "{} answered {}: {:?}",
            operation.name(),
            call.status,
            call.path
        );
    }
    assert!(left.is_empty(), "the contract calls everything, but not {left:#?}");
    eprintln!("{} operations, {} calls", operations.len(), api.calls().len());
}

/// What every operation refuses: parameters and fields that it does not have, bodies that are none, keys that
/// are none or of nothing.
pub async fn every_operation_refuses_what_makes_no_sense(api: &Api) {
    for operation in operations(api).await.iter().filter(|one| !FEED.contains(&one.path.as_str())) {
        let (name, method) = (operation.name(), &operation.method);
        let path = operation.path_with("nothing");
        if operation.can_answer(400) && operation.described.get("requestBody").is_none() {
            let answer = api.send(method.clone(), &format!("{path}?nonsense=1"), &[], &Value::Null).await;
            assert_eq!(
                (answer.status, answer.fields()),
                (400, vec!["nonsense".to_owned()]),
                "{name}: {}",
                answer.text
            );
        }
        if let Some(key) = operation.key().filter(|_| operation.can_answer(404) && operation.can_answer(400))
        {
            malformed_key(api, operation, key).await;
        }
        if operation.described.get("requestBody").is_some() {
            wrong_bodies(api, operation, &path).await;
        }
    }
}

async fn malformed_key(api: &Api, operation: &Operation, key: &str) {
    let name = operation.name();
    let body = match operation.method {
        Method::GET | Method::DELETE => Value::Null,
        _ => json!({}),
    };
    let answer = api.send(operation.method.clone(), &operation.path_with("a%00b"), &[], &body).await;
    // a category and a type of repository may be any text
    if answer.status == 400 {
        assert_eq!(answer.fields(), [key], "{name}: {}", answer.text);
    } else {
        assert!(
            [200, 404].contains(&answer.status) && !["id", "user_id"].contains(&key),
            "{name}: {}",
            answer.text
        );
    }
}

async fn wrong_bodies(api: &Api, operation: &Operation, path: &str) {
    let (name, method) = (operation.name(), &operation.method);
    // a record that the path does not name
    let named =
        *method != Method::POST && operation.parameters("query").iter().any(|parameter| parameter == "id");
    let path = &if named { format!("{path}?id=none") } else { path.to_owned() };
    let text = api
        .call(method.clone(), path, &[("content-type", "application/json-patch+json")], Some(b"x".to_vec()))
        .await
        .unwrap();
    assert_eq!(text.status, 415, "{name}: {}", text.text);
    for body in ["{\"a\":", "[1]", "nonsense"] {
        let answer = api.call(method.clone(), path, &[], Some(body.into())).await.unwrap();
        assert_eq!(answer.status, 400, "{name}: {body}: {}", answer.text);
    }
    let unknown = api.send(method.clone(), path, &[], &json!({ "nonsense": 1 })).await;
    let named = unknown.fields().iter().any(|field| field.ends_with("nonsense"));
    assert!(unknown.status == 400 && named, "{name}: {} {}", unknown.status, unknown.text);
}
