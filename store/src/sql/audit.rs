//! The table of the audit: rows are added with the changes that they speak of, and never changed.

use sea_query::{Alias, Expr, ExprTrait, Func, Order, Query, Value as SqlValue};
use serde_json::value::RawValue;

use super::{
    StoreError,
    dialect::{Dialect, Sql},
    fault::Fault,
    migrations::AUDIT,
    session::{Row, Session},
};
use model::{
    audit::{AuditEntry, AuditFound, AuditPart, AuditQuery},
    event::Envelope,
    key::Version,
};

/// The columns of the table, but for the one that counts.
pub const COLUMNS: [&str; 9] =
    ["event_id", "at", "actor", "entity", "record_key", "action", "version", "before_json", "after_json"];

/// The statement that adds the entries of some events, each with who did it and the record before it.
pub fn insert(dialect: Dialect, events: &[(&str, &Envelope, Option<String>)]) -> Result<Sql, StoreError> {
    let mut insert = Query::insert();
    insert.into_table(Alias::new(AUDIT)).columns(COLUMNS.map(Alias::new));
    for (actor, event, before) in events {
        let AuditEntry { id, at, actor, entity, key, action, version, before, after } =
            AuditEntry::of_event((*event).clone(), (*actor).to_owned(), before.clone());
        let json = |json: Option<Box<RawValue>>| SqlValue::String(json.map(|json| json.get().to_owned()));
        let cells: [SqlValue; 9] = [
            id.to_string().into(),
            dialect.time(at.parse().map_err(StoreError::Unsupported)?),
            actor.into(),
            entity.into(),
            key.into(),
            action.into(),
            SqlValue::BigInt(Some(version as i64)),
            json(before),
            json(after),
        ];
        insert.values_panic(cells.map(Expr::val));
    }
    Ok(dialect.build(&insert))
}

/// The entries that a query finds, oldest first.
pub async fn find(session: &mut Session, query: &AuditQuery) -> Result<AuditFound, Fault> {
    let AuditQuery { entities, key, actor, since, after, limit, allowance: _ } = query;
    let dialect = session.dialect();
    let col = |name: &str| Expr::col(Alias::new(name));
    let mut select = Query::select();
    select.columns(COLUMNS.map(Alias::new)).from(Alias::new(AUDIT));
    // one more than asked for tells whether there are further ones
    select.limit(u64::from(*limit) + 1);
    select.and_where(col("entity").is_in(entities.iter().map(String::as_str)));
    if let Some(key) = key {
        select.and_where(col("record_key").eq(key.as_str()));
    }
    if let Some(actor) = actor {
        select.and_where(col("actor").eq(actor.as_str()));
    }
    if let Some(since) = since {
        select.and_where(col("at").gte(dialect.time(*since)));
    }
    if let Some((at, id)) = after {
        let at = dialect.time(*at);
        let same = col("at").eq(at.clone()).and(col("event_id").gt(id.to_string()));
        select.and_where(col("at").gt(at).or(same));
    }
    select.order_by(Alias::new("at"), Order::Asc).order_by(Alias::new("event_id"), Order::Asc);
    let mut part = AuditPart::new(query);
    session.each_row(dialect.build(&select), |row| Ok(part.push(entry(&row)?))).await?;
    Ok(part.found().ok_or(StoreError::Overloaded)?)
}

/// The newest version of a record that the audit knows.
pub async fn newest(session: &mut Session, entity: &str, key: &str) -> Result<Option<Version>, Fault> {
    let col = |name: &str| Expr::col(Alias::new(name));
    let mut select = Query::select();
    select.expr(Func::max(col("version"))).from(Alias::new(AUDIT));
    select.and_where(col("entity").eq(entity)).and_where(col("record_key").eq(key));
    let dialect = session.dialect();
    let rows = session.rows(dialect.build(&select)).await?;
    Ok(rows.first().map(|row| row.int(0)).transpose()?.flatten().map(|version| Version(version as u64)))
}

fn entry(row: &Row) -> Result<AuditEntry, Fault> {
    let text = |at: usize| -> Result<String, Fault> { Ok(row.text(at)?.unwrap_or_default()) };
    let wrong = |what: &str| StoreError::Corrupt(format!("{what} of an audit entry cannot be read"));
    let json = |at: usize| -> Result<Option<Box<RawValue>>, Fault> {
        let json = row.text(at)?.map(RawValue::from_string).transpose();
        Ok(json.map_err(|_| wrong("the record"))?)
    };
    Ok(AuditEntry {
        id: text(0)?.parse().map_err(|_| wrong("the id"))?,
        at: row.time(1)?.ok_or_else(|| wrong("the time"))?.to_string(),
        actor: text(2)?,
        entity: text(3)?,
        key: text(4)?,
        action: text(5)?,
        version: row.int(6)?.unwrap_or_default() as u64,
        before: json(7)?,
        after: json(8)?,
    })
}
