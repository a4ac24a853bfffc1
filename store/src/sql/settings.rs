//! The settings by which a database commits, as it says itself.

use super::{
    dialect::{Dialect, Sql},
    fault::Fault,
    pools::Pools,
};
use model::durability::{self, Setting};

/// Asks the connection that writes.
pub async fn read(pools: &Pools) -> Result<Vec<Setting>, Fault> {
    let mut session = pools.write().await?;
    match session.dialect() {
        Dialect::Sqlite => {
            let synchronous = session.rows(Sql::text("PRAGMA synchronous")).await?;
            let journal = session.rows(Sql::text("PRAGMA journal_mode")).await?;
            let synchronous = synchronous.first().map(|row| row.int(0)).transpose()?.flatten();
            let journal = journal.first().map(|row| row.text(0)).transpose()?.flatten();
            Ok(durability::sqlite(synchronous.unwrap_or_default(), &journal.unwrap_or_default()))
        }
        Dialect::Mysql => {
            let asked = "SELECT CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS SIGNED), \
                         CAST(@@GLOBAL.log_bin AS SIGNED), CAST(@@GLOBAL.sync_binlog AS SIGNED)";
            let rows = session.rows(Sql::text(asked)).await?;
            let Some(row) = rows.first() else { return Ok(Vec::new()) };
            let number = |at| Ok::<_, Fault>(row.int(at)?.unwrap_or_default());
            Ok(durability::mysql(number(0)?, number(1)? != 0, number(2)?))
        }
    }
}
