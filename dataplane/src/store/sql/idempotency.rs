//! The table of answers that are kept under idempotency keys.

use sea_query::{Alias, Expr, ExprTrait, Query, Value as SqlValue};

use super::{
    StoreError,
    dialect::{Dialect, Sql},
    fault::Fault,
    migrations::IDEMPOTENCY,
    session::Session,
};
use crate::{
    domain::{
        change::{Collection, Idempotency, Written},
        seal::Sealer,
        value::Timestamp,
    },
    store::answer,
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

/// The statement that keeps an answer.
pub fn insert(dialect: Dialect, key: &Idempotency, answer: &str, now: Timestamp) -> Sql {
    let mut insert = Query::insert();
    insert.into_table(Alias::new(IDEMPOTENCY)).columns(["id", "request", "at", "answer"].map(Alias::new));
    let cells: [SqlValue; 4] = [key.key.as_str().into(), key.request.as_str().into(), dialect.time(now), answer.into()];
    insert.values_panic(cells.map(Expr::val));
    dialect.build(&insert)
}
