//! The way down: a process that is told to stop ends in time, whatever is away then; and one without a task
//! that it needs ends by itself.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use harness::{client::Api, dataplane::DataPlane, manifests, wait};
use serde_json::json;

use crate::stage::Stage;

/// The longest that it may take while every server is away: much less than the grace period of a pod, which
/// is 60 s.
const DOWN: Duration = Duration::from_secs(35);
/// How soon something happens that nothing holds up.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_every_server_stands_still_or_is_gone_ends_in_time() {
    let Some(mut stage) = Stage::real("a stop while every server is away").await else { return };
    let mut second = tokio::task::block_in_place(|| stage.replica());
    for api in [&stage.api, &Api::at(&second.url)] {
        let product = json!({ "name": "Lamp", "price": 1, "stock": 9 });
        let product = api.post("/api/v1/products", &product).await.json()["id"].clone();
        let order = json!({ "user_id": "u", "items": [{ "product_id": product, "quantity": 1 }] });
        assert_eq!(api.post("/api/v1/orders", &order).await.status, 201);
    }
    let servers = stage.servers.as_mut().unwrap();
    let all = [&servers.mysql, &servers.mongo, &servers.redis, &servers.kafka];
    all.iter().for_each(|server| server.freeze());
    wait::until("every server to stand still", SOON, async || {
        all.iter().all(|server| server.is_frozen()).then_some(())
    })
    .await;
    let begun = Instant::now();
    stage.data_plane.ask_to_stop();
    let status = stage.data_plane.ended(DOWN).await;
    assert!(status.success(), "{status}");
    eprintln!("while every server stood still: {:?}", begun.elapsed());
    for server in [&mut servers.mysql, &mut servers.mongo, &mut servers.redis, &mut servers.kafka] {
        server.kill();
    }
    let begun = Instant::now();
    second.ask_to_stop();
    let status = second.ended(DOWN).await;
    assert!(status.success(), "{status}");
    eprintln!("while every server was gone: {:?}", begun.elapsed());
}

/// What holds it up longer than it has time is left behind, and that is no success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_does_not_come_to_its_end_is_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, data) = (dir.path().join("manifests"), dir.path().join("data"));
    manifests::write_samples_with(&shop, "");
    let [shop, data] = [shop, data].map(|path| path.display().to_string());
    let mut data_plane =
        DataPlane::start(&["serve", "--manifests", &shop, "--data-dir", &data, "--grace-period", "1500ms"]);
    // a request whose body never comes
    let mut stream = TcpStream::connect(data_plane.url.trim_start_matches("http://")).unwrap();
    let head = "POST /api/v1/products HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Api::at(&data_plane.url).get("/livez").await.status, 200);
    data_plane.ask_to_stop();
    assert_eq!(data_plane.ended(SOON).await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_a_task_that_it_needs_ends() {
    let mut stage = Stage::embedded();
    tokio::task::block_in_place(|| {
        stage.data_plane.terminate();
        stage.data_plane.restart_with(&[("FLYWEIGHT_PANIC_AT", "mongodb.relay.claimed")]);
    });
    let product = json!({ "id": "lamp", "name": "Lamp", "price": 1 });
    assert_eq!(stage.api.post("/api/v1/products", &product).await.status, 201);
    assert_eq!(stage.data_plane.ended(SOON).await.code(), Some(1));
    tokio::task::block_in_place(|| stage.data_plane.restart());
    assert_eq!(stage.api.get("/api/v1/products/lamp").await.status, 200);
    crate::feed::drained(&stage.api, SOON).await;
}
