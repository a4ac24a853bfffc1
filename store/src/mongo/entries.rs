//! Entries of the audit as documents.

use bson::{Bson, DateTime, Document, doc};
use serde_json::value::RawValue;

use model::{audit::AuditEntry, event::Envelope, value::Timestamp};

/// The entry of a change, of what rides with its event. Events of an older program carry nothing.
pub fn entry_of(rider: &Document) -> Option<AuditEntry> {
    let event: Envelope = serde_json::from_str(rider.get_str("envelope").ok()?).ok()?;
    let actor = rider.get_str("actor").ok()?.to_owned();
    let before = rider.get_str("before").ok().map(str::to_owned);
    Some(AuditEntry::of_event(event, actor, before))
}

/// An entry as it is filed.
pub fn document_of(entry: &AuditEntry) -> Option<Document> {
    let AuditEntry { id, at, actor, entity, key, action, version, before, after } = entry;
    let json = |json: &Option<Box<RawValue>>| json.as_ref().map_or(Bson::Null, |json| json.get().into());
    let at = at.parse::<Timestamp>().ok()?;
    Some(doc! {
        "_id": id.to_string(), "at": DateTime::from_millis(at.0), "actor": actor, "entity": entity, "key": key,
        "action": action, "version": *version as i64, "before": json(before), "after": json(after),
    })
}
