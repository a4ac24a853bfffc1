//! Pages of records: a filter, a start and a limit to a page with its cursor.

use super::{
    cursor::{Cursor, Scope},
    error::ServiceError,
    records::Records,
};
use model::{
    budget::Allowance,
    query::{Direction, Filter, Query, Start},
    record::{Named, Record},
    schema::FieldRef,
};

/// The most records of one page.
pub const LIMIT_MAX: u32 = 1_000;
/// The records of a page that does not say how many it wants.
pub const LIMIT_DEFAULT: u32 = 50;
/// The farthest page by offset: cursors go on.
pub const OFFSET_MAX: u64 = 1_000_000_000;

/// Which page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRequest {
    /// From where on.
    pub from: From,
    /// The most records: 1 to [`LIMIT_MAX`].
    pub limit: u32,
}

/// From where on.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// After so many records.
    Offset(u64),
    /// After the page that gave this cursor.
    Cursor(String),
}

/// A page of records.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Those among them that cannot be read.
    pub unreadable: Vec<Named>,
    /// How many there are in all; by cursor, how many there were when the first page was read.
    pub total: u64,
    /// How many come before this page.
    pub offset: u64,
    /// The cursor of the next page; none at the end.
    pub next_cursor: Option<String>,
}

/// Reads a page of the records that a filter takes, in an order; ties are broken by the key. It ends early at
/// the bytes of a page, or where its memory does.
///
/// # Errors
/// `Invalid` for a cursor that is not one of this list, or what the store says.
pub async fn list(
    records: &Records,
    filter: Filter,
    order: Vec<(FieldRef, Direction)>,
    page: &PageRequest,
    allowance: Allowance,
) -> Result<Listing, ServiceError> {
    let scope = Scope { schema: records.schema(), filter: &filter, order: &order };
    let (start, offset, known_total) = match &page.from {
        From::Offset(offset) => (Start::Offset(*offset), *offset, None),
        From::Cursor(text) => {
            let unknown = || ServiceError::field("cursor", "is not a cursor of this list");
            let Cursor { position, offset, total } = Cursor::decode(text, &scope).ok_or_else(unknown)?;
            (Start::After(position), offset, Some(total))
        }
    };
    let query = Query {
        filter: filter.clone(),
        order: order.clone(),
        start,
        limit: page.limit,
        count: known_total.is_none(),
        allowance,
    };
    let found = records.find(&query).await?;
    let total = known_total.or(found.total).unwrap_or_default();
    let before_next = offset + (found.records.len() + found.unreadable.len()) as u64;
    let cursor = found.next.map(|position| Cursor { position, offset: before_next, total });
    let next_cursor = cursor.map(|cursor| cursor.encode(&scope));
    Ok(Listing { next_cursor, records: found.records, unreadable: found.unreadable, total, offset })
}
