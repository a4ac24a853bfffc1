//! Who may read and write a pool.

use super::*;

#[tokio::test]
async fn roles_open_pools_and_change_while_the_server_runs() {
    let server = Server::start().await;
    let body = r#"{"id":"p","name":"Tea","price":1}"#;
    let json = ("content-type", "application/json");
    let access = |read: &str, write: &str| Policy {
        access: Access { read: vec![read.to_owned()], write: vec![write.to_owned()], ..Access::default() },
        ..Policy::open()
    };
    server.policies.put([("products", access("*", "admin"))]);
    let anonymous = server.post("/products", body).await;
    anonymous.problem(401);
    assert_eq!(anonymous.header("www-authenticate"), "Bearer");
    server.send(Method::POST, "/products", &[json, ("test-roles", "reader,other")], body).await.problem(403);
    server.send(Method::POST, "/products", &[json, ("test-roles", "other,admin")], body).await.expect(201);
    server.get("/products/p").await.expect(200);

    server.policies.put([("products", access("reader", "admin"))]);
    for path in ["/products/p", "/products", "/products?ids=p", "/products/category/x"] {
        server.get(path).await.problem(401);
        server.send(Method::GET, path, &[("test-roles", "admin")], "").await.problem(403);
        server.send(Method::GET, path, &[("test-roles", "reader")], "").await.expect(200);
    }
    // Who may not read learns nothing, not even that the request is wrong.
    server.get("/products/a%20b?x=1").await.problem(401);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        server.with(method, "/products/p", "{}").await.problem(401);
    }
}

#[tokio::test]
async fn the_size_limit_of_a_pool_changes_while_the_server_runs() {
    let server = Server::start().await;
    let limits = PoolLimits { max_record_bytes: crds::units::Bytes(20) };
    server.policies.put([("products", Policy { limits, ..Policy::open() })]);
    server.post("/products", r#"{"name":"Tea","price":1}"#).await.problem(413);
}
