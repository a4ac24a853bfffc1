//! The examples that are shipped: the walk with curl ends well, and the file for editors asks for what there is.

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

#[tokio::test]
async fn the_requests_for_editors_are_in_the_document() {
    let stage = Stage::embedded();
    let document = stage.api.get("/openapi.json").await.json();
    let text = std::fs::read_to_string(root().join("configs/http/shop.http")).unwrap();
    let mut asked = 0;
    for line in text.lines() {
        let Some((method, url)) =
            line.split_once(" {{").filter(|(method, _)| method.bytes().all(|b| b.is_ascii_uppercase()))
        else {
            continue;
        };
        let path = url.replace("host}}", "").replace("api}}", "/api/v1");
        let path = path.split('?').next().unwrap();
        let paths = document["paths"].as_object().unwrap();
        let fits = |shape: &String| {
            let parts = shape.split('/').count() == path.split('/').count();
            parts && shape.split('/').zip(path.split('/')).all(|(shape, part)| shape.starts_with('{') || shape == part)
        };
        let found = paths.iter().any(|(shape, item)| fits(shape) && item.get(method.to_ascii_lowercase()).is_some());
        assert!(found, "the document has no {method} {path}");
        asked += 1;
    }
    assert!(asked > 10, "{asked}");
}
