//! The examples that are shipped: the walk with curl ends well, and each request for editors is answered as
//! its title says.

use std::process::{Command, Stdio};

use harness::root;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk_with_curl_ends_well() {
    let stage = Stage::embedded();
    let output = tokio::task::block_in_place(|| {
        let script = root().join("configs/http/shop.sh");
        Command::new(script).arg(stage.api.base()).stdin(Stdio::null()).output().unwrap()
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("product_deleted"), "{printed}");
}

/// One after the other, as a person does: each succeeds, or is answered as its title says.
#[tokio::test]
async fn the_requests_for_editors_are_answered_as_they_say() {
    let stage = Stage::embedded();
    let text = std::fs::read_to_string(root().join("configs/http/shop.http")).unwrap();
    let text = text.replace("{{api}}", "/api/v1").replace("{{host}}", "");
    let mut asked = 0;
    for part in text.split("\n### ").skip(1) {
        let (head, body) = part.split_once("\n\n").unwrap_or((part, ""));
        let mut lines = head.lines();
        let title = lines.next().unwrap();
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let headers: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
        let body = Some(body.trim().as_bytes().to_vec()).filter(|body| !body.is_empty());
        let answer = stage.api.call(method.parse().unwrap(), path, &headers, body).await.unwrap();
        match title.rsplit_once(": ").and_then(|(_, status)| status.parse::<u16>().ok()) {
            Some(status) => assert_eq!(answer.status, status, "{title}: {}", answer.text),
            None => {
                assert!((200..300).contains(&answer.status), "{title}: {} {}", answer.status, answer.text)
            }
        }
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
}
