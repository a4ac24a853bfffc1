//! What only SQL stores are asked: units over several records, declared tables, what is made by hand in a server.

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row as _};

use super::*;
use crate::store::sql::tests::create_statements;

/// A new database in a server: its address and its name.
pub async fn new_database(server: &str) -> (String, String) {
    let database = format!("shop_{}", Uuid::now_v7().simple());
    run(server, &format!("CREATE DATABASE {database} CHARACTER SET utf8mb4")).await;
    let (base, _) = server.rsplit_once('/').unwrap();
    (format!("{base}/{database}"), database)
}

pub async fn drop_database(server: &str, database: &str) {
    run(server, &format!("DROP DATABASE {database}")).await;
}

/// Makes the declared table, as its owner does.
pub async fn create_things(url: &str, things: &Collection) {
    for statement in create_statements(things, is_mariadb(url).await) {
        run(url, &statement).await;
    }
}

/// Every table as text.
pub async fn dump(url: &str) -> Vec<u8> {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let mut bytes = Vec::new();
    for (table, column) in [("things", "title"), ("things", "secret"), ("flyweight_outbox", "envelope")] {
        let sql = format!("SELECT {column} FROM {table}");
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap() {
            bytes.extend(row.get_unchecked::<Option<String>, _>(0).unwrap_or_default().into_bytes());
            bytes.push(b'\n');
        }
    }
    bytes
}

pub async fn run(url: &str, statement: &str) {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

pub async fn is_mariadb(url: &str) -> bool {
    let mut connection = MySqlConnection::connect(url).await.unwrap();
    let row = sqlx::query("SELECT VERSION()").fetch_one(&mut connection).await.unwrap();
    row.get_unchecked::<String, _>(0).contains("MariaDB")
}
