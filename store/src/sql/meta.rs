//! `flyweight_meta`: what a database says of itself, a line each. It is made when it is first needed.

use std::collections::BTreeSet;

use sea_query::{Alias, Cond, Expr, ExprTrait, Query, Value as SqlValue};

use super::{
    StoreError,
    ddl::{Form, Server, TableDef, column},
    dialect::{Dialect, Sql},
    fault::Fault,
    migrations,
    session::Session,
};
use crate::identity::{Identity, Keys};
use model::{change::Collection, seal::Sealer};

const META: &str = "flyweight_meta";
const IDENTITY: &str = "identity";

/// The identity of the database, which gets one where it has none.
pub async fn identity(session: &mut Session, server: Server) -> Result<Identity, Fault> {
    if let Some(kept) = read(session, IDENTITY).await? {
        return Ok(Identity::parse(&kept)?);
    }
    let bare = migrations::have_run(session).await?;
    make(session, server).await?;
    let verb = match session.dialect() {
        Dialect::Sqlite => "INSERT OR IGNORE",
        Dialect::Mysql => "INSERT IGNORE",
    };
    let values = vec![text(IDENTITY), text(&Identity::new(bare).to_text())];
    session.execute(Sql::new(format!("{verb} INTO {META} (name, content) VALUES (?, ?)"), values)).await?;
    // whoever was first
    let kept = read(session, IDENTITY).await?.unwrap_or_default();
    Ok(Identity::parse(&kept)?)
}

/// Checks that these keys open what the collection's table holds, and notes them beside it.
///
/// # Errors
/// `Unsupported` where they do not.
pub async fn check_keys(
    session: &mut Session,
    server: Server,
    collection: &Collection,
    sealer: &dyn Sealer,
) -> Result<(), Fault> {
    let sealed: Vec<&str> = collection
        .schema
        .fields
        .iter()
        .filter(|field| field.encrypted)
        .map(|field| field.name.as_str())
        .collect();
    if sealed.is_empty() {
        return Ok(());
    }
    let name = format!("keys:{}", collection.name);
    let noted = read(session, &name).await?;
    let (keys, mut found) = (Keys::new(&collection.name, noted.as_deref(), sealer), BTreeSet::new());
    for form in keys.wanted(sealer) {
        for field in &sealed {
            let value = value_of(session, (&collection.name, field), &form).await?;
            found.extend(value.and_then(|value| sealer.key_of(&value)));
        }
    }
    let Some(note) = keys.settle(found)? else { return Ok(()) };
    make(session, server).await?;
    let statement = format!("REPLACE INTO {META} (name, content) VALUES (?, ?)");
    session.execute(Sql::new(statement, vec![text(&name), text(&note)])).await?;
    Ok(())
}

/// A value of the column that starts so; none where none does.
async fn value_of(
    session: &mut Session,
    (table, column): (&str, &str),
    form: &str,
) -> Result<Option<String>, Fault> {
    let mut select = Query::select();
    select.column(Alias::new(column)).from(Alias::new(table)).limit(1);
    select.cond_where(Cond::all().add(Expr::col(Alias::new(column)).like(format!("{form}%"))));
    let rows = session.rows(session.dialect().build(&select)).await?;
    rows.first().map(|row| row.text(0)).transpose().map(Option::flatten)
}

async fn make(session: &mut Session, server: Server) -> Result<(), Fault> {
    let columns = vec![column("name", Form::Key).not_null(), column("content", Form::Json).not_null()];
    for statement in TableDef::new(columns, &["name"]).create(META, server) {
        session.plain(&statement).await?;
    }
    Ok(())
}

async fn read(session: &mut Session, name: &str) -> Result<Option<String>, Fault> {
    let select = Sql::new(format!("SELECT content FROM {META} WHERE name = ?"), vec![text(name)]);
    match session.rows(select).await {
        Ok(rows) => rows.first().map(|row| row.text(0)).transpose().map(Option::flatten),
        Err(Fault::Store(StoreError::Unavailable(why))) => Err(StoreError::Unavailable(why).into()),
        // the table is not there yet
        Err(Fault::Store(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn text(value: &str) -> SqlValue {
    SqlValue::String(Some(value.to_owned()))
}
