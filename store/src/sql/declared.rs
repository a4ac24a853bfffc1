//! Tables that the user declared: what they have is read from the database and held against the schema.

use std::sync::Arc;

use sea_query::Value as SqlValue;

use super::{
    StoreError,
    columns::{Found, Triggers, columns, triggers},
    ddl::{Form, Server, declared_table},
    dialect::{Dialect, Sql},
    fault::Fault,
    session::Session,
    table::{FieldColumn, KeyForm, Table, VersionSource},
};
use crate::{
    confined::{PoolFault, PoolReason},
    limits::{Limit, Limits, Times},
};
use model::change::Collection;

/// The table of a declared collection.
///
/// # Errors
/// `Unprepared`, naming everything that is missing or of the wrong type.
pub async fn inspect(session: &mut Session, server: Server, collection: &Collection) -> Result<Table, Fault> {
    let mut found = columns(session, collection).await?;
    if server == Server::Sqlite {
        complete(session, collection, &found).await?;
        found = columns(session, collection).await?;
    }
    let name = &collection.name;
    if found.is_empty() {
        let why = format!("the database has no table {name}, or the account may not see it");
        return Err(StoreError::Unprepared(PoolFault::new(PoolReason::TableMissing, why)).into());
    }
    let dialect = session.dialect();
    let uniques = match dialect {
        Dialect::Mysql => unique_indexes(session, collection).await?,
        Dialect::Sqlite => Vec::new(),
    };
    let mut faults = Vec::new();
    let key = key_form(&found, collection, dialect, &mut faults);
    if dialect == Dialect::Mysql
        && !uniques.iter().any(|(_, columns)| *columns == [collection.key_column.clone()])
    {
        faults.push(format!("{} has no unique index of its own", collection.key_column));
    }
    let version = version_source(&found, collection, dialect, &mut faults);
    let mut limits = Limits::default();
    let columns: Vec<FieldColumn> = collection
        .schema
        .fields
        .iter()
        .filter_map(|field| {
            let Some(column) = found.iter().find(|column| column.name == field.name) else {
                faults.push(format!("there is no column {}", field.name));
                return None;
            };
            if !column.holds(field, dialect) {
                faults
                    .push(format!("{} is {}, which does not hold what is declared", field.name, column.kind));
            }
            let bytewise = column.is_bytewise(server);
            limits.fields.push(column.limit(field, server));
            Some(FieldColumn { name: column.name.clone(), kind: column.kind.clone(), bytewise })
        })
        .collect();
    if !faults.is_empty() {
        return Err(StoreError::Unprepared(unlike(name, &faults)).into());
    }
    let time = |name: &str| found.iter().find(|column| column.name == name && column.is_time(dialect));
    limits.times = Times {
        created: time("created_at").map(Found::clock),
        updated: time("updated_at").map(Found::clock),
    };
    limits.key =
        found.iter().find(|column| column.name == collection.key_column).map(Found::key).unwrap_or_default();
    let triggers = triggers(session, collection).await?;
    limits.changed_by = changed_by(triggers, &found, collection);
    let first_columns =
        uniques.into_iter().filter_map(|(index, columns)| Some((index, columns.into_iter().next()?)));
    let mut table = Table::of_own(collection, dialect);
    table.key = key;
    table.version = version;
    table.has_created_at = limits.times.created.is_some();
    table.has_updated_at = limits.times.updated.is_some();
    table.columns = columns;
    table.uniques = first_columns.collect();
    let is_sure = triggers != Triggers::Hidden && !limits.fields.iter().any(Limit::is_foreign);
    table.reads_back = limits.changed_by.is_some() || !is_sure;
    table.limits = Arc::new(limits);
    Ok(table)
}

/// The fault of a table that is not as declared.
fn unlike(table: &str, faults: &[String]) -> PoolFault {
    let missing = faults.iter().any(|fault| fault.starts_with("there is no column"));
    let reason = if missing { PoolReason::ColumnMissing } else { PoolReason::ColumnUnfit };
    PoolFault::new(reason, format!("the table {table} is not as declared: {}", faults.join("; ")))
}

/// Why what is stored may differ from what is sent.
fn changed_by(triggers: Triggers, found: &[Found], collection: &Collection) -> Option<String> {
    let fields = collection.schema.fields.iter();
    let columns: Vec<&Found> =
        fields.filter_map(|field| found.iter().find(|column| column.name == field.name)).collect();
    let why = match triggers {
        Triggers::Some => "triggers",
        _ if columns.iter().any(|column| column.computed) => "generated columns",
        _ if columns.iter().any(|column| column.counted) => "numbers that the database counts up",
        Triggers::None | Triggers::Hidden => return None,
    };
    Some(why.to_owned())
}

/// An embedded database has nobody who makes tables by hand: what is missing is added.
async fn complete(session: &mut Session, collection: &Collection, found: &[Found]) -> Result<(), Fault> {
    let table = declared_table(collection);
    if found.is_empty() {
        session.begin().await?;
        for statement in table.create(&collection.name, Server::Sqlite) {
            session.plain(&statement).await?;
        }
        return Ok(session.commit().await?);
    }
    for column in &table.columns {
        if !found.iter().any(|known| known.name == column.name) && column.nullable {
            let (table, name) = (quoted(&collection.name), quoted(&column.name));
            session
                .plain(&format!(
                    "ALTER TABLE {table} ADD COLUMN {name} {}",
                    column.form.sql_type(Server::Sqlite)
                ))
                .await?;
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The unique indexes: their names, and their columns in order.
async fn unique_indexes(
    session: &mut Session,
    collection: &Collection,
) -> Result<Vec<(String, Vec<String>)>, Fault> {
    let text = "SELECT CONVERT(index_name USING utf8mb4), CONVERT(column_name USING utf8mb4) \
                FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ? \
                AND non_unique = 0 ORDER BY index_name, seq_in_index";
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    for row in session.rows(Sql::new(text, vec![SqlValue::from(collection.name.as_str())])).await? {
        let (index, column) = (row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default());
        match indexes.last_mut() {
            Some((last, columns)) if *last == index => columns.push(column),
            _ => indexes.push((index, vec![column])),
        }
    }
    Ok(indexes)
}

fn key_form(found: &[Found], collection: &Collection, dialect: Dialect, faults: &mut Vec<String>) -> KeyForm {
    let Some(column) = found.iter().find(|column| column.name == collection.key_column) else {
        faults.push(format!("there is no column {}, the key", collection.key_column));
        return KeyForm::Text;
    };
    if dialect == Dialect::Sqlite {
        return if column.kind.starts_with("int") { KeyForm::Int } else { KeyForm::Text };
    }
    if column.is_int() {
        return KeyForm::Int;
    }
    if !column.is_text() {
        faults.push(format!("{} is {}, which cannot be a key", column.name, column.kind));
    }
    KeyForm::Foreign
}

fn version_source(
    found: &[Found],
    collection: &Collection,
    dialect: Dialect,
    faults: &mut Vec<String>,
) -> VersionSource {
    let Some(name) = &collection.version_column else {
        let dated = found.iter().any(|column| column.name == "updated_at" && column.is_time(dialect));
        return if dated { VersionSource::UpdatedAt } else { VersionSource::One };
    };
    let column = found.iter().find(|column| column.name == *name);
    match column {
        None => faults.push(format!("there is no column {name}, the version")),
        Some(column) if dialect == Dialect::Mysql && !column.is_int() => {
            faults.push(format!("{name} is {}, but a version is a whole number", column.kind));
        }
        Some(_) => (),
    }
    VersionSource::Column(name.clone())
}

/// Whether the columns that this store makes hold what a collection's schema wants of them.
///
/// # Errors
/// `Unprepared`: a field that its pool encrypts, but that is unique or is not text.
pub fn check_own(collection: &Collection, column: impl Fn(&str) -> Option<Form>) -> Result<(), StoreError> {
    for field in &collection.schema.fields {
        let why = match column(&field.name) {
            None => "has no column",
            Some(_) if field.encrypted && field.unique => "is unique, so it cannot be encrypted",
            Some(form) if !form.holds(field) && field.encrypted => {
                "is not kept as text, so it cannot be encrypted"
            }
            Some(form) if !form.holds(field) => "does not fit its column",
            Some(_) => continue,
        };
        let why = format!("{} of {} {why}", field.name, collection.name);
        return Err(StoreError::Unprepared(PoolFault::new(PoolReason::ColumnUnfit, why)));
    }
    Ok(())
}
