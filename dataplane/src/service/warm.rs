//! Loads records into memory before they are asked for: all, the ones that changed last, or given ones.

use std::sync::Arc;

use crds::pool::WarmUp;

use super::{error::ServiceError, records::Records};
use model::{
    budget::Allowance,
    key::Key,
    query::{Direction, Filter, Query, Start},
    schema::{FieldRef, Schema},
};

/// Warms up one pool.
pub struct Warmer {
    records: Arc<Records>,
}

/// Records of one page.
const PAGE: u32 = 1_000;
/// Records of one page of those that changed last: the store sorts for each page.
const PAGE_RECENT: u32 = 10_000;

impl Warmer {
    /// Warms up these records.
    pub fn new(records: Arc<Records>) -> Self {
        Self { records }
    }

    /// What the records look like.
    pub fn schema(&self) -> &Schema {
        self.records.schema()
    }

    /// Loads what a warm-up says until memory is full, and tells after each page how many were taken since
    /// the last.
    ///
    /// # Errors
    /// What the store says.
    pub async fn run(&self, mode: WarmUp, taken: impl Fn(u64)) -> Result<(), ServiceError> {
        match mode {
            WarmUp::None => Ok(()),
            WarmUp::All => self.pages(Filter::All, false, taken).await,
            WarmUp::Peers => match self.records.tiered().hot().await {
                // nobody told, as on a laptop or for the first replica: what changed last is the next best
                // guess
                hot if hot.is_empty() => self.recent(taken).await,
                hot => self.hot(&hot, taken).await,
            },
            WarmUp::Recent => self.recent(taken).await,
        }
    }

    async fn recent(&self, taken: impl Fn(u64)) -> Result<(), ServiceError> {
        match self.pages(Filter::All, true, &taken).await {
            // a declared table that has no time of change: any of its records are as good as others
            Err(ServiceError::Unsupported(_)) => self.pages(Filter::All, false, taken).await,
            done => done,
        }
    }

    /// Loads what another replica reads most through the tiers, so from the shared one where it is there.
    async fn hot(&self, keys: &[Key], taken: impl Fn(u64)) -> Result<(), ServiceError> {
        let evicted_before = self.evicted();
        for part in keys.chunks(PAGE as usize) {
            taken(self.keys(part).await?);
            if self.evicted() > evicted_before {
                break;
            }
        }
        Ok(())
    }

    /// Loads given records through the tiers. Says how many there are.
    ///
    /// # Errors
    /// What the store says.
    pub async fn keys(&self, keys: &[Key]) -> Result<u64, ServiceError> {
        let (mut found, mut rest) = (0, keys);
        while !rest.is_empty() {
            let part = self.records.get_many(rest, &Allowance::default()).await?;
            found += part.entries.len() as u64;
            // it takes one at least
            rest = rest.get(part.keys.max(1)..).unwrap_or_default();
        }
        Ok(found)
    }

    /// Loads the records that a filter takes until memory is full.
    ///
    /// # Errors
    /// What the store says.
    pub async fn matching(&self, filter: Filter, taken: impl Fn(u64)) -> Result<(), ServiceError> {
        self.pages(filter, false, taken).await
    }

    async fn pages(&self, filter: Filter, recent: bool, taken: impl Fn(u64)) -> Result<(), ServiceError> {
        let (order, limit) = match recent {
            true => (vec![(FieldRef::UpdatedAt, Direction::Descending)], PAGE_RECENT),
            false => (Vec::new(), PAGE),
        };
        let mut query = Query {
            filter,
            order,
            start: Start::Offset(0),
            limit,
            count: false,
            allowance: Allowance::default(),
        };
        let evicted_before = self.evicted();
        loop {
            let asked_ms = self.records.tiered().now_ms();
            let page = self.records.find(&query).await?;
            taken(self.records.tiered().offer(&page.records, asked_ms) as u64);
            let full = self.evicted() > evicted_before;
            match page.next {
                Some(next) if !full => query.start = Start::After(next),
                _ => return Ok(()),
            }
        }
    }

    /// Entries that left to make room so far: more of them mean that memory is full.
    fn evicted(&self) -> u64 {
        self.records.tiered().memory_stats().iter().map(|(_, figures)| figures.evictions).sum()
    }
}
