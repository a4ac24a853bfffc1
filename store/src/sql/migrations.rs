//! The tables of the store, made in numeric order, one file for each step. What ran is noted in
//! `flyweight_migrations`.

use std::{collections::BTreeMap, sync::Arc};

use sea_query::{Alias, Expr, Query};

use super::{
    StoreError,
    ddl::{Column, Form, Server, TableDef, added, added_unique, column},
    dialect::{Dialect, Sql},
    fault::Fault,
    session::Session,
};
use crate::confined::{PoolFault, PoolReason};
use model::{change::Collection, value::Timestamp};

mod m0001_base;
mod m0002_users;
mod m0003_payments;
mod m0004_orders;
mod m0005_products;
mod m0006_notification_templates;
mod m0007_configurations;
mod m0008_audit;
mod m0009_pipeline;
mod m0011_ingest;
mod m0012_money;
mod m0013_wide_keys;
mod m0014_counted;
mod m0015_log;

pub use m0001_base::{LEASES, OUTBOX, TOMBSTONES};
pub use m0008_audit::{AUDIT, IDEMPOTENCY};
pub use m0015_log::{CLAIMS, LOG};

/// Where it is noted which migrations ran.
const MIGRATIONS: &str = "flyweight_migrations";
/// How long one process waits for another to migrate, in seconds.
const LOCK_SECONDS: u32 = 20;

/// One step. It only adds, and can be run again where it was cut off.
pub struct Migration {
    /// Its number and name.
    pub name: &'static str,
    /// What it makes.
    pub makes: Makes,
}

/// What a migration makes.
pub enum Makes {
    /// Tables of the store's own, by their names.
    Own(fn() -> Vec<(&'static str, TableDef)>),
    /// The table of an entity's records, by whatever name the collection gives it.
    Records {
        /// The entity.
        entity: &'static str,
        /// The table.
        table: fn() -> TableDef,
    },
    /// More columns of the table of an entity's records. None is in its key, and all may hold nothing.
    Columns {
        /// The entity.
        entity: &'static str,
        /// The columns.
        columns: fn() -> Vec<Column>,
        /// Those of them that get an index each.
        indexed: &'static [&'static str],
    },
    /// One more column that no two records have the same value in. It may hold nothing, and does at first.
    Unique {
        /// The entity.
        entity: &'static str,
        /// The column.
        column: fn() -> Column,
    },
    /// Columns of keys in the store's own tables that get room for 255 characters. SQLite bounds none.
    Wider(&'static [(&'static str, &'static str)]),
}

/// Every migration, in order.
pub static ALL: &[Migration] = &[
    m0001_base::MIGRATION,
    m0002_users::MIGRATION,
    m0003_payments::MIGRATION,
    m0004_orders::MIGRATION,
    m0005_products::MIGRATION,
    m0006_notification_templates::MIGRATION,
    m0007_configurations::MIGRATION,
    m0008_audit::MIGRATION,
    m0009_pipeline::PRODUCTS,
    m0009_pipeline::ORDERS,
    m0009_pipeline::DEAD_LETTERS,
    m0011_ingest::MIGRATION,
    m0012_money::USERS,
    m0012_money::PAYMENTS,
    m0012_money::DEAD_LETTERS,
    m0013_wide_keys::MIGRATION,
    m0014_counted::MIGRATION,
    m0015_log::MIGRATION,
];

/// Runs what has not yet been run for these collections. Several processes may do so at once: one does it,
/// the others wait. Answers which tables cannot be made or changed, and why: the others are ready.
pub async fn migrate(
    session: &mut Session,
    server: Server,
    collections: &[Arc<Collection>],
) -> Result<BTreeMap<String, PoolFault>, Fault> {
    let (wanted, mut faults) = (wanted(collections)?, BTreeMap::new());
    match missing(session, &wanted).await {
        Ok(missing) if missing.is_empty() => return Ok(faults),
        // the table of migrations is not there either
        Ok(_) => {}
        Err(Fault::Store(StoreError::Setup(_) | StoreError::Unsupported(_) | StoreError::Unprepared(_))) => {}
        Err(fault) => return Err(fault),
    }
    for statement in migrations_table().create(MIGRATIONS, server) {
        session.plain(&statement).await?;
    }
    lock(session).await?;
    for step in missing(session, &wanted).await? {
        if faults.contains_key(step.table) {
            continue;
        }
        match step.run(session, server).await {
            // a table of the store's own concerns all its pools
            Err(Fault::Store(error)) if !step.table.is_empty() => {
                faults.insert(step.table.to_owned(), unchanged(step.table, error));
                continue;
            }
            done => done?,
        }
        session.execute(step.note(session.dialect())).await?;
        tracing::info!(migration = step.migration.name, table = step.table, "migrated");
    }
    unlock(session).await.map(|()| faults)
}

/// Why a table cannot be made or changed.
fn unchanged(table: &str, error: StoreError) -> PoolFault {
    let (reason, why) = match error {
        StoreError::Unprepared(PoolFault { reason, message }) => (reason, message),
        other => (PoolReason::PoolUnavailable, other.to_string()),
    };
    PoolFault::new(reason, format!("the table {table} cannot be made or changed: {why}"))
}

/// Whether any ran here before.
pub async fn have_run(session: &mut Session) -> Result<bool, Fault> {
    let mut select = Query::select();
    select.column(Alias::new("name")).from(Alias::new(MIGRATIONS)).limit(1);
    match session.rows(session.dialect().build(&select)).await {
        Ok(rows) => Ok(!rows.is_empty()),
        Err(Fault::Store(StoreError::Unavailable(why))) => Err(StoreError::Unavailable(why).into()),
        // the table is not there yet
        Err(Fault::Store(_)) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// The form of the column of an entity's field.
pub fn form_of(entity: &str, field: &str) -> Option<Form> {
    columns_of(entity).into_iter().find(|column| column.name == field).map(|column| column.form)
}

/// All columns of the table of an entity's records.
fn columns_of(entity: &str) -> Vec<Column> {
    let of_step = |migration: &Migration| match migration.makes {
        Makes::Records { entity: own, table } if own == entity => table().columns,
        Makes::Columns { entity: own, columns, .. } if own == entity => columns(),
        Makes::Unique { entity: own, column } if own == entity => vec![column()],
        _ => Vec::new(),
    };
    ALL.iter().flat_map(of_step).collect()
}

/// A migration for one table.
struct Step<'a> {
    migration: &'static Migration,
    /// The collection's table; nothing for the store's own.
    table: &'a str,
}

fn wanted(collections: &[Arc<Collection>]) -> Result<Vec<Step<'_>>, StoreError> {
    let mut steps = Vec::new();
    for migration in ALL {
        match migration.makes {
            Makes::Own(_) | Makes::Wider(_) => steps.push(Step { migration, table: "" }),
            Makes::Records { entity, .. } | Makes::Columns { entity, .. } | Makes::Unique { entity, .. } => {
                steps.extend(
                    collections
                        .iter()
                        .filter(|collection| !collection.declared && collection.schema.entity == entity)
                        .map(|collection| Step { migration, table: &collection.name }),
                )
            }
        }
    }
    let known = |collection: &Arc<Collection>| {
        let own = &collection.schema.entity;
        ALL.iter().any(|migration| matches!(migration.makes, Makes::Records { entity, .. } if entity == own))
    };
    match collections.iter().find(|collection| !collection.declared && !known(collection)) {
        Some(unknown) => {
            Err(StoreError::Unsupported(format!("there is no table for {}", unknown.schema.entity)))
        }
        None => Ok(steps),
    }
}

async fn missing<'a>(session: &mut Session, wanted: &[Step<'a>]) -> Result<Vec<Step<'a>>, Fault> {
    let mut select = Query::select();
    select.columns([Alias::new("name"), Alias::new("table_name")]).from(Alias::new(MIGRATIONS));
    let mut done = Vec::new();
    for row in session.rows(session.dialect().build(&select)).await? {
        done.push((row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default()));
    }
    let is_done =
        |step: &&Step| done.iter().any(|(name, table)| name == step.migration.name && table == step.table);
    Ok(wanted
        .iter()
        .filter(|step| !is_done(step))
        .map(|step| Step { migration: step.migration, table: step.table })
        .collect())
}

impl Step<'_> {
    async fn run(&self, session: &mut Session, server: Server) -> Result<(), Fault> {
        if !self.is_done(session).await? {
            for statement in &self.statements(server) {
                session.plain(statement).await?;
            }
        }
        Ok(())
    }

    fn statements(&self, server: Server) -> Vec<String> {
        match self.migration.makes {
            Makes::Own(tables) => {
                tables().iter().flat_map(|(name, table)| table.create(name, server)).collect()
            }
            Makes::Records { table, .. } => table().create(self.table, server),
            Makes::Columns { columns, indexed, .. } => added(self.table, &columns(), indexed, server),
            Makes::Unique { column, .. } => added_unique(self.table, &column(), server),
            Makes::Wider(_) if server == Server::Sqlite => Vec::new(),
            Makes::Wider(columns) => columns
                .iter()
                .map(|(table, column)| {
                    format!("ALTER TABLE `{table}` MODIFY `{column}` varchar(255) NOT NULL")
                })
                .collect(),
        }
    }

    /// Whether the step ran before, but was cut off before that was noted. Only columns cannot be added
    /// again.
    async fn is_done(&self, session: &mut Session) -> Result<bool, Fault> {
        let columns = match self.migration.makes {
            Makes::Columns { columns, .. } => columns(),
            Makes::Unique { column, .. } => vec![column()],
            Makes::Own(_) | Makes::Records { .. } | Makes::Wider(_) => return Ok(false),
        };
        let mut select = Query::select();
        // with the table's name: SQLite takes an unknown name alone for text
        let names = columns.into_iter().map(|column| (Alias::new(self.table), Alias::new(column.name)));
        select.columns(names).from(Alias::new(self.table)).limit(0);
        match session.rows(session.dialect().build(&select)).await {
            Ok(_) => Ok(true),
            Err(Fault::Store(
                StoreError::Setup(_) | StoreError::Unsupported(_) | StoreError::Unprepared(_),
            )) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn note(&self, dialect: Dialect) -> Sql {
        let mut insert = Query::insert();
        insert
            .into_table(Alias::new(MIGRATIONS))
            .columns(["name", "table_name", "applied_at"].map(Alias::new));
        insert.values_panic([
            Expr::val(self.migration.name),
            Expr::val(self.table),
            Expr::val(dialect.time(Timestamp::now())),
        ]);
        dialect.build(&insert)
    }
}

fn migrations_table() -> TableDef {
    let columns = vec![
        column("name", Form::Key).not_null(),
        column("table_name", Form::Key).not_null(),
        column("applied_at", Form::Time).not_null(),
    ];
    TableDef::new(columns, &["name", "table_name"])
}

/// In SQLite one transaction holds everything; MySQL commits each definition by itself, hence a named lock.
async fn lock(session: &mut Session) -> Result<(), Fault> {
    match session.dialect() {
        Dialect::Sqlite => session.begin().await,
        Dialect::Mysql => {
            let rows = session
                .rows(Sql::text(format!("SELECT CAST(GET_LOCK({MYSQL_LOCK}, {LOCK_SECONDS}) AS SIGNED)")));
            match rows.await?.first().map(|row| row.int(0)).transpose()?.flatten() {
                Some(1) => Ok(()),
                _ => Err(Fault::Conflict("another process is still migrating".to_owned())),
            }
        }
    }
}

/// Names of locks are the server's, not the database's, and shorter than names of databases can be.
const MYSQL_LOCK: &str = "IF(CHAR_LENGTH(DATABASE()) <= 50, CONCAT('flyweight:', DATABASE()), \
     CONCAT('flyweight:', LEFT(DATABASE(), 18), LEFT(SHA2(DATABASE(), 256), 32)))";

async fn unlock(session: &mut Session) -> Result<(), Fault> {
    match session.dialect() {
        Dialect::Sqlite => session.commit().await.map_err(Fault::from),
        Dialect::Mysql => {
            session.rows(Sql::text(format!("SELECT RELEASE_LOCK({MYSQL_LOCK})"))).await.map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use model::entities::Entity;

    use super::*;
    use model::{dead_letter, entities::builtin};

    #[test]
    fn every_field_of_every_entity_has_a_column_that_holds_it() {
        for schema in Entity::built_in().filter_map(builtin).chain([dead_letter::schema()]) {
            let (columns, indexes) = (columns_of(&schema.entity), indexes_of(&schema.entity));
            for field in &schema.fields {
                let column = columns.iter().find(|column| column.name == field.name);
                let column =
                    column.unwrap_or_else(|| panic!("{}.{} has no column", schema.entity, field.name));
                assert!(
                    column.form.holds(field),
                    "{}.{} does not fit {:?}",
                    schema.entity,
                    field.name,
                    column.form
                );
                let indexed = |unique: bool| {
                    indexes.iter().any(|(column, is_unique)| *column == field.name && (*is_unique || !unique))
                };
                assert!(
                    !field.unique || indexed(true),
                    "{}.{} has no unique index",
                    schema.entity,
                    field.name
                );
                assert!(!field.indexed || indexed(false), "{}.{} has no index", schema.entity, field.name);
            }
            assert_eq!(
                columns.len(),
                schema.fields.len() + 4,
                "{} has columns without fields",
                schema.entity
            );
        }
    }

    #[test]
    fn migrations_are_in_numeric_order() {
        let numbers: Vec<u32> = ALL.iter().map(|migration| migration.name[..4].parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }

    /// The first columns of the indexes of an entity's records, and whether each is unique.
    fn indexes_of(wanted: &str) -> Vec<(String, bool)> {
        let of_step = |migration: &Migration| match migration.makes {
            Makes::Records { entity, table } if entity == wanted => {
                table().indexes.iter().map(|index| (index.columns[0].clone(), index.unique)).collect()
            }
            Makes::Columns { entity, indexed, .. } if entity == wanted => {
                indexed.iter().map(|column| ((*column).to_owned(), false)).collect()
            }
            Makes::Unique { entity, column } if entity == wanted => vec![(column().name, true)],
            _ => Vec::new(),
        };
        ALL.iter().flat_map(of_step).collect()
    }
}
