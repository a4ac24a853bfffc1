//! `dead-letters`: the messages that could not be handled.

use anyhow::Context;
use serde_json::Value;

use crate::{
    args::{DeadLetters, Output},
    cluster::Cluster,
    tree::table,
};

const COLUMNS: [&str; 5] = ["id", "topic", "attempts", "error", "at"];
const CELL_MAX: usize = 60;

/// Lists them, hands one in again, or drops one.
///
/// # Errors
/// The service does not answer, knows no such letter, or asks for a token: then use its API.
pub async fn run(cluster: &Cluster, args: &DeadLetters, output: Output) -> anyhow::Result<String> {
    let DeadLetters { service, replay, delete } = args;
    let hint = || format!("the API of {service}; where it asks for tokens, call /api/v1/dead-letters there yourself");
    if let Some(id) = replay {
        cluster.call(service, "POST", &format!("/dead-letters/{id}/replay")).await.with_context(hint)?;
        return Ok(format!("{id} was handed in again\n"));
    }
    if let Some(id) = delete {
        cluster.call(service, "DELETE", &format!("/dead-letters/{id}")).await.with_context(hint)?;
        return Ok(format!("{id} was dropped\n"));
    }
    let answer = cluster.call(service, "GET", "/dead-letters").await.with_context(hint)?;
    let answer: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
    Ok(match output {
        Output::Json => format!("{answer:#}\n"),
        Output::Text => listed(&answer),
    })
}

fn listed(answer: &Value) -> String {
    let items = answer["items"].as_array().or(answer.as_array()).map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return "no dead letters\n".to_owned();
    }
    // What the service does not say has no column.
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|column| items.iter().any(|item| !item[column].is_null())).collect();
    let row = |item: &Value| columns.iter().map(|column| cell(&item[column])).collect();
    let headings: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    table(&headings, &items.iter().map(row).collect::<Vec<_>>())
}

fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\n', " ");
    if text.chars().count() <= CELL_MAX { text } else { text.chars().take(CELL_MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn letters_are_listed_with_what_is_known_of_them() {
        let answer = json!({ "items": [{ "id": "7", "error": "no such\nproduct", "attempts": 3 }] });
        assert_eq!(listed(&answer), "ID  ATTEMPTS  ERROR\n7   3         no such product\n");
        assert_eq!(listed(&json!({ "items": [] })), "no dead letters\n");
    }
}
