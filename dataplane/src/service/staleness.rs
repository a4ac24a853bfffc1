//! The staleness audit: from time to time a sample of what the tiers would serve is compared with the store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::seq::IndexedRandom;
use serde::Serialize;

use super::{error::ServiceError, records::Records};
use engine::tiered::served::WouldServe;
use model::{key::Key, record::Lookup};

/// Audits the tiers of one pool.
pub struct StalenessAudit {
    records: Arc<Records>,
    state: Mutex<State>,
}

/// What the audit has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Staleness {
    /// Answers that were compared with the store.
    pub checked: u64,
    /// Of these, the ones that the store knew better.
    pub behind: u64,
    /// For how long the stalest answer of the last round was out of date, in ms; 0: none was.
    pub last_ms: u64,
    /// The same of all rounds since the process began.
    pub worst_ms: u64,
    /// The most that the settings of the tiers allow, in ms.
    pub bound_ms: u64,
}

#[derive(Default)]
struct State {
    seen: Staleness,
    /// Since when answers are known to be behind, by tier and key.
    since_ms: HashMap<(Arc<str>, Key), u64>,
}

/// Keys of a round, and of how many they are a sample.
const SAMPLE: usize = 32;
const POPULATION: usize = 4_096;
/// The time between two rounds, shortened at random by up to a half.
pub const INTERVAL: Duration = Duration::from_secs(5);

impl StalenessAudit {
    /// The audit of a pool that nobody has looked at yet.
    pub fn new(records: Arc<Records>) -> Self {
        Self { records, state: Mutex::default() }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Staleness {
        let bound_ms = self.records.tiered().staleness_bound_ms();
        Staleness { bound_ms, ..self.state.lock().seen }
    }

    /// Audits until the process ends.
    pub async fn run(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval.mul_f64(rand::random_range(0.5..1.0))).await;
            // a store that fails is told of elsewhere, and audited again when it is back
            _ = self.round().await;
        }
    }

    /// Compares one sample.
    ///
    /// # Errors
    /// What the store says.
    pub async fn round(&self) -> Result<(), ServiceError> {
        let tiered = self.records.tiered();
        let population = tiered.recent(POPULATION);
        let keys: Vec<Key> = {
            let state = self.state.lock();
            // what was behind is looked at again until it is not
            let behind = state.since_ms.keys().map(|(_, key)| key.clone()).take(SAMPLE);
            let sample = population.choose_multiple(&mut rand::rng(), SAMPLE).cloned();
            behind.chain(sample).collect()
        };
        if keys.is_empty() {
            return Ok(());
        }
        let stored = self.records.look_up_all(&keys).await?;
        let (mut checked, mut behind) = (0, HashMap::new());
        for (key, stored) in keys.iter().zip(&stored) {
            let encoded = tiered.encoded(stored);
            // asked after the store: what is behind now was already replaced there
            for answer in tiered.would_serve(key).await {
                checked += 1;
                if answer.is_behind(stored, &encoded) {
                    behind
                        .insert((answer.tier.clone(), key.clone()), for_ms(&answer, stored, tiered.now_ms()));
                }
            }
        }
        self.note(checked, behind, tiered.now_ms());
        Ok(())
    }

    fn note(&self, checked: u64, behind: HashMap<(Arc<str>, Key), u64>, now_ms: u64) {
        let mut state = self.state.lock();
        let State { seen, since_ms } = &mut *state;
        since_ms.retain(|place, _| behind.contains_key(place));
        seen.checked += checked;
        seen.behind += behind.len() as u64;
        seen.last_ms = 0;
        for (place, stale_ms) in behind {
            let since = since_ms.entry(place).or_insert(now_ms.saturating_sub(stale_ms));
            *since = now_ms.saturating_sub(stale_ms).min(*since);
            seen.last_ms = seen.last_ms.max(now_ms.saturating_sub(*since));
        }
        seen.worst_ms = seen.worst_ms.max(seen.last_ms);
    }
}

/// For how long an answer has been out of date: since the store's record changed, where its time tells; else
/// as long as it can have been, which is since the answer was loaded.
fn for_ms(answer: &WouldServe, stored: &Lookup, now_ms: u64) -> u64 {
    let changed_ms = match stored {
        Lookup::Found(record) => record.updated_at.0.max(0).cast_unsigned(),
        Lookup::Deleted(_) | Lookup::Missing | Lookup::Unreadable(_) => 0,
    };
    match now_ms.checked_sub(changed_ms) {
        Some(since_change) if since_change < answer.age_ms => since_change,
        _ => answer.age_ms,
    }
}
