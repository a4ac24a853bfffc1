//! The statements of a transaction, each for many keys.

use sea_query::{Alias, Expr, ExprTrait, Query, SimpleExpr};

use super::super::{
    dialect::{Dialect, padded, parts},
    fault::Fault,
    migrations::TOMBSTONES,
    session::Session,
    table::{KEYS_MAX, Table},
};
use super::states::{lock_tombstones, of_tombstones};
use model::{
    key::{Key, Version},
    record::Record,
    seal::Sealer,
};

/// A record that was created as if it never existed may have come and gone since the tombstones were read.
/// Its key is locked by now, so what is found here is true until the commit.
pub(super) async fn no_tombstones(
    session: &mut Session,
    table: &Table,
    created: &[&Key],
) -> Result<(), Fault> {
    match lock_tombstones(session, table, created).await?.is_empty() {
        true => Ok(()),
        false => Err(Fault::Conflict("the record was created and deleted at the same time".to_owned())),
    }
}

pub(super) async fn delete(session: &mut Session, table: &Table, keys: &[&Key]) -> Result<(), Fault> {
    for part in keys.chunks(KEYS_MAX) {
        let mut delete = Query::delete();
        delete.from_table(table.alias());
        let values = padded(part.iter().filter_map(|key| table.key_value(key)).collect());
        delete.and_where(Expr::col(table.key_alias()).is_in(values));
        session.execute(table.dialect.build(&delete)).await?;
    }
    Ok(())
}

/// In SQLite a statement is no round trip, and each costs little.
pub(super) async fn update(
    session: &mut Session,
    table: &Table,
    records: &[&Record],
    sealer: &dyn Sealer,
) -> Result<(), Fault> {
    if session.dialect() == Dialect::Mysql && !table.collection.declared && records.len() > 1 {
        for part in parts(records, table.rows_max(), session.bytes_max(), |record| record.bytes()) {
            session.execute(table.update_all(part, sealer)?).await?;
        }
        return Ok(());
    }
    for record in records {
        if session.execute(table.update(record, sealer)?).await? != 1 {
            return Err(Fault::Conflict("a locked record is gone".to_owned()));
        }
    }
    Ok(())
}

pub(super) async fn insert(
    session: &mut Session,
    table: &Table,
    records: &[&Record],
    sealer: &dyn Sealer,
) -> Result<(), Fault> {
    for part in parts(records, table.rows_max(), session.bytes_max(), |record| record.bytes()) {
        session.execute(table.insert(part, sealer)?).await?;
    }
    Ok(())
}

/// Leaves tombstones, stamped by the server: by its clock they are pruned.
pub(super) async fn bury(
    session: &mut Session,
    table: &Table,
    keys: &[(&Key, Version)],
) -> Result<(), Fault> {
    for part in keys.chunks(KEYS_MAX) {
        let mut replace = Query::insert();
        replace.replace().into_table(Alias::new(TOMBSTONES));
        replace.columns(["collection", "id", "version", "deleted_at"].map(Alias::new));
        for (key, version) in part {
            replace.values_panic([
                SimpleExpr::from(table.collection.name.as_str()),
                SimpleExpr::from(key.as_str()),
                SimpleExpr::from(version.0 as i64),
                table.dialect.now(),
            ]);
        }
        session.execute(table.dialect.build(&replace)).await?;
    }
    Ok(())
}

/// Takes tombstones away, of records that are there again.
pub(super) async fn raise(session: &mut Session, table: &Table, keys: &[&Key]) -> Result<(), Fault> {
    for part in keys.chunks(KEYS_MAX) {
        let mut delete = Query::delete();
        delete.from_table(Alias::new(TOMBSTONES)).and_where(of_tombstones(table, part));
        session.execute(table.dialect.build(&delete)).await?;
    }
    Ok(())
}
