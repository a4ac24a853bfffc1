//! A pool whose table is not as declared takes only itself away, says so everywhere, and comes back without a
//! restart.

use std::{fs, path::Path, time::Duration};

use harness::{
    client::{Answer, Api},
    dataplane::DataPlane,
    manifests, wait,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

/// The longest until a table that was mended is in use again, and until one that was broken is found.
const SOON: Duration = Duration::from_secs(15);

const STORES: &str = "/api/v1/pools/stores";
const WRONG: &str = "CREATE TABLE stores (code TEXT PRIMARY KEY, version INTEGER NOT NULL, city TEXT, \
                     opening_hours TEXT, phone TEXT, turnover REAL)";

#[tokio::test]
async fn a_table_that_is_not_as_declared_takes_only_its_pool_away_until_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, data) = (dir.path().join("manifests"), dir.path().join("data"));
    manifests::write_samples_with(&shop, "");
    let file = shop.join("stores.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let more = "  fields:\n    - name: turnover\n      type: Decimal\n";
    fs::write(&file, text.replacen("  fields:\n", more, 1)).unwrap();
    fs::create_dir(&data).unwrap();
    let database = data.join("mysql.db");
    by_hand(&database, WRONG).await;

    // it is ready all the same
    let data_plane = DataPlane::embedded(&shop, &data);
    let (api, admin) = (Api::at(&data_plane.url), Api::at(&data_plane.admin));
    let store = json!({ "code": "b1", "city": "Berlin", "turnover": "12.5" });
    let batch = json!({ "operations": [{ "op": "create", "data": store }] });
    for answer in [
        api.get(&format!("{STORES}/b1")).await,
        api.get(STORES).await,
        api.post(STORES, &store).await,
        api.post(&format!("{STORES}/batch"), &batch).await,
    ] {
        is_away(&answer, "turnover is real");
    }
    assert_eq!(api.post("/api/v1/products", &json!({ "name": "Lamp", "price": 1 })).await.status, 201);
    let user = json!({ "id": "ann", "email": "ann@example.com", "name": "Ann" });
    assert_eq!(api.post("/api/v1/users", &user).await.status, 201, "the same store");
    let health = api.get("/api/v1/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("degraded")));
    assert_eq!(health.json()["unavailable"]["stores"]["reason"], "ColumnUnfit");
    assert_eq!(reported(&admin).await["reason"], "ColumnUnfit");
    assert_eq!(admin.get("/readyz").await.status, 200);
    assert!(admin.get("/metrics").await.text.contains("flyweight_pool_available{pool=\"stores\"} 0"));

    by_hand(&database, "DROP TABLE stores").await;
    until_here(&api).await;
    assert_eq!(api.post(STORES, &store).await.status, 201);
    assert_eq!(
        api.get(&format!("{STORES}/b1")).await.json()["turnover"].to_string().trim_matches('"'),
        "12.5"
    );
    assert_eq!(api.get("/api/v1/health").await.json()["unavailable"], json!({}));
    assert_eq!(reported(&admin).await, Value::Null);

    // what memory still holds of it is not served either: the pool has one state
    // at once, or what is missing in between would be made
    let broken = "BEGIN; ALTER TABLE stores RENAME COLUMN turnover TO sales; \
                  ALTER TABLE stores ADD COLUMN turnover REAL; COMMIT";
    by_hand(&database, broken).await;
    let answer = wait::until("the pool to be away", SOON, async || {
        let answer = api.get(&format!("{STORES}/b1")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    is_away(&answer, "turnover is real");
    let mended = "BEGIN; ALTER TABLE stores DROP COLUMN turnover; \
                  ALTER TABLE stores RENAME COLUMN sales TO turnover; COMMIT";
    by_hand(&database, mended).await;
    until_here(&api).await;
    assert_eq!(api.get(&format!("{STORES}/b1")).await.status, 200);
}

fn is_away(answer: &Answer, why: &str) {
    assert_eq!(answer.status, 503, "{}", answer.text);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:flyweight:problem:pool-unavailable", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
    assert!(!answer.header("retry-after").is_empty());
}

async fn until_here(api: &Api) {
    wait::until("the pool to be back", SOON, async || (api.get(STORES).await.status == 200).then_some(()))
        .await;
}

/// What the pod tells the operator of the pool.
async fn reported(admin: &Api) -> Value {
    let status = admin.get("/status").await.json();
    let pools = status["pools"].as_array().unwrap();
    pools.iter().find(|pool| pool["name"] == "stores").unwrap()["unavailable"].clone()
}

async fn by_hand(database: &Path, statement: &str) {
    let url = format!("sqlite://{}?mode=rwc", database.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}
