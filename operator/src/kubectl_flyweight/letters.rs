//! `dead-letters`: the messages that could not be handled.

use anyhow::Context;
use serde_json::Value;

use crate::{
    args::{DeadLetters, Output},
    cluster::Cluster,
    done::Done,
    token::Token,
    tree::table,
};

const COLUMNS: [&str; 7] = ["id", "stage", "subject", "class", "attempts", "error", "updated_at"];
const CELL_MAX: usize = 60;
/// As many as the API lists at once.
const SHOWN_MAX: usize = 1_000;

/// Lists them, hands one in again, or drops one.
///
/// # Errors
/// The service does not answer, knows no such letter, or asks for another token.
pub async fn run(cluster: &Cluster, args: &DeadLetters, output: Output) -> anyhow::Result<String> {
    let DeadLetters { service, replay, delete, token_file } = args;
    let token = Token::find(token_file.as_deref())?;
    let call = async |method: &str, path: &str| {
        let answer = cluster.call(service, method, &format!("/dead-letters{path}"), token.as_ref()).await;
        answer.with_context(|| format!("the API of {service}"))
    };
    let done = |action: &str, id: &str, message: String| {
        Done::new(service, action, message).with("id", id).show(output)
    };
    if let Some(id) = replay {
        call("POST", &format!("/{id}/replay")).await?;
        return Ok(done("replay", id, format!("{id} was handed in again")));
    }
    if let Some(id) = delete {
        call("DELETE", &format!("/{id}")).await?;
        return Ok(done("delete", id, format!("{id} was dropped")));
    }
    let answer = call("GET", &format!("?limit={SHOWN_MAX}")).await?;
    let answer: Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
    Ok(match output {
        Output::Json => format!("{answer:#}\n"),
        Output::Text => listed(&answer),
    })
}

fn listed(answer: &Value) -> String {
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return "no dead letters\n".to_owned();
    }
    // What the service does not say has no column.
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|column| items.iter().any(|item| !item[column].is_null())).collect();
    let row = |item: &Value| columns.iter().map(|column| cell(&item[column])).collect();
    let headings: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut text = table(&headings, &items.iter().map(row).collect::<Vec<_>>());
    let total = answer["total"].as_u64().unwrap_or_default();
    if total > items.len() as u64 {
        text.push_str(&format!("the first {} of {total}\n", items.len()));
    }
    text
}

fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\n', " ");
    if text.chars().count() <= CELL_MAX { text } else { text.chars().take(CELL_MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::{Asked, Server, service};

    const LETTERS: &str = "/api/v1/namespaces/web/services/shop:http/proxy/api/v1/dead-letters";

    fn args(replay: Option<&str>, delete: Option<&str>) -> DeadLetters {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        DeadLetters {
            service: "shop".to_owned(),
            replay: owned(replay),
            delete: owned(delete),
            token_file: None,
        }
    }

    /// A shop with one letter, which asks for the token.
    async fn shop() -> Server {
        Server::start(|asked: &Asked| {
            let line = asked.line.as_str();
            if !line.contains("/proxy/") {
                return (200, service(&json!({}), &json!({})));
            }
            if asked.headers.get("flyweight-authorization").is_none_or(|token| token != "Bearer a.b.c") {
                return (401, json!({ "title": "A valid token is needed", "detail": "send a token" }));
            }
            match line.split_once(LETTERS) {
                Some(("GET ", "")) => {
                    (200, json!({ "items": [{ "id": "7", "stage": "payments" }], "total": 1 }))
                }
                Some(("POST ", "/7/replay")) => (202, Value::Null),
                Some(("DELETE ", "/7")) => (204, Value::Null),
                _ => (404, json!({ "title": "There is nothing here", "detail": "no such letter" })),
            }
        })
        .await
    }

    struct File(std::path::PathBuf);

    impl File {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("flyweight-token-{:x}", rand::random::<u64>()));
            std::fs::write(&path, "a.b.c\n").unwrap();
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap();
        }
    }

    #[tokio::test]
    async fn letters_are_listed_replayed_and_dropped_with_the_token_of_a_file() {
        let (server, file) = (shop().await, File::new());
        let run = async |mut args: DeadLetters, output| {
            args.token_file = Some(file.0.clone());
            run(&server.cluster, &args, output).await
        };
        assert_eq!(run(args(None, None), Output::Text).await.unwrap(), "ID  STAGE\n7   payments\n");
        let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(json(run(args(None, None), Output::Json).await.unwrap())["items"][0]["id"], "7");
        assert_eq!(run(args(Some("7"), None), Output::Text).await.unwrap(), "7 was handed in again\n");
        let dropped = json(run(args(None, Some("7")), Output::Json).await.unwrap());
        assert_eq!((&dropped["action"], &dropped["id"]), (&json!("delete"), &json!("7")));
        let missing = run(args(Some("8"), None), Output::Text).await.unwrap_err();
        assert_eq!(format!("{missing:#}"), "the API of shop: 404 Not Found: no such letter");
        assert!(server.asked("").iter().all(|asked| !asked.headers.contains_key("authorization")));
    }

    #[tokio::test]
    async fn without_a_token_it_says_how_to_give_one() {
        let server = shop().await;
        let error = format!("{:#}", run(&server.cluster, &args(None, None), Output::Text).await.unwrap_err());
        assert!(
            error.contains("401 Unauthorized: send a token (--token-file, or FLYWEIGHT_TOKEN"),
            "{error}"
        );
    }

    #[test]
    fn letters_are_listed_with_what_is_known_of_them() {
        let answer =
            json!({ "items": [{ "id": "7", "error": "no such\nproduct", "attempts": 3 }], "total": 1 });
        assert_eq!(listed(&answer), "ID  ATTEMPTS  ERROR\n7   3         no such product\n");
        assert_eq!(listed(&json!({ "items": [], "total": 0 })), "no dead letters\n");
        let more = json!({ "items": [{ "id": "7" }], "total": 1_001 });
        assert_eq!(listed(&more), "ID\n7\nthe first 1 of 1001\n");
    }
}
