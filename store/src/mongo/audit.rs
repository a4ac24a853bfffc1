//! The audit as documents: entries that are filed, and those that still ride in the records' documents with
//! events that wait.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc};
use futures::TryStreamExt;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    StoreError,
    document::{Documents, PENDING, PENDING_AT},
    entries::entry_of,
    fault::read,
    ledger::Ledger,
    values::int_of,
};
use model::{
    audit::{AuditEntry, AuditFound, AuditPart, AuditQuery},
    budget::Allowance,
    key::Version,
    query::PAGE_BYTES_MAX,
    value::Timestamp,
};

/// The place of an entry in the order.
type Place = (Timestamp, Uuid);

/// The entries that a query finds, oldest first: those of a change are found as soon as it is committed.
pub async fn find(
    ledger: &Ledger,
    collections: &[Arc<Documents>],
    query: &AuditQuery,
    deadline: Instant,
) -> Result<AuditFound, StoreError> {
    let mut found = Vec::new();
    // those that wait first: an entry that is gone from there by then was filed before
    for documents in
        collections.iter().filter(|documents| query.entities.contains(&documents.collection.schema.entity))
    {
        found.extend(waiting(documents, query, deadline).await?);
    }
    let filed = filed(ledger, query, deadline).await?;
    for entry in filed.entries {
        found.push((place_of(&entry)?, entry));
    }
    // what was filed and is left out comes before whatever waits behind it
    let end = found.last().map(|(place, _)| *place).filter(|_| filed.more);
    found.sort_by_key(|(place, _)| *place);
    found.dedup_by_key(|(place, _)| *place);
    // they are held already
    let query = AuditQuery { allowance: Allowance::default(), ..query.clone() };
    let mut part = AuditPart::new(&query);
    let mut more = end.is_some();
    for (place, entry) in found {
        if end.is_some_and(|end| place > end) || !part.push(entry) {
            more = true;
            break;
        }
    }
    let found = part.found().ok_or(StoreError::Overloaded)?;
    Ok(AuditFound { more: found.more || more, ..found })
}

/// The first entries that ride with events of a collection, in order.
async fn waiting(
    documents: &Documents,
    query: &AuditQuery,
    deadline: Instant,
) -> Result<Vec<(Place, AuditEntry)>, StoreError> {
    let mut of = doc! { PENDING_AT: { "$exists": true } };
    if let Some(key) = &query.key {
        let Some(id) = documents.id(key) else { return Ok(Vec::new()) };
        of.insert("_id", id);
    }
    let find =
        documents.handle.find(of).sort(doc! { PENDING_AT: 1 }).projection(doc! { PENDING: 1, PENDING_AT: 1 });
    let (mut cursor, limit) = (read(deadline, find).await?, query.limit as usize);
    let mut found: Vec<(Place, AuditEntry)> = Vec::new();
    while let Some(document) = read(deadline, cursor.try_next()).await? {
        let oldest = document.get_datetime(PENDING_AT).map_or(0, |time| time.timestamp_millis());
        let most = first_of(&mut found, limit);
        // this document and those that follow have only later ones
        if found.get(most).is_some_and(|((at, _), _)| at.0 < oldest) {
            break;
        }
        for rider in document.get_array(PENDING).into_iter().flatten().filter_map(Bson::as_document) {
            let Some(entry) = entry_of(rider) else { continue };
            let place = place_of(&entry)?;
            if takes(query, place, &entry) {
                found.push((place, entry));
            }
        }
    }
    Ok(found)
}

/// Sorts entries, and keeps as many as a page can have and one more, which tells that there are further ones.
/// Says how many a page can have.
fn first_of(found: &mut Vec<(Place, AuditEntry)>, limit: usize) -> usize {
    found.sort_by_key(|(place, _)| *place);
    let mut bytes = 0;
    let fits = |(_, entry): &&(Place, AuditEntry)| {
        bytes += entry.bytes();
        bytes <= PAGE_BYTES_MAX
    };
    let most = found.iter().take_while(fits).count().max(1).min(limit);
    found.truncate(most.saturating_add(1));
    most
}

/// The newest version of a record that the audit knows, of what is filed or still rides with the document; 0
/// where it knows none.
pub async fn newest(
    ledger: &Ledger,
    documents: &Documents,
    stored: &Document,
    key: &str,
    deadline: Instant,
) -> Result<Version, StoreError> {
    let riders = stored.get_array(PENDING).into_iter().flatten().filter_map(Bson::as_document);
    let waiting = riders.filter_map(entry_of).map(|entry| entry.version).max().unwrap_or(0);
    let audit = ledger.audit();
    let of = doc! { "entity": &documents.collection.schema.entity, "key": key };
    let filed = super::collect(audit.find(of).sort(doc! { "version": -1 }).limit(1), deadline).await?;
    let filed = filed.first().and_then(|entry| entry.get("version").and_then(int_of)).unwrap_or_default();
    Ok(Version(waiting.max(u64::try_from(filed).unwrap_or(0))))
}

fn place_of(entry: &AuditEntry) -> Result<Place, StoreError> {
    let at = entry
        .at
        .parse()
        .map_err(|_| StoreError::Corrupt("the time of an audit entry cannot be read".to_owned()))?;
    Ok((at, entry.id))
}

fn takes(query: &AuditQuery, place: Place, entry: &AuditEntry) -> bool {
    let AuditQuery { entities, key, actor, since, after, limit: _, allowance: _ } = query;
    entities.contains(&entry.entity)
        && key.as_ref().is_none_or(|key| *key == entry.key)
        && actor.as_ref().is_none_or(|actor| *actor == entry.actor)
        && since.is_none_or(|since| place.0 >= since)
        && after.is_none_or(|after| place > after)
}

/// The first entries that are filed, in order.
async fn filed(ledger: &Ledger, query: &AuditQuery, deadline: Instant) -> Result<AuditFound, StoreError> {
    let AuditQuery { entities, key, actor, since, after, limit, allowance: _ } = query;
    let mut parts = vec![doc! { "entity": { "$in": entities } }];
    parts.extend(key.as_ref().map(|key| doc! { "key": key }));
    parts.extend(actor.as_ref().map(|actor| doc! { "actor": actor }));
    parts.extend(since.map(|since| doc! { "at": { "$gte": DateTime::from_millis(since.0) } }));
    if let Some((at, id)) = after {
        let at = DateTime::from_millis(at.0);
        parts.push(doc! { "$or": [
            { "at": { "$gt": at } },
            { "$and": [{ "at": at }, { "_id": { "$gt": id.to_string() } }] },
        ] });
    }
    let audit = ledger.audit();
    // one more than asked for tells whether there are further ones
    let find =
        audit.find(doc! { "$and": parts }).sort(doc! { "at": 1, "_id": 1 }).limit(i64::from(*limit) + 1);
    let mut cursor = read(deadline, find.batch_size(super::ROWS_AHEAD)).await?;
    let mut part = AuditPart::new(query);
    while let Some(document) = read(deadline, cursor.try_next()).await? {
        if !part.push(filed_entry(&document)?) {
            break;
        }
    }
    part.found().ok_or(StoreError::Overloaded)
}

fn filed_entry(document: &Document) -> Result<AuditEntry, StoreError> {
    let text = |name: &str| document.get_str(name).unwrap_or_default().to_owned();
    let wrong = |what: &str| StoreError::Corrupt(format!("{what} of an audit entry cannot be read"));
    let json = |name: &str| match document.get(name) {
        Some(Bson::String(json)) => {
            RawValue::from_string(json.clone()).map(Some).map_err(|_| wrong("the record"))
        }
        _ => Ok(None),
    };
    Ok(AuditEntry {
        id: text("_id").parse::<Uuid>().map_err(|_| wrong("the id"))?,
        at: document
            .get_datetime("at")
            .map(|at| Timestamp(at.timestamp_millis()).to_string())
            .unwrap_or_default(),
        actor: text("actor"),
        entity: text("entity"),
        key: text("key"),
        action: text("action"),
        version: document.get("version").and_then(int_of).unwrap_or_default() as u64,
        before: json("before")?,
        after: json("after")?,
    })
}
