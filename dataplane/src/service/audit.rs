//! Pages of the audit over all stores, oldest first.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::future::try_join_all;
use uuid::Uuid;

use super::{error::ServiceError, records::Records};
use model::{
    audit::{AuditEntry, AuditFound, AuditQuery},
    query::PAGE_BYTES_MAX,
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
    let mut stores: Vec<&Arc<Records>> = Vec::new();
    for pool in pools {
        if !stores.iter().any(|known| known.shares_store(pool)) {
            stores.push(pool);
        }
    }
    let found = try_join_all(stores.into_iter().map(|store| store.audit(&query))).await?;
    let (entries, more) = merged(found, query.limit as usize);
    let next_cursor = entries.last().filter(|_| more).map(|last| cursor(&last.at, &last.id.to_string()));
    Ok(AuditPage { entries, next_cursor })
}

/// The first entries of several stores, and whether there are further ones: what a store left out is not
/// overtaken by what another found.
fn merged(found: Vec<AuditFound>, limit: usize) -> (Vec<AuditEntry>, bool) {
    let place = |entry: &AuditEntry| (entry.at.clone(), entry.id);
    // times of one form sort as text
    let end =
        found.iter().filter(|found| found.more).filter_map(|found| found.entries.last().map(place)).min();
    let mut more = end.is_some();
    let mut entries: Vec<AuditEntry> = found.into_iter().flat_map(|found| found.entries).collect();
    entries.sort_by_cached_key(place);
    let mut bytes = 0;
    let fits = |entry: &&AuditEntry| {
        bytes += entry.bytes();
        bytes <= PAGE_BYTES_MAX && end.as_ref().is_none_or(|end| place(entry) <= *end)
    };
    let most = entries.iter().take_while(fits).count().max(1).min(limit);
    more |= most < entries.len();
    entries.truncate(most);
    (entries, more)
}

/// The place that a cursor names; none for what is not a cursor of the audit.
pub fn place_of(cursor: &str) -> Option<(Timestamp, Uuid)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (at, id) = text.split_once(' ')?;
    Some((at.parse().ok()?, id.parse().ok()?))
}

/// The cursor of what follows the entry with this time and id.
pub fn cursor(at: &str, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{at} {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(times: &[u32], bytes: usize, more: bool) -> AuditFound {
        let entry = |time: &u32| AuditEntry {
            id: Uuid::from_u128(u128::from(*time)),
            at: format!("2026-01-01T00:00:{time:02}.000Z"),
            actor: "x".repeat(bytes),
            entity: "user".to_owned(),
            key: time.to_string(),
            action: "created".to_owned(),
            version: 1,
            before: None,
            after: None,
        };
        AuditFound { entries: times.iter().map(entry).collect(), more }
    }

    fn keys((entries, more): (Vec<AuditEntry>, bool)) -> (Vec<String>, bool) {
        (entries.into_iter().map(|entry| entry.key).collect(), more)
    }

    #[test]
    fn no_entry_is_passed_over_where_a_store_ends_early() {
        let of = |keys: &[&str], more| (keys.iter().map(ToString::to_string).collect::<Vec<_>>(), more);
        let two = |more| vec![found(&[1, 4], 1, more), found(&[2, 3, 5, 6], 1, false)];
        assert_eq!(keys(merged(two(false), 9)), of(&["1", "2", "3", "4", "5", "6"], false));
        assert_eq!(
            keys(merged(two(true), 9)),
            of(&["1", "2", "3", "4"], true),
            "5 may follow something of the first"
        );
        assert_eq!(keys(merged(two(false), 2)), of(&["1", "2"], true));
        assert_eq!(keys(merged(vec![found(&[1, 2, 3], PAGE_BYTES_MAX / 2, false)], 9)), of(&["1"], true));
        assert_eq!(keys(merged(vec![found(&[1], 2 * PAGE_BYTES_MAX, false)], 9)), of(&["1"], false));
        assert_eq!(keys(merged(Vec::new(), 9)), of(&[], false));
    }
}
