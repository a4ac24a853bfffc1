//! Queries: one statement for the page, one more where the total is wanted.

use sea_query::{Asterisk, Expr, Func, Query as SqlQuery};

use super::{fault::Fault, filter, session::Session, table::Table};
use crate::domain::{
    query::{Page, Query, Start},
    seal::Sealer,
};

/// The page that a query finds.
pub async fn find(session: &mut Session, table: &Table, query: &Query, sealer: &dyn Sealer) -> Result<Page, Fault> {
    let condition = filter::condition(table, &query.filter)?;
    let mut select = SqlQuery::select();
    select.exprs(table.cells()).from(table.alias()).and_where(condition.clone());
    // one more than asked for tells whether there is a next page
    select.limit(u64::from(query.limit) + 1);
    match &query.start {
        Start::Offset(0) => (),
        Start::Offset(offset) => _ = select.offset((*offset).min(i64::MAX as u64)),
        Start::After(position) => _ = select.and_where(filter::after(table, &query.order, position)?),
    }
    filter::order(&mut select, table, &query.order)?;
    let rows = session.rows(table.dialect.build(&select)).await?;
    let mut records = rows.iter().map(|row| table.decode(row, 0, sealer)).collect::<Result<Vec<_>, Fault>>()?;
    let more = records.len() > query.limit as usize;
    records.truncate(query.limit as usize);
    let next = if more { records.last().map(|record| record.position(&query.order)) } else { None };
    let total = match query.count {
        true => {
            let mut count = SqlQuery::select();
            count.expr(Func::count(Expr::col(Asterisk))).from(table.alias()).and_where(condition);
            let rows = session.rows(table.dialect.build(&count)).await?;
            rows.first().map(|row| row.int(0)).transpose()?.flatten().map(|total| total as u64)
        }
        false => None,
    };
    Ok(Page { records, total, next })
}
