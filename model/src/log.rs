//! A durable log in a store, as those see it that carry events by it: entries with numbers, and the claims of
//! who reads them.
//!
//! A log has a name and needs no other preparation. Its numbers begin with 1 and have no gaps, and an entry
//! becomes visible only after all with lower numbers: whoever has read up to a number has missed nothing
//! before it. Entries are of one of [`PARTS`] parts, which groups of readers share out by claims.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::value::Timestamp;

/// How many parts a log has: as many members of a group can read at once.
pub const PARTS: i64 = 16;

/// The logs of one store.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// What identifies the database that they are in.
    async fn identity(&self) -> Result<String, LogError>;

    /// Appends entries in their order, but for those whose ids are in the log already. They are durable when
    /// this returns; after an error some may be there.
    async fn append(&self, log: &str, entries: &[Entry]) -> Result<(), LogError>;

    /// Entries from a number on, in order: those of some parts, or all. At most `limit`, and about
    /// [`PAGE_BYTES`].
    async fn page(&self, log: &str, from: u64, parts: Option<&[i64]>, limit: usize)
    -> Result<Page, LogError>;

    /// The newest entry; none before the first.
    async fn newest(&self, log: &str) -> Result<Option<Newest>, LogError>;

    /// The number of the oldest entry that is kept; 0 where there is none.
    async fn oldest(&self, log: &str) -> Result<u64, LogError>;

    /// How many entries there are after these numbers, each in its part.
    async fn count(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, LogError>;

    /// Removes some of the oldest entries: those up to a number, and those from before a time. The newest
    /// stays, for its number is where the log goes on. Whether there may be more.
    async fn prune(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, LogError>;

    /// All claims of a group.
    async fn claims(&self, group: Group<'_>) -> Result<Vec<Claim>, LogError>;

    /// Claims a part where it is free, or its claim is over by the clock of the store. Answers after which
    /// number the group goes on; none where another has it. Parts below 0 stand for the members themselves.
    async fn claim(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, LogError>;

    /// Makes claims last for another lease, and notes up to which number each part is seen to. Answers which
    /// parts are the owner's: another's stay as they are.
    async fn keep(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, LogError>;

    /// Notes the positions of these parts, and gives them up at once.
    async fn release(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), LogError>;
}

/// The bytes after which a page ends.
pub const PAGE_BYTES: usize = 4 << 20;

/// What is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Tells it from all others of the log.
    pub id: Uuid,
    /// Its part, from 0: entries that must stay in order are of one.
    pub part: i64,
    /// What it says.
    pub text: String,
}

/// An entry with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub number: u64,
    /// The entry.
    pub entry: Entry,
}

/// Some entries of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order.
    pub entries: Vec<Numbered>,
    /// Whether the page ended before the log did.
    pub more: bool,
}

impl Page {
    /// Adds an entry where the page has room; says whether it has room for another.
    pub fn push(&mut self, entry: Numbered, limit: usize, bytes: &mut usize) -> bool {
        *bytes += entry.entry.text.len();
        self.entries.push(entry);
        self.more = self.entries.len() >= limit || *bytes >= PAGE_BYTES;
        !self.more
    }
}

/// The newest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: Uuid,
    /// When it was appended, by the clock of the store.
    pub at: Timestamp,
}

/// Readers that share out a log.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The log.
    pub log: &'a str,
    /// The group's name.
    pub name: &'a str,
}

/// Who has a part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The part; below 0 a member itself.
    pub part: i64,
    /// The member.
    pub owner: String,
    /// Whether the claim still lasts.
    pub lasts: bool,
    /// Up to which number the part is seen to.
    pub position: u64,
}

/// Why a log did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be reached, or not be used.
    #[error("{0}")]
    Unavailable(String),
    /// There is no room for more.
    #[error("{0}")]
    Full(String),
}

/// The logs of a store that has none.
pub struct NoLog;

impl NoLog {
    fn none<T>() -> Result<T, LogError> {
        Err(LogError::Unavailable("this store keeps no logs".to_owned()))
    }
}

#[async_trait]
impl EventLog for NoLog {
    async fn identity(&self) -> Result<String, LogError> {
        Self::none()
    }

    async fn append(&self, _: &str, _: &[Entry]) -> Result<(), LogError> {
        Self::none()
    }

    async fn page(&self, _: &str, _: u64, _: Option<&[i64]>, _: usize) -> Result<Page, LogError> {
        Self::none()
    }

    async fn newest(&self, _: &str) -> Result<Option<Newest>, LogError> {
        Self::none()
    }

    async fn oldest(&self, _: &str) -> Result<u64, LogError> {
        Self::none()
    }

    async fn count(&self, _: &str, _: &[(i64, u64)]) -> Result<u64, LogError> {
        Self::none()
    }

    async fn prune(&self, _: &str, _: u64, _: Timestamp) -> Result<bool, LogError> {
        Self::none()
    }

    async fn claims(&self, _: Group<'_>) -> Result<Vec<Claim>, LogError> {
        Self::none()
    }

    async fn claim(&self, _: Group<'_>, _: i64, _: &str, _: Duration) -> Result<Option<u64>, LogError> {
        Self::none()
    }

    async fn keep(&self, _: Group<'_>, _: &str, _: Duration, _: &[(i64, u64)]) -> Result<Vec<i64>, LogError> {
        Self::none()
    }

    async fn release(&self, _: Group<'_>, _: &str, _: &[(i64, u64)]) -> Result<(), LogError> {
        Self::none()
    }
}
