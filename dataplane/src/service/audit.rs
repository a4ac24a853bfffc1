//! Pages of the audit over all stores, oldest first.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::try_join_all;
use uuid::Uuid;

use super::{error::ServiceError, records::Records};
use crate::domain::{
    audit::{AuditEntry, AuditQuery},
    value::Timestamp,
};

/// A page of audit entries.
#[derive(Debug)]
pub struct AuditPage {
    /// The entries, oldest first.
    pub entries: Vec<AuditEntry>,
    /// The cursor of the next page; none at the end.
    pub next_cursor: Option<String>,
}

/// Reads a page of what a query finds in the stores of these pools.
///
/// # Errors
/// What a store says.
pub async fn page(pools: &[Arc<Records>], query: AuditQuery) -> Result<AuditPage, ServiceError> {
    let limit = query.limit as usize;
    // one more than asked for tells whether there is a next page
    let query = AuditQuery { limit: query.limit.saturating_add(1), ..query };
    let mut stores: Vec<&Arc<Records>> = Vec::new();
    for pool in pools {
        if !stores.iter().any(|known| known.shares_store(pool)) {
            stores.push(pool);
        }
    }
    let found = try_join_all(stores.into_iter().map(|store| store.audit(&query))).await?;
    let mut entries: Vec<AuditEntry> = found.into_iter().flatten().collect();
    // times of one form sort as text
    entries.sort_by(|a, b| (&a.at, a.id).cmp(&(&b.at, b.id)));
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next_cursor = entries.last().filter(|_| more).map(encode);
    Ok(AuditPage { entries, next_cursor })
}

/// The place that a cursor names; none for what is not a cursor of the audit.
pub fn place_of(cursor: &str) -> Option<(Timestamp, Uuid)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (at, id) = text.split_once(' ')?;
    Some((at.parse().ok()?, id.parse().ok()?))
}

fn encode(entry: &AuditEntry) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", entry.at, entry.id))
}
