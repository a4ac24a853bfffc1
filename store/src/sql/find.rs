//! Queries: one statement for the page, one more where the total is wanted.

use sea_query::{Asterisk, Expr, Func, Query as SqlQuery};

use super::{fault::Fault, filter, session::Session, table::Table};
use crate::odd::{Pager, Part};
use model::{
    query::{Page, Query, Start},
    seal::Sealer,
};

/// The page that a query finds.
pub async fn find(
    session: &mut Session,
    table: &Table,
    query: &Query,
    sealer: &dyn Sealer,
) -> Result<Page, Fault> {
    let condition = filter::condition(table, &query.filter)?;
    let mut pager = Pager::new(query);
    // first: a page that ends at its bytes may take its connection with it
    let total = match query.count {
        true => {
            let mut count = SqlQuery::select();
            count.expr(Func::count(Expr::col(Asterisk))).from(table.alias()).and_where(condition.clone());
            let rows = session.rows(table.dialect.build(&count)).await?;
            rows.first().map(|row| row.int(0)).transpose()?.flatten().map(|total| total as u64)
        }
        false => None,
    };
    loop {
        let mut select = SqlQuery::select();
        select.exprs(table.cells()).from(table.alias()).and_where(condition.clone());
        // one more than asked for tells whether there is a next page
        select.limit(u64::from(query.limit) + 1);
        if let Start::After(position) = &query.start {
            select.and_where(filter::after(table, &query.order, position)?);
        }
        match pager.offset() {
            0 => (),
            offset => _ = select.offset(offset.min(i64::MAX as u64)),
        }
        filter::order(&mut select, table, &query.order)?;
        let mut part = Part::new(query);
        session
            .each_row(table.dialect.build(&select), |row| Ok(part.push(table.decode(&row, 0, sealer)?)))
            .await?;
        if pager.take(part)? {
            break;
        }
    }
    Ok(pager.page(total))
}
