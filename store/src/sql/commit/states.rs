//! What a transaction finds of the keys that it is about.

use std::collections::HashSet;

use sea_query::{Alias, Expr, ExprTrait, LockType, Query, SimpleExpr, Value as SqlValue};

use super::super::{
    StoreError, audit,
    dialect::padded,
    fault::Fault,
    migrations::TOMBSTONES,
    session::Session,
    table::{KEYS_MAX, Table},
};
use crate::{apply::State, odd::Reading};
use model::{
    key::{Key, Version},
    seal::Sealer,
};

/// What is stored under each key, not locked. In SQLite a transaction is the only writer, so this is enough
/// there.
pub async fn read_states(
    session: &mut Session,
    table: &Table,
    keys: &[Key],
    sealer: &dyn Sealer,
) -> Result<Vec<(Key, State)>, Fault> {
    let mut states = Vec::with_capacity(keys.len());
    for row in session.rows(table.read(keys)).await? {
        states.push(match row.int(0)? {
            Some(version) => (key_of(row.text(1)?)?, State::Absent(Version(version as u64))),
            None => match state_of(table.decode(&row, 1, sealer)?) {
                Some(state) => state,
                None => continue,
            },
        });
    }
    Ok(states)
}

/// What a row says of its key; none for one that has no key to ask for.
pub(super) fn state_of(reading: Reading) -> Option<(Key, State)> {
    match reading {
        Reading::Whole(record) => Some((record.key.clone(), State::Present(record))),
        Reading::Unreadable(unreadable) => Some((unreadable.rest.key.clone(), State::Unreadable(unreadable))),
        Reading::Keyless(_) => None,
    }
}

/// Where a record's version cannot be read, it goes on from the newest that the audit knows, so that no tier
/// takes the next one for an older.
pub(super) async fn learn_version(
    session: &mut Session,
    table: &Table,
    state: &mut State,
) -> Result<(), Fault> {
    let State::Unreadable(unreadable) = state else { return Ok(()) };
    if !unreadable.has_version() {
        let entity = &table.collection.schema.entity;
        let known = audit::newest(session, entity, unreadable.rest.key.as_str()).await?;
        unreadable.rest.version = known.unwrap_or(Version(0));
    }
    Ok(())
}

/// MySQL: records and tombstones are locked. The tombstones second, when whoever deletes or re-creates a
/// record that was waited for has committed.
pub(super) async fn lock_states(
    session: &mut Session,
    table: &Table,
    keys: &[Key],
    sealer: &dyn Sealer,
) -> Result<Vec<(Key, State)>, Fault> {
    let readings = read_records(session, table, keys, sealer, true).await?;
    let mut states: Vec<_> = readings.into_iter().filter_map(state_of).collect();
    let found: HashSet<&Key> = states.iter().map(|(key, _)| key).collect();
    let gone: Vec<&Key> = keys.iter().filter(|key| !found.contains(key)).collect();
    for (key, version) in lock_tombstones(session, table, &gone).await? {
        states.push((key, State::Absent(version)));
    }
    Ok(states)
}

pub(super) async fn read_records(
    session: &mut Session,
    table: &Table,
    keys: &[Key],
    sealer: &dyn Sealer,
    locks: bool,
) -> Result<Vec<Reading>, Fault> {
    let mut select = Query::select();
    select.exprs(table.cells()).from(table.alias());
    if locks {
        select.lock(LockType::Update);
    }
    let values = padded(keys.iter().filter_map(|key| table.key_value(key)).collect());
    select.and_where(Expr::col(table.key_alias()).is_in(values));
    let rows = session.rows(table.dialect.build(&select)).await?;
    rows.iter().map(|row| table.decode(row, 0, sealer)).collect()
}

pub(super) async fn lock_tombstones(
    session: &mut Session,
    table: &Table,
    keys: &[&Key],
) -> Result<Vec<(Key, Version)>, Fault> {
    let mut tombstones = Vec::new();
    for part in keys.chunks(KEYS_MAX) {
        let mut select = Query::select();
        select.columns(["id", "version"].map(Alias::new)).from(Alias::new(TOMBSTONES)).lock(LockType::Update);
        select.and_where(of_tombstones(table, part));
        for row in session.rows(table.dialect.build(&select)).await? {
            tombstones.push((key_of(row.text(0)?)?, Version(row.int(1)?.unwrap_or_default() as u64)));
        }
    }
    Ok(tombstones)
}

pub(super) fn key_of(text: Option<String>) -> Result<Key, StoreError> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| StoreError::Corrupt("a tombstone without a key".to_owned()))
}

pub(super) fn of_tombstones(table: &Table, keys: &[&Key]) -> SimpleExpr {
    let ids = padded(keys.iter().map(|key| SqlValue::from(key.as_str())).collect());
    let own = Expr::col(Alias::new("collection")).eq(table.collection.name.as_str());
    own.and(Expr::col(Alias::new("id")).is_in(ids))
}
