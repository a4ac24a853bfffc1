//! The table of answers that are kept under idempotency keys.

use sea_query::{Alias, Expr, ExprTrait, Query, SimpleExpr};

use super::{
    StoreError,
    dialect::{Dialect, Sql},
    fault::Fault,
    migrations::IDEMPOTENCY,
    session::Session,
};
use crate::answer;
use model::{
    change::{Collection, Idempotency, Written},
    seal::Sealer,
};

/// What was answered under a key; the answer has one entry for each of the collections.
///
/// # Errors
/// `KeyReused` where it was another request.
pub async fn recall<'a>(
    session: &mut Session,
    key: &Idempotency,
    collections: impl Iterator<Item = &'a Collection> + Clone,
    sealer: &dyn Sealer,
) -> Result<Option<Vec<Written>>, Fault> {
    let mut select = Query::select();
    select.columns(["request", "answer"].map(Alias::new)).from(Alias::new(IDEMPOTENCY));
    select.and_where(Expr::col(Alias::new("id")).eq(key.key.as_str()));
    let rows = session.rows(session.dialect().build(&select)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.text(0)?.as_deref() != Some(key.request.as_str()) {
        return Err(StoreError::KeyReused.into());
    }
    let text = row.text(1)?.unwrap_or_default();
    Ok(Some(answer::decode(&text, collections, key, sealer)?))
}

/// The statement that gives a kept answer another text.
pub fn update(dialect: Dialect, key: &Idempotency, answer: &str) -> Sql {
    let mut update = Query::update();
    update.table(Alias::new(IDEMPOTENCY)).value(Alias::new("answer"), answer);
    update.and_where(Expr::col(Alias::new("id")).eq(key.key.as_str()));
    dialect.build(&update)
}

/// The statement that keeps an answer.
pub fn insert(dialect: Dialect, key: &Idempotency, answer: &str) -> Sql {
    let mut insert = Query::insert();
    insert.into_table(Alias::new(IDEMPOTENCY)).columns(["id", "request", "at", "answer"].map(Alias::new));
    let text = |text: &str| SimpleExpr::from(text);
    // kept for a time by the server's clock, which also prunes it
    insert.values_panic([text(&key.key), text(&key.request), dialect.now(), text(answer)]);
    dialect.build(&insert)
}
