//! A log in memory that keeps the rules, and can be cut off from one of its users.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use model::{
    log::{Claim, Entry, EventLog, Group, LogError, Newest, Numbered, Page},
    value::Timestamp,
};

/// What several users share.
#[derive(Default)]
pub struct Shared {
    /// The entries of each log, with their times.
    pub logs: BTreeMap<String, BTreeMap<u64, (Entry, Timestamp)>>,
    /// Owner, end and position of each part of each group.
    pub claims: BTreeMap<(String, String, i64), (String, Instant, u64)>,
}

/// One user's way to the log.
#[derive(Clone, Default)]
pub struct FakeLog {
    pub shared: Arc<Mutex<Shared>>,
    pub cut: Arc<AtomicBool>,
}

impl FakeLog {
    /// Another user's way to the same log.
    pub fn again(&self) -> Self {
        Self { shared: self.shared.clone(), cut: Arc::default() }
    }

    fn there(&self) -> Result<parking_lot::MutexGuard<'_, Shared>, LogError> {
        match self.cut.load(Ordering::SeqCst) {
            true => Err(LogError::Unavailable("cut off".to_owned())),
            false => Ok(self.shared.lock()),
        }
    }
}

fn key(group: Group<'_>, part: i64) -> (String, String, i64) {
    (group.log.to_owned(), group.name.to_owned(), part)
}

#[async_trait]
impl EventLog for FakeLog {
    async fn identity(&self) -> Result<String, LogError> {
        self.there().map(|_| "fake".to_owned())
    }

    async fn append(&self, log: &str, entries: &[Entry]) -> Result<(), LogError> {
        let mut shared = self.there()?;
        let log = shared.logs.entry(log.to_owned()).or_default();
        for entry in entries {
            if log.values().all(|(known, _)| known.id != entry.id) {
                let number = log.last_key_value().map_or(0, |(number, _)| *number) + 1;
                log.insert(number, (entry.clone(), Timestamp::now()));
            }
        }
        Ok(())
    }

    async fn page(
        &self,
        log: &str,
        from: u64,
        parts: Option<&[i64]>,
        limit: usize,
    ) -> Result<Page, LogError> {
        let (shared, mut page, mut bytes) = (self.there()?, Page::default(), 0);
        let entries = shared.logs.get(log).into_iter().flat_map(|log| log.range(from..));
        for (number, (entry, _)) in entries {
            let wanted = parts.is_none_or(|parts| parts.contains(&entry.part));
            let numbered = Numbered { number: *number, entry: entry.clone() };
            if wanted && !page.push(numbered, limit, &mut bytes) {
                break;
            }
        }
        Ok(page)
    }

    async fn newest(&self, log: &str) -> Result<Option<Newest>, LogError> {
        let shared = self.there()?;
        let last = shared.logs.get(log).and_then(BTreeMap::last_key_value);
        Ok(last.map(|(number, (entry, at))| Newest { number: *number, id: entry.id, at: *at }))
    }

    async fn oldest(&self, log: &str) -> Result<u64, LogError> {
        let shared = self.there()?;
        Ok(shared.logs.get(log).and_then(BTreeMap::first_key_value).map_or(0, |(number, _)| *number))
    }

    async fn count(&self, log: &str, after: &[(i64, u64)]) -> Result<u64, LogError> {
        let shared = self.there()?;
        let waits = |(number, (entry, _)): &(&u64, &(Entry, Timestamp))| {
            after.iter().any(|(part, at)| *part == entry.part && *number > at)
        };
        Ok(shared.logs.get(log).into_iter().flatten().filter(waits).count() as u64)
    }

    async fn prune(&self, log: &str, up_to: u64, before: Timestamp) -> Result<bool, LogError> {
        let mut shared = self.there()?;
        let log = shared.logs.entry(log.to_owned()).or_default();
        let newest = log.last_key_value().map_or(0, |(number, _)| *number);
        log.retain(|number, (_, at)| *number == newest || (*number > up_to && *at >= before));
        Ok(false)
    }

    async fn claims(&self, group: Group<'_>) -> Result<Vec<Claim>, LogError> {
        let shared = self.there()?;
        let own = shared.claims.iter().filter(|((log, name, _), _)| log == group.log && name == group.name);
        let claim =
            |((_, _, part), (owner, until, position)): (&(String, String, i64), &(String, Instant, u64))| {
                Claim {
                    part: *part,
                    owner: owner.clone(),
                    lasts: *until > Instant::now(),
                    position: *position,
                }
            };
        Ok(own.map(claim).collect())
    }

    async fn claim(
        &self,
        group: Group<'_>,
        part: i64,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<u64>, LogError> {
        let (mut shared, now) = (self.there()?, Instant::now());
        let held = shared.claims.entry(key(group, part)).or_insert((owner.to_owned(), now, 0));
        if held.0 != owner && held.1 > now {
            return Ok(None);
        }
        (held.0, held.1) = (owner.to_owned(), now + lease);
        Ok(Some(held.2))
    }

    async fn keep(
        &self,
        group: Group<'_>,
        owner: &str,
        lease: Duration,
        positions: &[(i64, u64)],
    ) -> Result<Vec<i64>, LogError> {
        let mut shared = self.there()?;
        let mut kept = Vec::new();
        for (part, position) in positions {
            if let Some(held) = shared.claims.get_mut(&key(group, *part)).filter(|held| held.0 == owner) {
                (held.1, held.2) = (Instant::now() + lease, *position);
                kept.push(*part);
            }
        }
        Ok(kept)
    }

    async fn release(&self, group: Group<'_>, owner: &str, positions: &[(i64, u64)]) -> Result<(), LogError> {
        self.keep(group, owner, Duration::ZERO, positions).await?;
        self.there()?.claims.retain(|(_, _, part), held| *part >= 0 || held.0 != owner);
        Ok(())
    }
}
