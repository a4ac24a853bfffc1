//! Bounds in bytes and in time: pages, what answers hold, bodies that come slowly.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// The bytes of each large record.
const LARGE: usize = 500 << 10;
const RECORDS: usize = 12;

async fn with_large_records() -> Server {
    let server = Server::start().await;
    for index in 0..RECORDS {
        let (id, text) = (format!("c{index:02}"), "x".repeat(LARGE));
        server.put(&format!("/configurations/{id}"), &format!(r#"{{"value":"{text}"}}"#)).await.expect(201);
    }
    server
}

/// All keys of a list, and the most bytes of one of its pages.
async fn walk(first: &str, ask: impl AsyncFn(Option<&str>) -> Answer) -> (Vec<String>, usize) {
    let (mut keys, mut most, mut cursor) = (Vec::new(), 0, None::<String>);
    loop {
        let page = ask(cursor.as_deref()).await.expect(200);
        most = most.max(page.text.len());
        let body = page.json();
        let items = body["items"].as_array().unwrap();
        assert!(!items.is_empty(), "{first}: a page has one record at least");
        let key = |item: &Json| item["key"].as_str().or(item["id"].as_str()).unwrap().to_owned();
        keys.extend(items.iter().map(key));
        match body["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return (keys, most),
        }
    }
}

#[tokio::test]
async fn every_kind_of_page_ends_at_its_bytes_and_goes_on() {
    let server = with_large_records().await;
    let all: Vec<String> = (0..RECORDS).map(|index| format!("c{index:02}")).collect();
    let by = |path: String| {
        let server = &server;
        async move |cursor: Option<&str>| {
            let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            server.get(&format!("{path}{cursor}")).await
        }
    };
    let query = async |cursor: Option<&str>| {
        let cursor = cursor.map(|cursor| format!(r#","cursor":"{cursor}""#)).unwrap_or_default();
        let body = format!(r#"{{"repository":"configurations","limit":1000{cursor}}}"#);
        server.post("/repositories/query", &body).await
    };
    let ids = format!("/configurations?ids={}", all.join(","));
    for (keys, most) in [
        walk("list", by("/configurations?limit=1000".to_owned())).await,
        walk("ids", by(ids)).await,
        walk("query", query).await,
        walk("audit", by("/audit?entity=configuration&limit=1000".to_owned())).await,
    ] {
        assert_eq!(keys, all);
        assert!(most > LARGE && most < 5 << 20, "{most} bytes in one page");
    }
    let page = server.get("/configurations?limit=1000").await.json();
    assert_eq!((&page["total"], page["items"].as_array().unwrap().len()), (&RECORDS.into(), 8));
    assert_eq!(server.get("/configurations?ids=c00,c01&cursor=Mg").await.problem(400), ["cursor"]);
}

#[tokio::test]
async fn clients_that_ask_for_the_largest_pages_hold_no_more_than_answers_may() {
    const CLIENTS: usize = 16;
    // one page, and the text that is made of it
    const MOST: u64 = 10 << 20;
    let server = Arc::new(with_large_records().await);
    let budgets = server.resource("configurations").budgets().clone();
    budgets.answers.set_capacity(MOST);
    let client = async |server: Arc<Server>| {
        let (mut keys, mut path) = (Vec::new(), "/configurations?limit=1000".to_owned());
        loop {
            let page = server.get(&path).await;
            if page.status == StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(page.header("retry-after"), "1");
                tokio::task::yield_now().await;
                continue;
            }
            let body = page.expect(200).json();
            keys.extend(body["items"].as_array().unwrap().iter().map(|item| item["id"].to_string()));
            match body["next_cursor"].as_str() {
                Some(next) => path = format!("/configurations?limit=1000&cursor={next}"),
                None => return keys.len(),
            }
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(server.clone()))).collect();
    for done in futures::future::join_all(clients).await {
        assert_eq!(done.unwrap(), RECORDS, "every client gets every record");
    }
    assert!(budgets.answers.peak() <= MOST, "{} bytes were held at once", budgets.answers.peak());
}

#[tokio::test]
async fn without_memory_pages_are_refused_and_small_reads_go_on() {
    let server = with_large_records().await;
    server.put("/configurations/small", r#"{"value":1}"#).await.expect(201);
    let budgets = server.resource("configurations").budgets().clone();
    let held = budgets.answers.share();
    assert!(held.grow(budgets.answers.capacity() - budgets.answers.used()));
    for path in ["/configurations?limit=1000", "/configurations?ids=c00", "/audit", "/configurations/c00"] {
        let answer = server.get(path).await;
        assert_eq!(answer.problem(503), Vec::<String>::new(), "{path}");
        assert_eq!(
            (answer.json()["type"].as_str().unwrap(), answer.header("retry-after")),
            (MEMORY, "1"),
            "{path}"
        );
    }
    server.get("/configurations/small").await.expect(200);
    let text = "x".repeat(LARGE);
    let bodies = budgets.bodies.share();
    assert!(bodies.grow(budgets.bodies.capacity() - budgets.bodies.used()));
    server.put("/configurations/new", &format!(r#"{{"value":"{text}"}}"#)).await.problem(503);
    server.put("/configurations/new", r#"{"value":1}"#).await.expect(201);
    drop((held, bodies));
    server.get("/configurations/c00").await.expect(200);
}

const MEMORY: &str = "urn:flyweight:problem:memory";

#[tokio::test]
async fn bodies_that_come_slowly_take_no_places() {
    let server = Server::start().await;
    let (mut slow, mut told) = (Vec::new(), [0; 1_024]);
    // more than there are places, for all requests and for writes
    for (count, path) in [(150, "users"), (80, "repositories/query")] {
        for _ in 0..count {
            let mut stream = TcpStream::connect(&server.address).await.unwrap();
            let head = format!(
                "POST /api/v1/{path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\
                 expect: 100-continue\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // it is told to go on when somebody waits for its body
            let length = stream.read(&mut told).await.unwrap();
            assert!(
                told[..length].starts_with(b"HTTP/1.1 100"),
                "{}",
                String::from_utf8_lossy(&told[..length])
            );
            stream.write_all(b"{").await.unwrap();
            slow.push(stream);
        }
    }
    server.post("/users", r#"{"id":"a","email":"a@example.org","name":"A"}"#).await.expect(201);
    server.patch("/users/a", r#"{"name":"B"}"#).await.expect(200);
    server.get("/users").await.expect(200);
    drop(slow);
}
