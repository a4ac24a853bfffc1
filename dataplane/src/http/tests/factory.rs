//! `/factory/…` and `/repositories/cache/…`.

use super::*;
use ::testing::until;

const JSON: (&str, &str) = ("content-type", "application/json");

async fn with_products(count: usize) -> Server {
    let server = Server::start().await;
    for n in 0..count {
        let body = format!(r#"{{"id":"p{n}","name":"Tea","description":"Green","price":1}}"#);
        server.post("/products", &body).await.expect(201);
    }
    server
}

#[tokio::test]
async fn stats_tell_what_memory_holds_and_tiers_did() {
    let server = with_products(20).await;
    for _ in 0..2 {
        for n in 0..20 {
            server.get(&format!("/products/p{n}")).await.expect(200);
        }
    }
    let stats = server.get("/factory/stats").await.expect(200).json();
    let products = &stats["pools"]["products"];
    for (field, value) in [("entities", 20), ("hits", 20), ("misses", 20), ("evictions", 0)] {
        assert_eq!(products[field], value, "{field}: {products}");
        assert_eq!(stats["total"][field], value, "{field}");
    }
    assert_eq!(products["hit_rate"], 0.5);
    assert_eq!(products["last_cleanup"], Json::Null);
    for field in ["flyweights", "shared", "unshared", "bytes", "bytes_saved"] {
        assert!(products[field].is_i64(), "{field}: {products}");
        assert!(stats["total"][field].is_i64(), "{field}");
    }
    assert_eq!(products["tiers"][0]["name"], "hot");
    assert_eq!(products["tiers"][0]["hit_rate"], 0.5);
    let roles = products["roles"]["fields"].as_array().unwrap();
    assert!(
        roles.iter().any(|role| role["field"] == "description" && role["reason"].is_string()),
        "{roles:?}"
    );
    let cache = server.get("/repositories/cache/stats").await.expect(200).json();
    assert_eq!((&cache["hits"], &cache["hit_rate"]), (&20.into(), &0.5.into()));
    assert_eq!(cache["repositories"]["products"]["loads"], 20);
    assert_eq!(server.get("/factory/stats?x=1").await.problem(400), ["x"]);
}

#[tokio::test]
async fn a_cleanup_drops_what_is_idle() {
    let server = with_products(3).await;
    for n in 0..3 {
        server.get(&format!("/products/p{n}")).await.expect(200);
    }
    let cleaned = server.post("/factory/cleanup", r#"{"pool":"users"}"#).await.expect(200).json();
    assert_eq!(cleaned, serde_json::json!({ "removed": 0, "remaining": 0 }));
    let cleaned = server.send(Method::POST, "/factory/cleanup", &[], "").await.expect(200).json();
    assert_eq!(cleaned, serde_json::json!({ "removed": 0, "remaining": 3 }));
    let body = r#"{"pool":"products","idle_after":"0ms"}"#;
    let cleaned = server.post("/factory/cleanup", body).await.expect(200).json();
    assert_eq!(cleaned, serde_json::json!({ "removed": 3, "remaining": 0 }));
    let stats = server.get("/factory/stats").await.json();
    assert!(stats["pools"]["products"]["last_cleanup"].as_str().unwrap().ends_with('Z'));
    for (body, field) in [
        (r#"{"pool":"none"}"#, "pool"),
        (r#"{"idle_after":"soon"}"#, "idle_after"),
        (r#"{"other":1}"#, "other"),
        (r#"{"id":"x"}"#, "id"),
    ] {
        assert_eq!(server.post("/factory/cleanup", body).await.problem(400), [field], "{body}");
    }
    server.post("/factory/cleanup", "[1]").await.problem(400);
}

#[tokio::test]
async fn a_warm_up_makes_first_reads_hits() {
    let server = with_products(25).await;
    let cold = r#"{"pool":"products","idle_after":"0ms"}"#;
    for (path, body, loaded) in [
        ("/factory/warm", r#"{"pool":"products"}"#, 25),
        ("/factory/warm", r#"{"pool":"products","mode":"All"}"#, 25),
        ("/factory/warm", "{}", 25),
        ("/factory/warm", "", 25),
        ("/repositories/cache/warm", "", 25),
        ("/repositories/cache/warm", r#"{"repository":"products"}"#, 25),
        ("/repositories/cache/warm", r#"{"repository":"products","ids":["p1","p2","none"]}"#, 2),
        (
            "/repositories/cache/warm",
            r#"{"repository":"product","where":{"field":"id","op":"like","value":"p1%"}}"#,
            11,
        ),
        ("/repositories/cache/warm", r#"{"repository":"products","ids":null,"where":null}"#, 25),
    ] {
        server.post("/factory/cleanup", cold).await.expect(200);
        // what was read in the millisecond of the cleanup is not taken
        until("it is warm", async || {
            let warmed = server.post(path, body).await.expect(200).json();
            assert_eq!(warmed["complete"], true, "{path} {body}");
            let read =
                server.send(Method::GET, "/products/p1", &[("flyweight-explain", "1")], "").await.expect(200);
            warmed["loaded"] == loaded && read.header("flyweight-explain").starts_with("tier=hot;")
        })
        .await;
    }
    for (path, body, field) in [
        ("/factory/warm", r#"{"mode":"Some"}"#, "mode"),
        ("/repositories/cache/warm", "{}", "repository"),
        ("/repositories/cache/warm", r#"{"ids":["p1"]}"#, "repository"),
        ("/repositories/cache/warm", r#"{"repository":"products","ids":["a\u0000b"]}"#, "ids[0]"),
        ("/repositories/cache/warm", r#"{"repository":"products","ids":"p1"}"#, "ids"),
        ("/repositories/cache/warm", r#"{"repository":"products","where":"p1"}"#, "where"),
        ("/repositories/cache/warm", r#"{"repository":"products","ids":[],"where":{"and":[]}}"#, "where"),
        (
            "/repositories/cache/warm",
            r#"{"repository":"products","where":{"or":[{"field":"x","op":"eq","value":1}]}}"#,
            "where.or[0].field",
        ),
    ] {
        assert_eq!(server.post(path, body).await.problem(400), [field], "{path} {body}");
    }
}

#[tokio::test]
async fn only_who_may_write_a_pool_manages_it() {
    let server = with_products(1).await;
    let access = Access { read: vec!["*".to_owned()], write: vec!["admin".to_owned()], ..Access::default() };
    server.policies.put([("products", Policy { access, ..Policy::open() })]);
    let body = r#"{"pool":"products"}"#;
    for path in ["/factory/cleanup", "/factory/warm"] {
        server.post(path, body).await.problem(401);
        server.post(path, "{}").await.problem(401);
        server.send(Method::POST, path, &[JSON, ("test-roles", "reader")], body).await.problem(403);
        server.send(Method::POST, path, &[JSON, ("test-roles", "admin")], body).await.expect(200);
        server.post(path, r#"{"pool":"users"}"#).await.expect(200);
    }
    server.get("/factory/stats").await.expect(200);
}

#[tokio::test]
async fn the_audit_finds_what_another_program_wrote() {
    let server = with_products(3).await;
    let pool = server.factory.pool("products").unwrap();
    for n in 0..3 {
        server.get(&format!("/products/p{n}")).await.expect(200);
    }
    pool.audit.round().await.unwrap();
    let seen = pool.audit.seen();
    assert_eq!((seen.checked, seen.behind, seen.worst_ms, seen.bound_ms), (3, 0, 0, 60_000));
    for change in [
        // with a new version, without one, and away
        "UPDATE products SET name = 'X', version = version + 1 WHERE id = 'p0'",
        "UPDATE products SET name = 'Y' WHERE id = 'p1'",
        "DELETE FROM products WHERE id = 'p2'",
    ] {
        server.behind_the_back(change).await;
    }
    let begin = std::time::Instant::now();
    until("it is noticed", async || {
        pool.audit.round().await.unwrap();
        pool.audit.seen().last_ms >= 50
    })
    .await;
    let seen = pool.audit.seen();
    assert!(seen.behind >= 3, "{seen:?}");
    assert!(seen.worst_ms <= begin.elapsed().as_millis() as u64 + 60_000, "{seen:?}");
    let stats = server.get("/factory/stats").await.expect(200).json();
    assert_eq!(stats["pools"]["products"]["staleness"]["worst_ms"], seen.worst_ms);
    // loaded anew, all is well again
    server.post("/factory/cleanup", r#"{"pool":"products","idle_after":"0ms"}"#).await.expect(200);
    pool.audit.round().await.unwrap();
    assert_eq!(pool.audit.seen().last_ms, 0);
    assert_eq!(pool.audit.seen().worst_ms, seen.worst_ms);
}

#[tokio::test]
async fn a_declared_warm_up_shows_how_far_it_is() {
    let server = with_products(12).await;
    let pool = server.factory.pool("products").unwrap();
    pool.clean_up(Some(0));
    until("it is warm", async || {
        pool.warm_up(crds::pool::WarmUp::Peers).await.unwrap();
        pool.warmed().loaded == 12
    })
    .await;
    let stats = server.get("/factory/stats").await.expect(200).json();
    let warmed = serde_json::json!({ "mode": "Peers", "loaded": 12, "done": true });
    assert_eq!(stats["pools"]["products"]["warm_up"], warmed);
}

impl Server {
    /// Another program writes into the store.
    async fn behind_the_back(&self, sql: &'static str) {
        use sqlx::ConnectOptions;
        let file = self._folder.as_ref().unwrap().path().join("data.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut connection = options.connect().await.unwrap();
        let done = sqlx::query(sql).execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{sql}");
    }
}
